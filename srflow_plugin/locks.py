"""Locks between processes, of one machine or of several: a file says who holds it, and the lock ends with its process.

They are the system's byte locks: a process that is killed leaves none behind, and its own workers inherit none. File
servers pass them on (NFS does); where one does not, work goes on without, and that is said.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from srflow_plugin.errors import UserError
from srflow_plugin.files import folder_made, no_link

FIRST_BYTE = 2**30  # beyond the text that says who holds it, which Windows would not let others read
HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
PATIENCE = 5.0  # seconds: a run that is being stopped lets go
PATIENCE_WITH_OTHERS = 120.0  # of a machine that died: until a file server gives its locks up
PAUSE = 0.2
SHORT_PAUSE = 0.01
PLACES = 64  # of processes that use something together and are seen by each other


class LockFile:
    """File of numbered locks, each of which one process can have at a time.

    Made where it is not there, removed by the last who uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_told = False  # that nothing can be locked here
        self._open()

    def __enter__(self) -> LockFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let all locks go, and remove the file unless other processes have locks of it."""
        with suppress(OSError, ValueError):  # of other processes' locks; of a file that is closed
            _lock_all(self._file.fileno())
            if self.is_there:
                self.path.unlink()
        self._file.close()

    def claim(self, number: int = 0) -> bool:
        """Take a lock; return whether this process has it now."""
        while self._take(number):
            if self.is_there:
                return True
            self._file.close()  # others have ended, and removed it
            self._open()
        return False

    @contextmanager
    def holding(self, number: int = 0) -> Iterator[None]:
        """Hold a lock in the block, as soon as others let it go."""
        while not self.claim(number):
            time.sleep(SHORT_PAUSE)
        try:
            yield
        finally:
            self.release(number)

    def release(self, number: int = 0) -> None:
        """Let a lock go."""
        try:
            _unlock(self._file.fileno(), FIRST_BYTE + number)
        except OSError:
            return  # as where it could not be taken

    def sign(self) -> None:
        """Write who this process is, for those who find the lock taken."""
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.ctime()}".encode())
        self._file.flush()

    @property
    def holder(self) -> str:
        """Process that signed last."""
        if not self.is_there:
            return "a process that ends"
        self._file.seek(0)  # not by its name: to close it then would let this process's locks go
        return self._file.read().decode(errors="replace")

    @property
    def is_there(self) -> bool:
        """Say whether the file is still the one of that name."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except OSError:
            return False

    def _open(self) -> None:
        try:
            self._file = open(self.path, "a+b", opener=no_link)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}; choose a folder that can be written") from None

    def _take(self, number: int) -> bool:
        try:
            _lock(self._file.fileno(), FIRST_BYTE + number)
        except OSError as error:
            if error.errno in HELD:
                return False
            if not self._is_told:
                logging.getLogger("basicsr").warning(
                    f"{self.path} cannot be locked ({error.strerror}): nothing keeps two runs apart here"
                )
            self._is_told = True
        return True


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold a lock in the block.

    Args:
        path: its file; made for the block, with its folder.
        what: is kept to one process, for the message.

    Raises:
        UserError: another process has it, and keeps it; with its number and machine.
    """
    with folder_made(path.parent), LockFile(path) as lock:
        start = time.monotonic()
        while not lock.claim():
            holder = lock.holder
            is_here = socket.gethostname() in holder
            if time.monotonic() - start > (PATIENCE if is_here else PATIENCE_WITH_OTHERS):
                raise UserError(f"{what} is in use: {holder} ({path}); wait for it, or choose another name")
            time.sleep(PAUSE)
        lock.sign()
        yield


@contextmanager
def beside_others(path: Path) -> Iterator[str | None]:
    """Use something in the block that several processes may use together; hand out who else does, or None.

    Processes come one at a time: the caller holds another lock while it enters.

    Args:
        path: of the lock file, in a folder that is there.
    """
    with LockFile(path) as lock:
        free = [place for place in range(PLACES) if lock.claim(place)]
        others = lock.holder if len(free) < PLACES else None
        for place in free[1:]:
            lock.release(place)
        if others is None:
            lock.sign()
        yield others


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int, byte: int) -> None:
        os.lseek(file, byte, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _unlock(file: int, byte: int) -> None:
        os.lseek(file, byte, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

    def _lock_all(file: int) -> None:
        """Leave that to Windows, which removes no file that is open."""

else:
    import fcntl

    def _lock(file: int, byte: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)

    def _unlock(file: int, byte: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, byte)

    def _lock_all(file: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, FIRST_BYTE)
