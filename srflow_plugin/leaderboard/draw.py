"""Methods and data sets of a benchmark, and the files that the methods' outputs go to."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from basicsr.archs import build_network
from torch import Tensor, nn
from tqdm import tqdm

from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.checkpoints.load import flat_weights, load_network, read_checkpoint
from srflow_plugin.devices import synchronize
from srflow_plugin.errors import UserError
from srflow_plugin.flow import Context
from srflow_plugin.images.files import is_image_file, write_image
from srflow_plugin.images.resize import bicubic_upscale
from srflow_plugin.images.tensors import to_pixels, to_tensor
from srflow_plugin.leaderboard.records import Records
from srflow_plugin.leaderboard.sets import BenchmarkSet, Pair, read_pair
from srflow_plugin.options.files import load_options
from srflow_plugin.sampling.draw import draw
from srflow_plugin.sampling.explosions import count_exploded
from srflow_plugin.sampling.temperature import Temperature, check_has_prior, is_learned, is_random, label
from srflow_plugin.sampling.tiling import Tile, tile_side
from srflow_plugin.shares import in_shares, this_process

OPTION_SUFFIXES = (".yml", ".yaml")
Result = TypeVar("Result")


class Method(NamedTuple):
    """One row of a table: a way to draw samples, or a folder where another program has put them."""

    name: str
    temperature: Temperature | None = None
    num_samples: int = 1
    source: Path | None = None  # checkpoint, option file of a network, or the folder of files; None: bicubic upscaling
    draws: bool = True  # False: the files are there
    files: dict[str, list[list[Path]]] | None = None  # those, by data set and image

    @property
    def family(self) -> str:
        """Name that the rows of one checkpoint have in common."""
        return family_of(self.name)


def family_of(method: str) -> str:
    """Name of a method without its temperature."""
    return method.rpartition(" tau ")[0] or method


class Settings(NamedTuple):
    """Settings of a benchmark: of drawing the samples, and of comparing them."""

    seed: int  # of the first image; each has the next
    resample: float | None
    distance: str
    net: str
    lr_border: str
    tile: Tile
    niqe: bool
    device: str
    compile: bool = False
    adaptive: float | None = None


def fingerprint(source: Path) -> str:
    """Compute the first digits of a file's SHA-256; of a folder's, names, sizes and times of what is in it.

    The weights that an option file names are part of it.
    """
    if source.suffix in OPTION_SUFFIXES:
        _, weights, _ = _network_of(source)
        return hashlib.sha256(source.read_bytes() + weights.read_bytes()).hexdigest()[:12]
    if source.is_file():
        return hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    files = sorted(
        (str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in source.rglob("*") if is_image_file(path)
    )
    return hashlib.sha256(repr(files).encode()).hexdigest()[:12]


def sample_files(folder: Path, dataset: BenchmarkSet, method: Method, pair: Pair) -> list[Path]:
    """List a method's outputs for an image: where they are, or where they will be."""
    if method.files is not None:
        return method.files[dataset.name][pair.number]
    directory = folder / "images" / dataset.name / folder_of(method.name)
    return [directory / f"{pair.number:06d}_sample{sample:05d}.png" for sample in range(method.num_samples)]


def folder_of(name: str) -> str:
    """Name the folder of a method's outputs."""
    return name.replace(" ", "_")


class Drawing(NamedTuple):
    """One image, to be drawn by the methods that have a source in common."""

    dataset: BenchmarkSet
    pair: Pair
    methods: list[Method]

    @property
    def name(self) -> str:
        """Name of it in its benchmark."""
        return f"{self.methods[0].source} {self.dataset.name} {self.pair.number}"


def draw_all(
    folder: Path, sets: Sequence[BenchmarkSet], methods: Sequence[Method], settings: Settings, records: Records
) -> None:
    """Write every method's outputs that are not there yet, and a record of each image's drawing.

    The images are shared with all processes that do the same; at the end all are drawn.
    """
    by_source: dict[Path | None, list[Method]] = {}
    for method in methods:
        if method.draws:
            by_source.setdefault(method.source, []).append(method)

    def undrawn(work: Drawing) -> list[Method]:
        return [method for method in work.methods if not _is_drawn(folder, work.dataset, method, work.pair, records)]

    all_work = {
        source: [Drawing(dataset, pair, of_source) for dataset in sets for pair in dataset.pairs]
        for source, of_source in by_source.items()
    }
    for source, work in all_work.items():  # before hours are spent on the first
        undrawn_work = [Drawing(one.dataset, one.pair, undrawn(one)) for one in work if undrawn(one)]
        _check_network(source, undrawn_work, settings.compile)
    for source, work in all_work.items():
        done = sum(not undrawn(one) for one in work)
        network = _load(source, settings.device, settings.compile) if done < len(work) else None
        is_shown, family = this_process().rank == 0, by_source[source][0].family
        with (
            closing(in_shares(work, lambda one: one.name, lambda one: not undrawn(one), folder)) as shared,
            tqdm(total=len(work), initial=done, unit="image", desc=family, disable=not is_shown) as bar,
        ):
            for one in shared:
                _draw_image(folder, one.dataset, one.pair, undrawn(one), network, settings, records)
                bar.update()
            bar.update(len(work) - bar.n)  # those that others have drawn


def _check_network(source: Path | None, work: Sequence[Drawing], compile: bool) -> None:
    """Check that a network can be loaded, and can draw all that it is to: its scale, and its temperatures."""
    network = _load(source, "cpu", compile) if work else None
    if not isinstance(network, SRFlowNet):
        return
    for one in work:
        scale = one.dataset.scale
        if network.scale != scale:
            raise UserError(f"{source} is a network of scale {network.scale}, {one.dataset.name} of scale {scale}")
        for method in one.methods:
            if is_learned(method.temperature):
                check_has_prior(network, str(source))


