"""Files of another method: which image each is a sample of, by its exact name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from srflow_plugin.errors import UserError
from srflow_plugin.images.files import find_images
from srflow_plugin.leaderboard.sets import BenchmarkSet
from srflow_plugin.progress import tell
from srflow_plugin.shares import this_process

NO_SAMPLE = re.compile(r"_(grid|bicubic|mean|std|sheet)$")  # what our commands write beside samples
BY_NUMBER = re.compile(r"(\d{6})_sample(\d{5})")
ENDING = re.compile(r"(x\d+)?([ _-].*)?")  # what may follow an image's name: never more of a number or word
NUMBERED = re.compile(r"(.*_(?:sample)?)(\d+)")
OWN_ENDINGS = ("", "_sample")  # of srflow upscale

Kind = tuple[str, str]  # "HR" or "LR", the image that a name begins with; and its ending, without a sample's number
Found = dict[Kind, dict[int, dict[int, Path]]]  # files by kind, number of the image, number of the sample


def find_outputs(folder: Path, dataset: BenchmarkSet) -> list[list[Path]]:
    """Find the samples of each image of a data set in a folder of another method, or in one that has the set's name.

    They are called ``000000_sample00000`` (the number is the image's), or as the HR or the LR image, with
    ``_sample0``, ``_sample1``, ... behind it, or with one ending that all have. Nothing is taken by half a name.

    Raises:
        UserError: none are, not all, or several kinds; with the names that were looked for.
    """
    directory = folder / dataset.name if (folder / dataset.name).is_dir() else folder
    files = find_images(directory)
    numbered = _by_number(directory, files, dataset)
    if numbered:
        return numbered
    found = _by_name(files, dataset)
    for ending in OWN_ENDINGS:
        for image in ("HR", "LR"):
            if (image, ending) in found:
                return _all_samples(directory, dataset, (image, ending), found[image, ending])
    first = dataset.pairs[0]
    if not found:
        raise UserError(
            f"{directory} has no {first.hr.stem}.png, {first.hr.stem}_sample0.png or 000000_sample00000.png for "
            f"{first.hr.name} of {dataset.name}, nor these names with one ending; rename the files"
        )
    if len(found) > 1:
        endings = ", ".join(sorted(_pattern(kind) for kind in found)[:4])
        raise UserError(f"{directory} has several kinds of files ({endings}); keep one kind in a folder")
    kind, of_images = next(iter(found.items()))
    samples = _all_samples(directory, dataset, kind, of_images)
    if this_process().rank == 0:
        tell(f"{directory}: its {_pattern(kind)} are taken for {dataset.name}")
    return samples


def _by_number(directory: Path, files: Sequence[Path], dataset: BenchmarkSet) -> list[list[Path]]:
    """Find files that are called by the number of their image."""
    of_images: dict[int, dict[int, Path]] = defaultdict(dict)
    for file in files:
        match = BY_NUMBER.fullmatch(file.stem)
        if match:
            _add(of_images[int(match[1])], int(match[2]), file)
    if len(of_images) > len(dataset.pairs):
        raise UserError(
            f"{directory} has samples of {len(of_images)} images, {dataset.name} has {len(dataset.pairs)}: "
            "they are of another data set"
        )
    return _all_samples(directory, dataset, ("", ""), of_images) if of_images else []


def _by_name(files: Sequence[Path], dataset: BenchmarkSet) -> Found:
    """Find files that are called as the longest name of an image that they begin with, and an ending."""
    names = {pair.lr.stem: ("LR", pair.number) for pair in dataset.pairs}
    names |= {pair.hr.stem: ("HR", pair.number) for pair in dataset.pairs}
    found: Found = defaultdict(lambda: defaultdict(dict))
    for file in files:
        for length in range(len(file.stem), 0, -1):
            name, ending = file.stem[:length], file.stem[length:]
            if name in names and ENDING.fullmatch(ending):
                image, number = names[name]
                match = NUMBERED.fullmatch(ending)
                start, sample = (match[1], int(match[2])) if match else (ending, 0)
                if not NO_SAMPLE.search(ending):
                    _add(found[image, start][number], sample, file)
                break
    return found


def _add(samples: dict[int, Path], sample: int, file: Path) -> None:
    if sample in samples:
        raise UserError(f"{samples[sample]} and {file} would be the same sample; keep one of them")
    samples[sample] = file


def _all_samples(
    directory: Path, dataset: BenchmarkSet, kind: Kind, of_images: dict[int, dict[int, Path]]
) -> list[list[Path]]:
    """Put the samples of all images in order; there are equally many of each, counted from 0 or 1."""
    expected = sorted(next(iter(of_images.values())))
    if expected != [*range(expected[0], expected[0] + len(expected))] or expected[0] > 1:
        numbers = ", ".join(map(str, expected[:4]))
        raise UserError(f"{directory}: samples {numbers} of {_pattern(kind)}; they must count from 0, none left out")
    for pair in dataset.pairs:
        there = sorted(of_images.get(pair.number, {}))
        if there != expected:
            name = (pair.lr if kind[0] == "LR" else pair.hr).stem
            lacking = f"{pair.number:06d}_sample" if kind == ("", "") else f"{name}{kind[1]}"
            raise UserError(
                f"{directory} has {len(there)} files {lacking}*.png for {pair.hr.name}, {len(expected)} for another "
                f"image of {dataset.name}; there must be equally many"
            )
    return [[of_images[pair.number][sample] for sample in expected] for pair in dataset.pairs]


def _pattern(kind: Kind) -> str:
    """Describe names: ``{HR name}_ending``."""
    return f"{{{kind[0]} name}}{kind[1]}*.png" if kind[0] else "000000_sample00000.png"
