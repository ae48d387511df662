"""One image file, super-resolved into others, a band of rows at a time: the memory does not grow with the image."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from srflow_plugin.applications.batch import Job, check_space
from srflow_plugin.applications.upscale import Drawn, How, bicubic, draw_bands
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.errors import UserError
from srflow_plugin.images.files import write_image
from srflow_plugin.images.photographs import Photograph, together
from srflow_plugin.images.pictures import contact_sheet, heat_map, spread
from srflow_plugin.images.resize import scaled_length
from srflow_plugin.images.rows import Rows, open_rows
from srflow_plugin.images.writing import Put, check_layout, layout_of, picture_written
from srflow_plugin.sampling.temperature import label

MAX_LOOKED_AT = 10**8  # pixels of maps and sheets, which are made from whole pictures
FACE = 20  # LR pixels a side of the faces that face networks are trained on


@dataclass
class Told:
    """Words on an image: notes, and how many of its samples exploded as they were drawn."""

    notes: list[str] = field(default_factory=list)
    exploded: int = 0


def enlarge_file(
    network: SRFlowNet, job: Job, how: How, quality: int, max_pixels: int, name: str = "", progress: bool = False
) -> Told:
    """Draw the samples of an image and write its files.

    Args:
        network: of the samples.
        job: with samples, and what else is wanted, by kind.
        how: the samples are drawn.
        quality: of JPEG and WebP files.
        max_pixels: of the image.
        name: of the network.
        progress: show a bar over the tiles.

    Raises:
        UserError: the image cannot be read, or its pictures cannot be written; no file is there then.
    """
    rows = open_rows(job.source, max_pixels)
    like, told = rows.like, Told([*rows.notes, *face_warning(network, name, rows.height, rows.width)])
    ratio = (how.outscale or network.scale) / network.scale
    height, width = (scaled_length(network.scale * length, ratio) for length in (rows.height, rows.width))
    samples = [kind for kind in job.outputs if kind.startswith("sample")]
    pictures = {kind: path for kind, path in job.outputs.items() if kind not in ("std", "sheet")}
    check_space(next(iter(pictures.values())).parent, len(pictures) * height * width, like.channels * like.bits // 8)
    keeps = _Kept(job.outputs.keys() & {"std", "sheet"}, height * width)
    with ExitStack() as files:
        puts: dict[str, Put] = {}
        for kind, path in pictures.items():
            layout = layout_of(like, height, width, job.stamps[kind])._replace(quality=quality)
            told.notes += [note for note in check_layout(path, layout) if note not in told.notes]
            puts[kind] = files.enter_context(picture_written(path, layout))
        wild, replaced = np.zeros(len(samples), bool), 0.0
        for band in draw_bands(network, rows, how, progress):
            _put(band, puts, samples)
            keeps.add(band)
            wild, replaced = wild | band.exploded, min(1.0, replaced + band.replaced)
    told.exploded = int(wild.sum()) if how.temperature else 0
    if replaced:
        told.notes.append(
            f"{'less than 1' if replaced < 0.01 else round(100 * replaced)} % of it is bicubic: even the image of "
            "temperature 0 explodes there, as the network does not know such an image"
        )
    _write_looked_at(job, keeps, rows, network.scale, how, samples)
    return told


def face_warning(network: SRFlowNet, name: str, rows: int, columns: int) -> list[str]:
    """Warn where a network for faces is asked for something of another size than its faces."""
    if network.scale != 8 or not any(word in name.lower() for word in ("face", "celeba")) or rows == columns == FACE:
        return []
    return [f"{name} knows faces alone, aligned and of {FACE}x{FACE} pixels; this image has {columns}x{rows}"]


class _Kept:
    """Samples, where something is asked for that is made from whole ones."""

    def __init__(self, kinds: set[str], pixels: int) -> None:
        if kinds and pixels > MAX_LOOKED_AT:
            raise UserError(
                f"--std and --sheet are for pictures of up to {MAX_LOOKED_AT:,} pixels, not {pixels:,}; leave them out"
            )
        self.kinds = kinds
        self.bands: list[list[Photograph]] = []

    def add(self, band: Drawn) -> None:
        if self.kinds:
            self.bands.append(band.samples)

    def samples(self) -> list[Photograph]:
        return [together(list(parts)) for parts in zip(*self.bands, strict=True)]


def _put(band: Drawn, puts: dict[str, Put], samples: Sequence[str]) -> None:
    """Hand rows to the files."""
    first = band.samples[0]
    if not len(first.rgb):
        return
    for kind, sample in zip(samples, band.samples, strict=True):
        puts[kind](sample.quantised())
    if "mean" in puts:
        mean = np.mean([sample.rgb for sample in band.samples], axis=0)
        puts["mean"](first.with_pixels(mean, first.alpha).quantised())


def _write_looked_at(job: Job, keeps: _Kept, rows: Rows, scale: int, how: How, names: Sequence[str]) -> None:
    """Write the map of the standard deviation, and the sheet."""
    if not keeps.kinds:
        return
    samples = keeps.samples()
    pixels = [_pixels(sample) for sample in samples]
    if len(samples) > 1:
        differences = heat_map(spread([255 * sample.rgb for sample in samples]), "grey levels")
    if "std" in job.outputs:
        write_image(job.outputs["std"], differences, job.stamps["std"])
    if "sheet" in job.outputs:
        photograph = together(list(rows.bands()))
        columns = [("LR", _pixels(photograph)), ("bicubic", _pixels(bicubic(photograph, scale)))]
        titles = [f"{name.replace('sample', 'sample ')}, tau {label(how.temperature)}" for name in names]
        columns += zip(titles, pixels, strict=True)
        columns += [("standard deviation", differences)] if len(samples) > 1 else []
        write_image(job.outputs["sheet"], contact_sheet(columns, pixels[0].shape[0]), job.stamps["sheet"])


def _pixels(photograph: Photograph) -> np.ndarray:
    pixels: np.ndarray = (255 * photograph.rgb).round().astype(np.uint8)
    return pixels
