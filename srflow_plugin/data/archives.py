"""Images out of zip and tar archives, one folder of them, as files."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tqdm import tqdm

from srflow_plugin.data.download import check_free
from srflow_plugin.errors import UserError
from srflow_plugin.files import complete_or_absent
from srflow_plugin.images.files import IMAGE_SUFFIXES, is_image_file

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
HIDDEN = (".", "__MACOSX", "@eaDir", "$RECYCLE.BIN")  # beginnings of the names of folders that systems make


class Member(NamedTuple):
    """An image in an archive: its path there, its bytes, and how to read it."""

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes]]


def is_archive(path: Path) -> bool:
    """Tell by its name that a file is an archive that :func:`unpack` reads."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def archive_stem(name: str) -> str:
    """Cut the suffix off an archive's name: ``a.tar.gz`` -> ``a``."""
    return name[: -max(len(suffix) for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix))]


def split_archive(path: Path) -> tuple[Path, str] | None:
    """``folder/Flickr2K.tar/Flickr2K_HR`` -> the archive, and the folder in it ("" for none); None: no archive."""
    for archive in (path, *path.parents):
        if is_archive(archive) and archive.is_file():
            return archive, path.relative_to(archive).as_posix().removeprefix(".")
    return None


def unpack(archive: Path, folder: str, target: Path) -> Path:
    """Write the images of one folder of an archive as files. A call that was killed is gone on with by the next.

    Args:
        archive: zip, or tar compressed or not.
        folder: in the archive, or the end of its path; "" where images lie in one folder only.
        target: what to make; it appears when complete.

    Returns:
        ``target``.

    Raises:
        UserError: no such folder, not one, or not a readable archive.
    """
    unfinished = target.with_name(f"{target.name}.unfinished")
    with _members(archive) as members:
        chosen = _of_folder(members, archive, folder)
        if target.exists():
            there = {path.name: path.stat().st_size for path in target.iterdir() if is_image_file(path)}
            if there != {member.path.name: member.size for member in chosen}:
                raise UserError(f"{target} holds other images than {archive}; delete it, it will be made anew")
            return target
        missing = [member for member in chosen if not _is_there(unfinished / member.path.name, member)]
        check_free(
            target,
            sum(member.size for member in missing),
            f"{archive.name} needs",
            "choose another disk with --downloads",
        )
        unfinished.mkdir(parents=True, exist_ok=True)
        for member in tqdm(missing, unit="image", desc=f"unpacking {archive.name}"):
            with complete_or_absent(unfinished / member.path.name) as path, member.open() as source:
                path.write_bytes(source.read())
    unfinished.rename(target)
    return target


def _of_folder(members: list[Member], archive: Path, folder: str) -> list[Member]:
    wanted = PurePosixPath(folder.strip("/")).parts
    of = [member for member in members if not wanted or member.path.parts[:-1][-len(wanted) :] == wanted]
    folders = sorted({str(member.path.parent) for member in of})
    if not folders:
        inside = f"{folder} of {archive}" if folder else str(archive)
        raise UserError(f"{inside} has no images ({', '.join(IMAGE_SUFFIXES)})")
    if len(folders) > 1:
        some = ", ".join(folders[:6])
        raise UserError(f"{archive} has images in {len(folders)} folders ({some}); name one: {archive / folders[0]}")
    return of


def _is_there(path: Path, member: Member) -> bool:
    return path.exists() and path.stat().st_size == member.size


@contextmanager
def _members(archive: Path) -> Iterator[list[Member]]:
    """List the images in an archive, without the files that other systems have hidden beside them."""
    try:
        with _opened(archive) as members:
            yield [
                member
                for member in members
                if is_image_file(Path(member.path.name))
                and not any(part.startswith(HIDDEN) for part in member.path.parts if part != ".")
            ]
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        # RuntimeError: zipfile's answer to an encrypted member
        raise UserError(f"{archive} cannot be unpacked ({error}); fetch or make it again") from None


@contextmanager
def _opened(archive: Path) -> Iterator[list[Member]]:
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(archive) as zipped:
            yield [
                Member(PurePosixPath(info.filename), info.file_size, lambda info=info: zipped.open(info))  # type: ignore[misc]
                for info in zipped.infolist()
                if not info.is_dir()
            ]
    else:
        with tarfile.open(archive) as tarred:
            yield [
                Member(PurePosixPath(info.name), info.size, lambda info=info: _tar_file(tarred, info))  # type: ignore[misc]
                for info in tarred
                if info.isfile()
            ]


def _tar_file(tarred: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tarred.extractfile(info)
    assert file is not None  # it is a regular file
    return file
