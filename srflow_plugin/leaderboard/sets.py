"""Data sets of a benchmark: HR images paired with LR images by name, and read."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from srflow_plugin.errors import UserError
from srflow_plugin.images.files import find_images, read_image

TAG = r"(?i:[HL]R(?:BI)?|GT|[HL]Q|BI|bicubic|SRF[_-]?\d+|x\d+[a-z]?\d?|\d+x)"  # what an image is, in its name
FIRST_TAG = re.compile(r"^(?i:[HL]R|GT|[HL]Q)(?:[\W_]+|(?=\d))")
LAST_TAG = re.compile(rf"(?:[\W_]+|(?<=\d)|(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=x\d)){TAG}$")


class Pair(NamedTuple):
    """An HR image and its LR image, as files."""

    number: int  # in its data set, as in the names of the outputs
    hr: Path
    lr: Path


class BenchmarkSet(NamedTuple):
    """A data set, by the name that it has in tables."""

    name: str
    pairs: list[Pair]
    scale: int = 0  # of all pairs, once they have been read


class Pictures(NamedTuple):
    """A pair as read: uint8 RGB, the HR image (scale * h, scale * w, 3), the LR image (h, w, 3)."""

    gt: np.ndarray
    lq: np.ndarray
    scale: int
    hr_size: tuple[int, int]  # of the HR file, which may not be a multiple of the scale


def find_set(name: str, hr: Path, lr: Path) -> BenchmarkSet:
    """Pair the images of two folders: by equal names, or by names that differ in the same way, as ``1x4`` and ``1``.

    Raises:
        UserError: images without partner, or with several.
    """
    hr_files, lr_files = (_by_name(name, find_images(folder)) for folder in (hr, lr))
    partners = _partners(name, list(hr_files), list(lr_files))
    if partners is None:
        counts = f"{hr} has {len(hr_files)} images and {lr} {len(lr_files)}; " * (len(hr_files) != len(lr_files))
        odd = _odd_one(hr_files, lr_files) or _odd_one(lr_files, hr_files) or next(iter(hr_files.values()))
        raise UserError(
            f"{name}: {counts}{odd} has no partner of its own; give both the same name, or such as 1.png and 1x4.png"
        )
    pairs = [Pair(number, file, lr_files[partners[one]]) for number, (one, file) in enumerate(hr_files.items())]
    return BenchmarkSet(name, pairs)


def read_pair(pair: Pair) -> Pictures:
    """Read a pair, the HR image cropped to the multiple of the scale from which the LR image can have been made.

    Raises:
        UserError: an image that cannot be used, or sizes that do not belong together.
    """
    hr, lq = read_image(pair.hr), read_image(pair.lr)
    (height, width), (h, w) = hr.shape[:2], lq.shape[:2]
    scale = _scale((height, h), (width, w))
    if scale < 2:
        hint = "are HR and LR swapped?" if h > height else "crop the first to a whole multiple of the second"
        raise UserError(f"{pair.hr} is {width}x{height} and {pair.lr} {w}x{h}: {hint}")
    return Pictures(np.ascontiguousarray(hr[: scale * h, : scale * w]), lq, scale, (height, width))


def _scale(*sides: tuple[int, int]) -> int:
    """Compute by which factor all HR sides become the LR sides, what is over being cropped; 0: by none."""
    possible = [{factor for factor in range(1, long // short + 1) if long // factor == short} for long, short in sides]
    exact = {long / short for long, short in sides}
    if len(exact) == 1 and exact <= possible[0]:
        return int(exact.pop())
    return max(set.intersection(*possible), default=0)


def _by_name(name: str, files: Sequence[Path]) -> dict[str, Path]:
    """Files by their names without suffix, composed as Unicode has it, whatever the system makes of them."""
    by_name: dict[str, Path] = {}
    for file in files:
        stem = unicodedata.normalize("NFC", file.stem)
        if stem in by_name:
            raise UserError(f"{name}: {by_name[stem]} and {file} have one name; keep one of them")
        by_name[stem] = file
    return by_name


def _partners(name: str, hr: Sequence[str], lr: Sequence[str]) -> dict[str, str] | None:
    """Find the LR image of each HR image, by name; None where one is left over."""
    if len(hr) != len(lr):
        return None
    if set(hr) == set(lr):
        return {one: one for one in hr}
    longer, shorter = _by_template(name, hr, lr), _by_template(name, lr, hr)
    if longer or shorter:
        return longer or {one: other for other, one in (shorter or {}).items()}
    return _by_core(hr, lr)


def _by_template(name: str, names: Sequence[str], longer: Sequence[str]) -> dict[str, str] | None:
    """Find what makes all longer names of the others: one beginning and one end; None where nothing does."""
    first, known = names[0], set(longer)
    templates = {template for one in longer for template in _templates(first, one)}
    fitting = [(start, end) for start, end in templates if all(f"{start}{one}{end}" in known for one in names)]
    if len(fitting) > 1:
        several = " and ".join(sorted(f"{start}{first}{end}" for start, end in fitting))
        raise UserError(f"{name}: {first} may belong to {several}; give both the same name")
    return {one: f"{fitting[0][0]}{one}{fitting[0][1]}" for one in names} if fitting else None


def _templates(name: str, longer: str) -> Iterable[tuple[str, str]]:
    """List the beginnings and ends that make one name of another, neither of them a number or part of a word."""
    for match in re.finditer(f"(?={re.escape(name)})", longer):
        start, end = longer[: match.start()], longer[match.start() + len(name) :]
        if _are_apart(start, name) and _are_apart(name, end) and re.search(r"[^\W\d_]", start + end):
            yield start, end


def _are_apart(one: str, other: str) -> bool:
    """Say whether a word or a number ends where one text meets the other."""
    left, right = one[-1:], other[:1]
    if left.isalpha() and right.isalpha():
        return (left.islower() and right.isupper()) or bool(re.match(r"x\d", other))
    return not (left.isdigit() and right.isdigit())


def _by_core(hr: Sequence[str], lr: Sequence[str]) -> dict[str, str] | None:
    """Pair names that are equal without what they say of the image: ``img_1_SRF_4_HR`` and ``img_1_SRF_4_LR``."""
    cores = {_core(one): one for one in lr}
    wanted = {one: _core(one) for one in hr}
    if len(cores) < len(lr) or set(wanted.values()) != set(cores):
        return None
    return {one: cores[core] for one, core in wanted.items()}


def _core(name: str) -> str:
    """Leave out of a name what it says of the image: ``img_1_SRF_4_HR`` -> ``img_1``."""
    for tag in (FIRST_TAG, LAST_TAG):
        shorter = tag.sub("", name, count=1)
        if shorter not in ("", name):
            return _core(shorter)
    return name.casefold()


def _odd_one(names: Mapping[str, Path], others: Mapping[str, Path]) -> Path | None:
    """Find an image that has no partner of its own; None where each has one."""
    cores = Counter(map(_core, others))
    return next((file for name, file in names.items() if name not in others and cores[_core(name)] != 1), None)
