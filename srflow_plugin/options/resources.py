"""Mistakes that only what an option file names can show: weights that do not fit, data sets that are not there."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import lmdb
from basicsr.utils.registry import LOSS_REGISTRY

from srflow_plugin.checkpoints.fit import check_encoder_fit, check_fit
from srflow_plugin.checkpoints.load import encoder_weights, network_weights, read_checkpoint
from srflow_plugin.data.checked import close_files
from srflow_plugin.errors import UserError
from srflow_plugin.options.registered import build_network
from srflow_plugin.options.schema import Section


def check_weights(opt: Section) -> None:
    """Check that the checkpoints named under ``path`` can be read and, for SRFlowNet, that they fit.

    A perceptual loss has weights, too, which its class fetches.
    """
    for key, path in opt["path"].items():
        if path is None or not key.startswith("pretrain_network"):
            continue
        try:
            state = read_checkpoint(Path(path))
            if key == "pretrain_network_g" and opt["model_type"] == "SRFlowModel":
                weights = network_weights(state, opt["path"].get("param_key_g", "params"), path)
                check_fit(weights, build_network(opt), path, strict=opt["path"].get("strict_load_g", True))
            elif key == "pretrain_network_encoder" and opt["model_type"] == "SRFlowModel":
                weights = encoder_weights(state, opt["path"].get("param_key_encoder", "params"), path)
                check_encoder_fit(weights, build_network(opt).encoder, path)
        except UserError as error:
            raise UserError(f"path.{key}: {error}") from None
    perceptual = opt["train"].get("perceptual_opt") if opt["is_train"] else None
    if perceptual:
        arguments = {key: value for key, value in perceptual.items() if key != "type"}
        try:
            LOSS_REGISTRY.get(perceptual["type"])(**arguments)
        except OSError as error:  # an URLError, too
            raise UserError(
                f"train.perceptual_opt: the weights of {perceptual['type']} cannot be had: {error}"
            ) from None


def check_data(opt: Section) -> None:
    """Check that the data sets are there and large enough for a batch of patches."""
    for phase, dataset in opt["datasets"].items():
        if dataset["type"] != "PairedImageDataset":
            continue
        is_lmdb = dataset["io_backend"]["type"] == "lmdb"
        for key in ("dataroot_gt", "dataroot_lq"):
            where, path = f"datasets.{phase}.{key}", Path(dataset[key])
            if not path.is_dir():
                raise UserError(f"{where}: {path} does not exist; make it with `srflow prepare` or correct the path")
            if is_lmdb and (path.suffix != ".lmdb" or not (path / "meta_info.txt").is_file()):
                raise UserError(
                    f"{where}: {path} is not an LMDB; make one with `srflow prepare`, or io_backend.type: disk"
                )
            if not is_lmdb and not any(path.iterdir()):
                raise UserError(f"{where}: {path} is empty")
        if is_lmdb:
            _check_lmdbs(f"datasets.{phase}", dataset)


def _check_lmdbs(where: str, dataset: Section) -> None:
    gts, lqs = (_lmdb_sizes(f"{where}.{key}", Path(dataset[key])) for key in ("dataroot_gt", "dataroot_lq"))
    for one, other in ((gts, lqs), (lqs, gts)):
        key = next((key for key in one if key not in other), None)
        if key is not None:
            missing = dataset["dataroot_lq" if one is gts else "dataroot_gt"]
            raise UserError(f"{where}: {missing} has no image {key}; make the pair again with `srflow prepare`")
    if dataset["phase"] != "train":
        return
    images = len(gts) * dataset.get("dataset_enlarge_ratio", 1)
    if images < dataset["batch_size_per_gpu"]:
        raise UserError(
            f"{where}: {images} images do not fill a batch of {dataset['batch_size_per_gpu']}; "
            "raise dataset_enlarge_ratio or lower batch_size_per_gpu"
        )
    for key, (height, width) in gts.items():
        if min(height, width) < dataset["gt_size"]:
            size = f"{height}x{width}, smaller than gt_size {dataset['gt_size']}"
            raise UserError(f"{where}: {key} is {size}; leave it out")


def _lmdb_sizes(where: str, folder: Path) -> dict[str, tuple[int, int]]:
    """Height and width of every image by its key, as meta_info.txt lists them; the LMDB itself is whole."""
    again = "make it again with `srflow prepare`"
    sizes = {}
    for number, line in enumerate((folder / "meta_info.txt").read_bytes().splitlines(), start=1):
        match = re.fullmatch(rb"([^.]+)\.\S+ \((\d+),(\d+),\d+\)( \d+)?", line)
        if not match:
            raise UserError(f"{where}: {folder}/meta_info.txt: line {number} is {line!r:.60}; {again}")
        sizes[match[1].decode("ascii", "replace")] = int(match[2]), int(match[3])
    if not sizes:
        raise UserError(f"{where}: {folder}/meta_info.txt is empty; {again}")
    try:
        size = (folder / "data.mdb").stat().st_size
        if size < 2 * mmap.PAGESIZE:
            raise lmdb.Error("truncated")
        close_files()  # which an earlier run of this process may have left open
        with lmdb.open(str(folder), readonly=True, lock=False) as database:
            stat, info = database.stat(), database.info()
            # Reading beyond the end of the file would end this process with a bus error.
            if size < stat["psize"] * (info["last_pgno"] + 1):
                raise lmdb.Error("truncated")
    except (OSError, lmdb.Error) as error:
        raise UserError(f"{where}: {folder}/data.mdb cannot be read: {error}; {again}") from None
    if stat["entries"] < len(sizes):
        held = f"meta_info.txt lists {len(sizes)} images, the LMDB has {stat['entries']}"
        raise UserError(f"{where}: {folder}: {held}; {again}")
    return sizes
