"""Images out of zip and tar archives, one folder of them, as files.

Archives may come from strangers: what they claim and what they hold is bounded before it is in memory or on the disk.
"""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, NamedTuple, TypeVar

from tqdm import tqdm

from srflow_plugin.data.download import check_free
from srflow_plugin.errors import UserError, printable
from srflow_plugin.files import complete_or_absent, rename_folder, sync_all
from srflow_plugin.images.files import IMAGE_SUFFIXES, is_image_file

Entry = TypeVar("Entry")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
Mode = Literal["r:", "r:gz", "r:bz2", "r:xz"]
MODES: dict[Mode, bytes] = {"r:gz": b"\x1f\x8b", "r:bz2": b"BZh", "r:xz": b"\xfd7zXZ\0"}  # beginnings of tars
MOST_BYTES = 2**30  # of an image
MOST_ENTRIES = 1_000_000
MOST_EXPANSION = 200  # what images may take, compared with their archive, once that is more than one image's most
# Entries that say more about the next one; tarfile reads them whole.
EXTENSIONS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
MOST_EXTENSION = 2**20  # bytes
CHUNK = 2**20
HOLES = "it has files with holes: make it without --sparse"
HIDDEN = (".", "__MACOSX", "@eaDir", "$RECYCLE.BIN")  # beginnings of the names of folders that systems make
# What the readers of archives raise. RuntimeError: zipfile's answer to an encrypted member; OSError: bzip2's to damage.
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError),
    *(RuntimeError, OSError, ValueError, OverflowError, IndexError),
)


class Member(NamedTuple):
    """An image in an archive: its path there, its bytes, and how to read it."""

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes]]


class CarefulTarInfo(tarfile.TarInfo):
    """Entry of a tar archive, which does not let a small file fill the memory before it is seen."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> CarefulTarInfo:
        """Read the first 512 bytes of an entry.

        Raises:
            tarfile.ReadError: what tarfile would read whole is too long, or the entry is stored with holes.
        """
        info = super().frombuf(buf, encoding, errors)
        if info.type in EXTENSIONS and info.size > MOST_EXTENSION:
            raise tarfile.ReadError(f"a name or header of {info.size} bytes")
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(HOLES)
        return info

    def _proc_gnusparse_10(self, *arguments: Any) -> None:
        """Refuse the newer way of holes, whose list in front of the contents has no bound."""
        raise tarfile.ReadError(HOLES)


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
        _check_sizes(chosen, archive)
        if target.exists():
            there = {path.name: path.stat().st_size for path in target.iterdir() if is_image_file(path)}
            if there != {member.path.name: member.size for member in chosen}:
                raise UserError(f"{target} holds other images than {archive}; delete it, it will be made anew")
            return target
        missing = [member for member in chosen if not _is_same(unfinished / member.path.name, member)]
        check_free(
            target,
            sum(member.size for member in missing),
            f"{archive.name} needs",
            "choose another disk with --downloads",
        )
        unfinished.mkdir(parents=True, exist_ok=True)
        for member in tqdm(missing, unit="image", desc=f"unpacking {printable(archive.name)}"):
            with complete_or_absent(unfinished / member.path.name, is_one_of_many=True) as path:
                _copy(member, path)
    sync_all()
    rename_folder(unfinished, target)
    return target


def _check_sizes(members: list[Member], archive: Path) -> None:
    """Refuse what no archive of images claims."""
    for member in members:
        name = member.path.name
        if Path(name).name != name or not name.isprintable():  # drives of other systems; what terminals obey
            raise UserError(f"{archive} cannot be unpacked: {name!r} is no name for a file here")
        if member.size > MOST_BYTES:
            size = f"{member.size / 2**30:.1f} GiB"
            raise UserError(
                f"{archive} cannot be unpacked: {str(member.path)!r} has {size}, the most for an image is 1 GiB"
            )
    total, packed = sum(member.size for member in members), archive.stat().st_size
    if total > max(MOST_BYTES, MOST_EXPANSION * packed):
        raise UserError(
            f"{archive} cannot be unpacked: its {packed} bytes would become {total / 2**30:.1f} GiB; unpack it "
            "yourself if you trust it, and give the folder"
        )


def _copy(member: Member, path: Path) -> None:
    """Write a member's bytes, and none beyond those that it claims."""
    left = member.size
    with member.open() as source, path.open("wb") as file:
        while chunk := source.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                break
            file.write(chunk)
    if left:
        raise zipfile.BadZipFile(f"{str(member.path)!r} is {'longer' if left < 0 else 'shorter'} than it claims")


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


def _is_same(path: Path, member: Member) -> bool:
    """Say whether a file holds a member's bytes; after a power cut a file may have its size, and not its contents."""
    if not path.exists() or path.stat().st_size != member.size:
        return False
    with member.open() as source, path.open("rb") as file:
        while chunk := source.read(CHUNK):
            if file.read(len(chunk)) != chunk:
                return False
    return True


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
    except UserError:
        raise
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk
            raise
        raise UserError(f"{archive} cannot be unpacked ({error}); fetch or make it again") from None


@contextmanager
def _opened(archive: Path) -> Iterator[list[Member]]:
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(archive) as zipped:
            yield [
                Member(PurePosixPath(info.filename), info.file_size, lambda info=info: zipped.open(info))  # type: ignore[misc]
                for info in _bounded(zipped.infolist())
                if not info.is_dir()
            ]
    else:
        with tarfile.open(archive, _mode(archive), tarinfo=CarefulTarInfo) as tarred:
            yield [
                Member(PurePosixPath(info.name), info.size, lambda info=info: _tar_file(tarred, info))  # type: ignore[misc]
                for info in _bounded(tarred)
                if info.isfile()
            ]


def _mode(archive: Path) -> Mode:
    """Tell from its start how a tar is compressed; tarfile itself tries each way, and names every failure."""
    with archive.open("rb") as file:
        start = file.read(6)
    return next((mode for mode, first in MODES.items() if start.startswith(first)), "r:")


def _bounded(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Go through an archive's entries, unless they are too many."""
    for number, entry in enumerate(entries):
        if number == MOST_ENTRIES:
            raise tarfile.ReadError(f"more than {MOST_ENTRIES} entries")
        yield entry


def _tar_file(tarred: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    if info.issparse():
        raise tarfile.ReadError(HOLES)
    file = tarred.extractfile(info)
    assert file is not None  # it is a regular file
    return file
