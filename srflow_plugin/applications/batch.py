"""Many image files, super-resolved into other files: what is read, what is written, nothing lost. Needs no torch."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from srflow_plugin.errors import UserError
from srflow_plugin.images.files import IMAGE_SUFFIXES, find_images, write_image
from srflow_plugin.images.photographs import Photograph, write_png
from srflow_plugin.images.pictures import contact_sheet, heat_map, spread

Outputs = dict[str, Path]  # by kind: sample0, sample1, ..., mean, std, sheet


class Job(NamedTuple):
    """An image to read, and the files to write for it."""

    source: Path
    outputs: Outputs


def plan(names: Sequence[str], output: Path, num_samples: int, extras: Sequence[str], overwrite: bool) -> list[Job]:
    """Find the images, name the files, and check that all can be written and nothing is lost.

    Args:
        names: images, folders of them, and patterns.
        output: a folder, or a .png file for one sample of one image.
        num_samples: for each image.
        extras: of "mean", "std" and "sheet", those that are written, too.
        overwrite: files may be replaced, but for the images themselves.

    Raises:
        UserError: before any work.
    """
    is_file = output.suffix.lower() in IMAGE_SUFFIXES
    sources = find_inputs(names)
    if is_file:
        if output.suffix.lower() != ".png":
            raise UserError(f"{output} must end in .png, or be a folder")
        if len(sources) > 1 or num_samples > 1 or extras:
            raise UserError(f"{output} is one file; name a folder with -o for several")
        if not output.parent.is_dir():
            raise UserError(f"{output.parent} is not a folder; make it first")
        jobs = [Job(source, {"sample0": output}) for source in sources]
    else:
        if output.exists() and not output.is_dir():
            raise UserError(f"{output} is not a folder")
        jobs = [Job(source, _outputs(source, output, num_samples, extras)) for source in sources]
    _check_outputs(jobs, overwrite)
    return jobs


def find_inputs(names: Sequence[str]) -> list[Path]:
    """List the files that names mean, in order, each once."""
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            images = find_images(path)
        elif path.exists() or not glob.has_magic(name):
            images = [path]
        else:
            images = sorted(
                Path(match)
                for match in glob.glob(name, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute patterns)
                if Path(match).is_file()
            )
            if not images:
                raise UserError(f"no file matches {name}")
        found.update(dict.fromkeys(images))
    for path in found:
        if not path.exists():
            raise UserError(f"{path} does not exist; correct the path")
    return list(found)


def write_outputs(
    outputs: Outputs,
    photograph: Photograph,
    enlarge: Callable[[Photograph], Photograph],
    samples: Sequence[Photograph],
    title: str,
) -> None:
    """Write the samples of a photograph, and what else was asked for.

    Args:
        outputs: files by kind.
        photograph: the LR image, for the sheet.
        enlarge: makes its bicubic enlargement.
        samples: of it.
        title: what they were drawn with, for the sheet.
    """
    for number, sample in enumerate(samples):
        write_png(outputs[f"sample{number}"], sample)
    stack = np.stack([sample.rgb for sample in samples])
    if "mean" in outputs:
        write_png(outputs["mean"], samples[0].with_pixels(stack.mean(0), samples[0].alpha))
    if len(samples) > 1 and {"std", "sheet"} & outputs.keys():
        differences = heat_map(spread(list(255 * stack)), "grey levels")
    if "std" in outputs:
        write_image(outputs["std"], differences)
    if "sheet" in outputs:
        titled = [("LR", photograph), ("bicubic", enlarge(photograph))]
        titled += [(f"sample {number}, {title}", sample) for number, sample in enumerate(samples)]
        columns = [(name, _pixels(picture)) for name, picture in titled]
        columns += [("standard deviation", differences)] if len(samples) > 1 else []
        write_image(outputs["sheet"], contact_sheet(columns, columns[1][1].shape[0]))


def _outputs(source: Path, folder: Path, num_samples: int, extras: Sequence[str]) -> Outputs:
    kinds = [*(f"sample{number}" for number in range(num_samples)), *extras]
    return {
        kind: folder / f"{source.stem}{'' if kind == 'sample0' and num_samples == 1 else '_' + kind}.png"
        for kind in kinds
    }


def _check_outputs(jobs: Sequence[Job], overwrite: bool) -> None:
    writers: dict[Path, Path] = {}
    for source, outputs in jobs:
        for file in outputs.values():
            if file in writers:
                raise UserError(f"{writers[file]} and {source} would both become {file}; take them one by one")
            writers[file] = source
            if file.exists() and (not overwrite or file.resolve() == source.resolve()):
                remedy = "choose another folder with -o" if overwrite else "give --overwrite or another -o"
                raise UserError(f"{file} exists; {remedy}")


def _pixels(photograph: Photograph) -> np.ndarray:
    pixels: np.ndarray = (255 * photograph.rgb).round().astype(np.uint8)
    return pixels
