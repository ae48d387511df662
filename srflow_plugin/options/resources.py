"""Mistakes that only what an option file names can show: weights that do not fit, data sets that are not there."""

from __future__ import annotations

import mmap
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import lmdb
from basicsr.utils.registry import LOSS_REGISTRY

from srflow_plugin.checkpoints.fit import check_encoder_fit, check_fit, with_prior_of
from srflow_plugin.checkpoints.load import encoder_weights, network_weights, read_checkpoint
from srflow_plugin.data.checked import close_files
from srflow_plugin.data.pairing import LISTS, hr_files, image_names, image_sizes, lines_of_list, names_of_list
from srflow_plugin.errors import UserError
from srflow_plugin.options.registered import build_network, try_metric
from srflow_plugin.options.schema import SRFLOW_MODELS, Section

Sizes = dict[str, tuple[int, int]]
# Goes through an LMDB, by itself: liblmdb believes its file, and a damaged one can end the process that reads it.
WALK = """
import sys, lmdb
with lmdb.open(sys.argv[1], readonly=True, lock=False) as database, database.begin(buffers=True) as transaction:
    stat, entries, pages = database.stat(), 0, 0
    for key, value in transaction.cursor():
        entries += 1
        pages += -(-len(value) // stat["psize"]) if len(value) > stat["psize"] else 0
        assert entries <= stat["entries"] and pages <= stat["overflow_pages"]
    assert entries == stat["entries"]
"""
WALK_SECONDS = 600
TRIED_SIDES = range(16, 513, 16)  # of images, to say how large they must be


def check_weights(opt: Section) -> None:
    """Check that the checkpoints named under ``path`` can be read and, for SRFlowNet, that they fit.

    A perceptual loss has weights, too, which its class fetches.
    """
    for key, path in opt["path"].items():
        if path is None or not key.startswith("pretrain_network"):
            continue
        try:
            state = read_checkpoint(Path(path))
            if key == "pretrain_network_g" and opt["model_type"] in SRFLOW_MODELS:
                weights = network_weights(state, opt["path"].get("param_key_g", "params"), path)
                network = build_network(opt)
                weights = with_prior_of(network, weights, is_trained=opt["model_type"] == "SRFlowPriorModel")
                check_fit(weights, network, path, strict=opt["path"].get("strict_load_g", True))
            elif key == "pretrain_network_encoder" and opt["model_type"] in SRFLOW_MODELS:
                weights = encoder_weights(state, opt["path"].get("param_key_encoder", "params"), path)
                check_encoder_fit(weights, build_network(opt).encoder, path)
        except UserError as error:
            raise UserError(f"path.{key}: {error}{_other_ways(key, Path(path))}") from None
    perceptual = opt["train"].get("perceptual_opt") if opt["is_train"] else None
    if perceptual:
        arguments = {key: value for key, value in perceptual.items() if key != "type"}
        try:
            LOSS_REGISTRY.get(perceptual["type"])(**arguments)
        except (OSError, UserError) as error:
            raise UserError(
                f"train.perceptual_opt: the weights of {perceptual['type']} cannot be had: {error}"
            ) from None


def _other_ways(key: str, path: Path) -> str:
    """Name what else helps where a network is not there: the run that makes it, or to do without."""
    if path.exists():
        return ""
    name, options = path.parent.parent.name, Path("options", f"{path.parent.parent.name}.yml")
    ways = ""
    if path.parent.name == "models" and name:
        ways = f", or make it: basicsr train -opt {options}" if options.is_file() else f", or train {name} first"
    if key == "pretrain_network_encoder":
        ways += f"; name any RRDB or ESRGAN file, or train without one: path.{key}=~"
    return ways


def check_data(opt: Section) -> None:
    """Check that the data sets are there, and large enough for a batch of patches or for the metrics."""
    for phase, dataset in opt["datasets"].items():
        for key in LISTS:
            if isinstance(dataset.get(key), str):
                try:
                    lines_of_list(Path(dataset[key]))
                except UserError as error:
                    raise UserError(f"datasets.{phase}.{key}: {error}") from None
        if dataset["type"] == "RealESRGANDataset":
            _check_roots(f"datasets.{phase}", dataset, ["dataroot_gt"])
            _check_count(f"datasets.{phase}", dataset, _count_hr(f"datasets.{phase}", dataset))
        if dataset["type"] != "PairedImageDataset":
            continue
        _check_roots(f"datasets.{phase}", dataset, ["dataroot_gt", "dataroot_lq"])
        if dataset["io_backend"]["type"] == "lmdb":
            sizes = _check_lmdbs(f"datasets.{phase}", dataset)
        elif dataset["phase"] == "train" or (opt.get("val") or {}).get("metrics"):
            sizes = _folder_sizes(dataset)
        else:
            continue  # nobody asks, and there may be many
        if dataset["phase"] == "train":
            _check_patches(f"datasets.{phase}", dataset, sizes)
        else:
            _check_metrics(opt, dataset, sizes)


