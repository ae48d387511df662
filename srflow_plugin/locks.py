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

FIRST_BYTE = 2**30  # beyond the text that says who holds it, which Windows would not let others read
LOCKS = 2**30  # numbers from 0 on
HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
PATIENCE = 5.0  # seconds: a run that is being stopped lets go
PATIENCE_WITH_OTHERS = 120.0  # of a machine that died: until a file server gives its locks up
PAUSE = 0.2


class LockFile:
    """File of numbered locks, each of which one process can have at a time. Made where it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; choose a folder that can be written") from None

    def __enter__(self) -> LockFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let all locks go."""
        self._file.close()

    def discard(self) -> None:
        """Delete the file, unless another process has one of its locks."""
        with suppress(OSError):  # Windows deletes no open file
            _lock(self._file.fileno(), FIRST_BYTE, LOCKS)
            self.path.unlink()

    def claim(self, number: int = 0) -> bool:
        """Take a lock; return whether this process has it now."""
        try:
            _lock(self._file.fileno(), FIRST_BYTE + number, 1)
        except OSError as error:
            if error.errno in HELD:
                return False
            logging.getLogger("basicsr").warning(
                f"{self.path} cannot be locked ({error.strerror}): nothing keeps two runs apart here"
            )
        return True

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
        return self.path.read_text(errors="replace") if self.path.exists() else "a process that ends"

    @property
    def is_there(self) -> bool:
        """Say whether the file is still the one of that name."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except OSError:
            return False


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold a lock in the block.

    Args:
        path: its file.
        what: is kept to one process, for the message.

    Raises:
        UserError: another process has it, and keeps it; with its number and machine.
    """
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: {error.strerror}; choose a working folder that can be written") from None
    with _claimed(path, what) as lock:
        lock.sign()
        try:
            yield
        finally:
            with suppress(OSError):  # Windows deletes no open file
                path.unlink(missing_ok=True)
                for parent in made:
                    parent.rmdir()


def _claimed(path: Path, what: str) -> LockFile:
    """Wait for a lock; its file is deleted by the one who had it, and then made anew."""
    start = time.monotonic()
    while True:
        lock = LockFile(path)
        if lock.claim() and lock.is_there:
            return lock
        holder = lock.holder
        lock.close()
        is_here = socket.gethostname() in holder
        if time.monotonic() - start > (PATIENCE if is_here else PATIENCE_WITH_OTHERS):
            raise UserError(f"{what} is in use: {holder} ({path}); wait for it, or choose another name")
        time.sleep(PAUSE)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int, byte: int, count: int) -> None:
        os.lseek(file, byte, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, count)

    def _unlock(file: int, byte: int) -> None:
        os.lseek(file, byte, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: int, byte: int, count: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, count, byte)

    def _unlock(file: int, byte: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, byte)