def _load(source: Path | None, device: str, compile: bool) -> nn.Module | None:
    """Load an SRFlow network from a checkpoint, another network from an option file, nothing for bicubic upscaling."""
    if source is None:
        return None
    network = image_network(source) if source.suffix in OPTION_SUFFIXES else load_network(source, compile=compile)
    return network.to(device)


def image_network(option_file: Path) -> nn.Module:
    """Build a network that makes one image: an option file's ``network_g`` with its ``path.pretrain_network_g``.

    Raises:
        UserError: the file, its network or its weights cannot be used.
    """
    section, weights, param_key = _network_of(option_file)
    try:
        network: nn.Module = build_network(section)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{option_file}: network_g cannot be built: {error}") from None
    try:
        network.load_state_dict(flat_weights(read_checkpoint(weights), param_key, str(weights)))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{weights} does not fit network_g of {option_file}: {reason}") from None
    return network.eval()


def _network_of(option_file: Path) -> tuple[dict[str, Any], Path, str]:
    """Read what an option file says of a network: its section, the file of its weights, and their key there."""
    opt = load_options(option_file)
    path, section = opt.get("path"), opt.get("network_g")
    if not isinstance(section, dict) or not isinstance(path, dict) or not path.get("pretrain_network_g"):
        raise UserError(f"{option_file} needs network_g and path.pretrain_network_g")
    weights = Path(path["pretrain_network_g"]).expanduser()
    if not weights.is_file():
        raise UserError(f"path.pretrain_network_g of {option_file}: {weights} does not exist; correct the path")
    return section, weights, path.get("param_key_g", "params")


def _is_drawn(folder: Path, dataset: BenchmarkSet, method: Method, pair: Pair, records: Records) -> bool:
    files = sample_files(folder, dataset, method, pair)
    return records.has(dataset.name, method.name, pair.hr.name) and all(file.exists() for file in files)


def _draw_image(
    folder: Path,
    dataset: BenchmarkSet,
    pair: Pair,
    methods: Sequence[Method],
    network: nn.Module | None,
    settings: Settings,
    records: Records,
) -> None:
    pictures = read_pair(pair)
    gt, lq = (to_tensor(image).to(settings.device) for image in (pictures.gt, pictures.lq))
    common: dict[str, float] = {}
    features = None
    most_samples = max(method.num_samples for method in methods)
    if isinstance(network, SRFlowNet) and _is_whole(settings, lq, most_samples, network.scale):
        common["encoder_seconds"], features = _timed(network.features, lq)
        seed = settings.seed + pair.number
        common["code_length_seconds"], bits = _timed(network.code_length, gt, lq, seed, features)
        common["code_length"] = float(bits)
    elif isinstance(network, SRFlowNet):
        tqdm.write(
            f"{pair.lr}: drawn in tiles, so that it has no code length (--tile none: whole images)", file=sys.stderr
        )
    for method in methods:
        if isinstance(network, SRFlowNet):
            seconds, (samples, exploded) = _timed(_samples, network, lq, method, settings, pair.number, features)
        else:
            seconds, samples = _timed(network or partial(bicubic_upscale, scale=pictures.scale), lq)
            exploded = count_exploded(samples)
            if samples.shape != gt.shape:
                raise UserError(f"{method.source} made {tuple(samples.shape)} of an image of {tuple(gt.shape)}")
        files_seconds, _ = _timed(_write, sample_files(folder, dataset, method, pair), samples)
        values = {
            **common,
            "exploded": exploded,
            "nonfinite": samples.numel() - int(samples.isfinite().sum()),
            "seconds": seconds + common.get("encoder_seconds", 0),
            "network_seconds": seconds,
            "files_seconds": files_seconds,
        }
        records.add(dataset.name, method.name, pair.hr.name, values)


def _is_whole(settings: Settings, lq: Tensor, num_samples: int, scale: int) -> bool:
    """Say if an image is drawn as one tile."""
    return tile_side(settings.tile, lq.shape, num_samples, scale, lq.device) is None


def _samples(
    network: SRFlowNet,
    lq: Tensor,
    method: Method,
    settings: Settings,
    number: int,
    features: Sequence[Context] | None,
) -> tuple[Tensor, int]:
    """Draw a method's samples of an image, (num_samples, 3, H, W), and count those that exploded as drawn."""
    assert method.temperature is not None
    samples = draw(
        network,
        lq,
        method.temperature,
        method.num_samples,
        settings.seed + number,
        tile=settings.tile,
        resample=settings.resample,
        features=features,
        adaptive=settings.adaptive,
    )
    return samples.images[:, 0], samples.exploded


def _timed(work: Callable[..., Result], *arguments: Any, **options: Any) -> tuple[float, Result]:
    """Do ``work``: the seconds that it took, and what it returned."""
    start = time.perf_counter()
    with torch.no_grad():
        result = work(*arguments, **options)
    synchronize()
    return time.perf_counter() - start, result


def _write(files: Sequence[Path], samples: Tensor) -> None:
    for file, sample in zip(files, samples, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_image(file, to_pixels(sample))


def checkpoint_methods(checkpoint: Path, temperatures: Sequence[Temperature], num_samples: int) -> Iterator[Method]:
    """Make a checkpoint's rows: ``num_samples`` each, or one sample where all are equal."""
    for temperature in temperatures:
        name = f"{checkpoint.stem} tau {label(temperature)}"
        yield Method(name, temperature, num_samples if is_random(temperature) else 1, checkpoint)