def _check_roots(where: str, dataset: Section, keys: Sequence[str]) -> None:
    """Check that folders are there and have images, or are LMDBs."""
    is_lmdb = dataset["io_backend"]["type"] == "lmdb"
    for key in keys:
        path = Path(dataset[key])
        if not path.is_dir():
            raise UserError(f"{where}.{key}: {path} does not exist; make it with `srflow prepare` or correct the path")
        if is_lmdb and (path.suffix != ".lmdb" or not (path / "meta_info.txt").is_file()):
            raise UserError(
                f"{where}.{key}: {path} is not an LMDB; make one with `srflow prepare`, or io_backend.type: disk"
            )
        is_listed = dataset.get("meta_info") is not None  # of subfolders, perhaps
        if not is_lmdb and not is_listed and next(image_names(str(path)), None) is None:
            raise UserError(f"{where}.{key}: {path} has no images")


def _count_hr(where: str, dataset: Section) -> int:
    """Count the images of a data set of HR images alone."""
    if dataset["io_backend"]["type"] == "lmdb":
        return len(_lmdb_sizes(f"{where}.dataroot_gt", Path(dataset["dataroot_gt"])))
    return len(hr_files(dataset))


def _folder_sizes(dataset: Section) -> Sizes:
    """Height and width of every HR image of a folder, by path; those that cannot be read are left out."""
    folder, listed = Path(dataset["dataroot_gt"]), dataset.get("meta_info_file")
    names = names_of_list(Path(listed)) if listed else sorted(image_names(str(folder)))
    files = [folder / name for name in names]
    return {str(file): size for file, size in zip(files, image_sizes(files), strict=True) if size}


def _check_patches(where: str, dataset: Section, sizes: Sizes) -> None:
    """Check that a training's images fill a batch and hold a patch each."""
    _check_count(where, dataset, len(sizes))
    small = [name for name, size in sizes.items() if min(size) < dataset["gt_size"]]
    if small and not dataset.get("skip_bad_images"):
        height, width = sizes[small[0]]
        others = f", and so are {len(small) - 1} others; leave them out" if len(small) > 1 else "; leave it out"
        size = f"{width}x{height}, smaller than gt_size {dataset['gt_size']}"
        raise UserError(f"{where}: {small[0]} is {size}{others}, or set datasets.train.skip_bad_images: true")


def _check_count(where: str, dataset: Section, count: int) -> None:
    """Check that a training's images fill a batch."""
    images = count * dataset.get("dataset_enlarge_ratio", 1)
    if images < dataset["batch_size_per_gpu"]:
        raise UserError(
            f"{where}: {images} images do not fill a batch of {dataset['batch_size_per_gpu']}; "
            "raise dataset_enlarge_ratio or lower batch_size_per_gpu"
        )


def _check_metrics(opt: Section, dataset: Section, sizes: Sizes) -> None:
    """Try the metrics of a validation at the size of its smallest image."""
    if not sizes:
        return
    name = min(sizes, key=lambda name: min(sizes[name]))
    for metric, section in ((opt.get("val") or {}).get("metrics") or {}).items():
        try:
            try_metric(section, opt["model_type"], *sizes[name])
        except Exception as error:
            needed = next((side for side in TRIED_SIDES if _works(section, opt["model_type"], side)), None)
            height, width = sizes[name]
            raise UserError(
                f"val.metrics.{metric} cannot be computed on {dataset['name']}: its image {name} is {width}x{height} "
                f"({' '.join(str(error).split()):.80}); "
                + (f"it needs about {needed}x{needed}: " if needed else "")
                + "leave the metric or the image out"
            ) from None


def _works(section: Section, model_type: str, side: int) -> bool:
    try:
        try_metric(section, model_type, side, side)
    except Exception:
        return False
    return True


def _check_lmdbs(where: str, dataset: Section) -> Sizes:
    """Height and width of every HR image of a pair of LMDBs, by its key."""
    gts, lqs = (_lmdb_sizes(f"{where}.{key}", Path(dataset[key])) for key in ("dataroot_gt", "dataroot_lq"))
    for one, other in ((gts, lqs), (lqs, gts)):
        key = next((key for key in one if key not in other), None)
        if key is not None:
            missing = dataset["dataroot_lq" if one is gts else "dataroot_gt"]
            raise UserError(f"{where}: {missing} has no image {key}; make the pair again with `srflow prepare`")
    return gts


def _lmdb_sizes(where: str, folder: Path) -> Sizes:
    """Height and width of every image by its key, as meta_info.txt lists them; the LMDB itself is whole."""
    again = "make it again with `srflow prepare`"
    sizes = {}
    for number, line in enumerate((folder / "meta_info.txt").read_bytes().splitlines(), start=1):
        match = re.fullmatch(rb"([^.]+)\.\S+ \((\d{1,9}),(\d{1,9}),\d+\)( \d+)?", line)
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
        _walk(folder)
    except (OSError, lmdb.Error) as error:
        raise UserError(f"{where}: {folder}/data.mdb cannot be read: {error}; {again}") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{where}: {folder}/data.mdb takes too long to read: damaged, or on a slow disk") from None
    if stat["entries"] < len(sizes):
        held = f"meta_info.txt lists {len(sizes)} images, the LMDB has {stat['entries']}"
        raise UserError(f"{where}: {folder}: {held}; {again}")
    return sizes


def _walk(folder: Path) -> None:
    """Go through an LMDB in a process of its own.

    Raises:
        lmdb.Error: that process failed, or ended.
    """
    command = [sys.executable, "-c", WALK, str(folder)]
    if subprocess.run(command, capture_output=True, timeout=WALK_SECONDS, check=False).returncode:
        raise lmdb.Error("damaged")
