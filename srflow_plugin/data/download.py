"""Large files from the network: gone on with where the connection broke, and checked."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from srflow_plugin._version import __version__
from srflow_plugin.errors import UserError, printable
from srflow_plugin.files import no_link, sync
from srflow_plugin.progress import tell

ATTEMPTS = 5  # without a byte in between
PAUSE = 2.0  # seconds, doubled with each attempt
TIMEOUT = 60.0  # seconds without a byte
CHUNK = 1 << 20
RANGE_NOT_SATISFIABLE = 416
MOST_DIGITS = 19  # of a number of bytes
MOST_BYTES = 2**40  # of a file whose size nobody knows

# urllib's own also opens ftp: and file: addresses, where a redirect leads to them.
_WEB = urllib.request.OpenerDirector()
for _handler in (
    *(urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler),
    *(urllib.request.HTTPRedirectHandler, urllib.request.HTTPErrorProcessor, urllib.request.HTTPDefaultErrorHandler),
    urllib.request.UnknownHandler,
):
    _WEB.add_handler(_handler())


def download(url: str, path: Path, size: int | None = None, checksum: str | None = None) -> None:
    """Fetch a file; it appears when complete and checked. A call that was interrupted is gone on with by the next.

    Args:
        url: http or https.
        path: what to write; meanwhile ``*.part`` beside it.
        size: expected, bytes; nothing beyond it is fetched.
        checksum: see :func:`verify`.

    Raises:
        UserError: it cannot be had, or is not what was expected.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    attempt, first = 0, _size(part)
    while True:
        before = _size(part)
        try:
            _fetch_rest(url, part, size)
            break
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            attempt = 1 if _size(part) > before else attempt + 1
            is_offline = isinstance(getattr(error, "reason", None), socket.gaierror) and _size(part) == first
            if _is_final(error) or is_offline or attempt == ATTEMPTS:
                raise UserError(
                    f"{url} cannot be fetched ({error}); try again later, it goes on where this stopped, or fetch it "
                    f"otherwise and put it at {path}"
                ) from None
            pause = PAUSE * 2 ** (attempt - 1)
            tell(f"{path.name}: {error}; trying again in {pause:g} s")
            time.sleep(pause)
    try:
        verify(part, size, checksum)
    except UserError:
        part.unlink()
        raise
    sync(part)  # whichever call has written it
    part.replace(path)
    sync(path.parent)


def verify(path: Path, size: int | None, checksum: str | None) -> None:
    """Compare a file with what it should be.

    Args:
        path: the file.
        size: bytes.
        checksum: "sha256:..." or "md5:...", in hexadecimal digits.

    Raises:
        UserError: it is another file, or a damaged one.
    """
    if size is not None and _size(path) != size:
        raise UserError(f"{path} has {_size(path)} bytes, {size} are expected; delete it and fetch it again")
    if checksum is not None:
        algorithm, _, expected = checksum.partition(":")
        with (
            path.open("rb") as file,
            tqdm.wrapattr(file, "read", total=_size(path), desc=f"checking {printable(path.name)}") as f,
        ):
            digest = hashlib.new(algorithm, usedforsecurity=False)
            while chunk := f.read(CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != expected:
            raise UserError(
                f"{path} has another {algorithm} than expected: damaged, or changed by its publishers; fetch it again"
            )


def check_free(folder: Path, needed: float, what: str, remedy: str) -> None:
    """Say before any work that something will not fit on the disk.

    Raises:
        UserError: with what is needed and what is free.
    """
    while not folder.exists():
        folder = folder.absolute().parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder} has {free / 1e9:.1f} GB free, {what} about {needed / 1e9:.1f} GB; make room, or {remedy}"
        )


def _is_final(error: Exception) -> bool:
    """Say whether another attempt would end in the same way."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(error, urllib.error.URLError) and isinstance(error.reason, str)  # of unknown kinds of addresses


def _fetch_rest(url: str, part: Path, size: int | None) -> None:
    """Append to ``part`` what is missing of it."""
    done = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": f"srflow_plugin/{__version__}"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        answer = _WEB.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == RANGE_NOT_SATISFIABLE and done:  # nothing is missing, or it is another file: verify() tells
            return
        raise
    with answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:  # the server sends the whole
            done = 0
        announced = answer.headers.get("Content-Length", "")
        total = done + int(announced) if announced.isdecimal() and len(announced) < MOST_DIGITS else size
        most = size if size is not None else MOST_BYTES
        check_free(part.parent, (total or done) - done, f"{part.stem} needs", "choose another disk with --downloads")
        bar = tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=printable(part.stem))
        with bar, open(part, "ab" if done else "wb", opener=no_link) as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > most:
                    break  # it is another file: verify() tells
        if total is not None and _size(part) < min(total, most):
            raise ConnectionError(f"the connection broke after {_size(part)} of {total} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
