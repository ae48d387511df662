"""Archives that somebody has made to do harm."""

from __future__ import annotations

import copy
import gzip
import random
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from srflow_plugin.cli.main import srflow_command
from tests.helpers import ARCHIVED, make_archive, noise_png

NAMES = [
    "a.png",
    "../a.png",
    "/tmp/a.png",
    "..\\a.png",
    "C:a.png",
    "a\n.png",
    "\x1b[31m.png",
    "a" * 255 + ".png",
    ".png",
]


def zip_of(path: Path, size: int, claimed: int | None = None, entries: int = 1) -> None:
    """Make a zip of zeros; ``claimed``: the size that it says; ``entries``: that share the bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("0.png", bytes(size))
        info = zipped.infolist()[0]
        info.file_size = size if claimed is None else claimed
        for number in range(1, entries):
            other = copy.copy(info)
            other.filename = f"{number}.png"
            zipped.filelist.append(other)


def tar_of(path: Path, header: tarfile.TarInfo, blocks: Iterable[bytes], more: bytes = b"") -> None:
    """Make a tar, compressed: an entry, its contents, and other entries."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.writelines(blocks)
        file.write(more + bytes(1024))


def header_of(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    """Make an entry of a tar."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def with_pax(path: Path, pax: dict[str, str], blocks: Iterable[bytes], size: int) -> None:
    """Make a tar whose only entry has extended headers."""
    info = header_of("a.png", size)
    info.pax_headers = pax
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.PAX_FORMAT))
        file.writelines(blocks)
        file.write(bytes(1024))


def zeros(size: int) -> Iterator[bytes]:
    """Make so many zeros, in parts."""
    yield from (bytes(2**20) for _ in range(size // 2**20))
    yield bytes(size % 2**20 + -size % 512)


def crafted(path: Path, rng: random.Random) -> None:
    """Make an archive that claims, or holds, more than it should."""
    few, many = rng.choice([0, 1, 100, 10_000]), rng.choice([10**7, 10**8, 3 * 10**8])
    size, name = rng.choice([0, 512, 2**20, 2**31, 2**33 - 1]), rng.choice(NAMES)
    kind = rng.choice([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"?"])
    longs = [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X"]
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": str(rng.randrange(2)), "GNU.sparse.name": name}
    sizes = {
        "GNU.sparse.map": rng.choice(["0,1", "0,9999999999", "x"]),
        "GNU.sparse.size": str(10 ** rng.randrange(12)),
    }
    pax = {rng.choice(["path", "size", "linkpath", "mtime", "hdrcharset"]): rng.choice(["many", "-1", name, "9" * 30])}
    zips: list[Callable[[], object]] = [
        lambda: zip_of(path, many, few),
        lambda: zip_of(path, few, size),
        lambda: zip_of(path, few or 1, entries=rng.choice([2, 1000, 60_000])),
        lambda: zip_of(path, 10**7, entries=rng.choice([2, 1000])),
        lambda: make_archive(path, {name: noise_png(0)}),
    ]
    tars: list[Callable[[], object]] = [
        lambda: tar_of(path, header_of(name, size, kind), zeros(many)),
        lambda: tar_of(path, header_of(name, rng.choice([many, 2**33 - 1]), rng.choice(longs)), zeros(many)),
        lambda: tar_of(path, header_of(name, size, tarfile.GNUTYPE_SPARSE), zeros(many)),
        lambda: with_pax(path, sparse, (b"9" * 8 + b"\n" + b"0\n" * 2**19 for _ in range(100)), 100 * 2**20),
        lambda: with_pax(path, sizes, zeros(512), 512),
        lambda: with_pax(path, pax, zeros(512), 512),
        lambda: tar_of(path, header_of(name, 512), zeros(512), header_of("b.png", 0).tobuf() * 20_000),
    ]
    rng.choice(zips if path.suffix == ".zip" else tars)()


def hostile_archive(rng: random.Random) -> int:
    """Prepare data from an archive that is crafted, damaged, or a whole one with strange bytes behind."""
    path = Path("a.zip" if rng.random() < 0.4 else f"a.{rng.choice(['tar', 'tar.gz', 'tgz', 'tar.bz2', 'tar.xz'])}")
    if rng.random() < 0.7:
        crafted(path, rng)
    else:
        make_archive(path, ARCHIVED)
        data = bytearray(path.read_bytes())
        for _ in range(rng.choice([1, 5, 50])):
            data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        path.write_bytes(zlib.compress(data) if rng.random() < 0.1 else data[: rng.randrange(len(data)) or None])
    return srflow_command(["prepare", str(path / rng.choice(["", "HR", "top/HR"])), "-o", "out/x"])
