"""The field's data sets by name: where they come from, how they are checked, how the field prepares them.

Sizes and checksums are those that other projects' downloaders have on record (TensorFlow Datasets for DIV2K,
torchvision for CelebA, torchsr for Flickr2K); they were not checked against the servers. Nobody but the
publishers may pass the images on: look at each set's terms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from srflow_plugin.data.archives import archive_stem, unpack
from srflow_plugin.data.download import download, verify
from srflow_plugin.errors import UserError
from srflow_plugin.images.files import find_images
from srflow_plugin.images.resize import Border


class Archive(NamedTuple):
    """A file that the publishers offer."""

    file: str
    size: int | None  # bytes
    checksum: str | None
    url: str | None  # None: not to be had without a person
    page: str


class KnownSet(NamedTuple):
    """A data set: images numbered ``first`` to ``last`` (sorted by name, from 1) of a folder in an archive."""

    archive: Archive
    folder: str
    first: int
    last: int
    in_folder: int  # images in all
    center_crop: int | None = None
    border: Border = "symmetric"
    kind: Literal["lmdb", "png"] = "lmdb"


ETHZ, SNU = "https://data.vision.ee.ethz.ch/cvl/DIV2K", "https://cv.snu.ac.kr/research/EDSR"
DIV2K_TRAIN = Archive(
    "DIV2K_train_HR.zip",
    3_530_603_713,
    "sha256:9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
    f"{ETHZ}/DIV2K_train_HR.zip",
    ETHZ,
)
DIV2K_VALID = Archive(
    "DIV2K_valid_HR.zip",
    448_993_893,
    "sha256:20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
    f"{ETHZ}/DIV2K_valid_HR.zip",
    ETHZ,
)
FLICKR2K = Archive(
    "Flickr2K.tar",
    None,
    "md5:5d3f39443d5e9489bff8963f8f26cb03",
    f"{SNU}/Flickr2K.tar",
    "https://github.com/limbee/NTIRE2017",
)
EDSR_BENCHMARK = Archive(
    "benchmark.tar",
    250_112_000,
    "sha256:80c21c333bbf6ceb5308b7243761f8284478274413a97b96f1d63e9045fd93e8",
    f"{SNU}/benchmark.tar",
    "https://github.com/sanghyun-son/EDSR-PyTorch",
)
CELEBA = Archive(
    "img_align_celeba.zip",
    None,
    "md5:00d2c5bc6d35e252742224ab0c1e8fcb",
    None,
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
)
MANGA109 = Archive(
    "Manga109.zip",  # the publishers' own has all pages of the 109 books
    None,
    None,
    None,
    "someone who has the 109 pages of super-resolution papers, with leave of http://www.manga109.org",
)


def _benchmark(folder: str, count: int) -> KnownSet:
    return KnownSet(EDSR_BENCHMARK, f"{folder}/HR", 1, count, count, border="replicate", kind="png")


def _celeba(first: int, last: int) -> KnownSet:
    """Make a part of CelebA's own partition; 178x218, of which the field takes the middle 160x160."""
    return KnownSet(CELEBA, "img_align_celeba", first, last, 202_599, center_crop=160)


KNOWN_SETS: dict[str, list[KnownSet]] = {
    "DIV2K": [KnownSet(DIV2K_TRAIN, "DIV2K_train_HR", 1, 800, 800)],
    "DIV2K_valid": [KnownSet(DIV2K_VALID, "DIV2K_valid_HR", 1, 100, 100, kind="png")],
    "Flickr2K": [KnownSet(FLICKR2K, "Flickr2K_HR", 1, 2650, 2650)],
    "CelebA": [_celeba(1, 162_770)],
    "CelebA_valid": [_celeba(162_771, 182_637)],
    "CelebA_test": [_celeba(182_638, 202_599)],
    "Set5": [_benchmark("Set5", 5)],
    "Set14": [_benchmark("Set14", 14)],
    "BSD100": [_benchmark("B100", 100)],
    "Urban100": [_benchmark("Urban100", 100)],
    "Manga109": [KnownSet(MANGA109, "", 1, 109, 109, border="replicate", kind="png")],
}
KNOWN_SETS["DF2K"] = KNOWN_SETS["DIV2K"] + KNOWN_SETS["Flickr2K"]


def fetch(known: KnownSet, downloads: Path) -> list[Path]:
    """Find the images of a data set as files, from its archive in ``downloads``, which is fetched unless it is there.

    Raises:
        UserError: the archive cannot be had, or is not what it should be.
    """
    archive = known.archive
    path = downloads / archive.file
    target = downloads / archive_stem(archive.file) / (known.folder or "images")
    if not target.exists():
        if path.exists():
            verify(path, archive.size, archive.checksum)
        elif archive.url is None:
            raise UserError(f"{path} does not exist: get {archive.file} from {archive.page} and put it there")
        else:
            download(archive.url, path, archive.size, archive.checksum)
        unpack(path, known.folder, target)
    images = find_images(target)
    if len(images) != known.in_folder:
        raise UserError(
            f"{target} has {len(images)} images, {known.in_folder} are expected; delete it, it will be made anew"
        )
    return images[known.first - 1 : known.last]
