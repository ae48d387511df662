"""Fixtures of the page's tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.helpers import small_network


class Served(NamedTuple):
    """Page that a process of its own serves.

    Attributes:
        url: without a slash at its end.
        temporary: folder in which the process makes its own.
    """

    url: str
    process: subprocess.Popen[str]
    temporary: Path


def save_checkpoint(path: Path) -> Path:
    torch.save({"params": small_network().state_dict()}, path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A file of a small network."""
    return save_checkpoint(tmp_path / "net.pth")


@contextmanager
def served(temporary: Path, *arguments: str, host: str = "127.0.0.1", **environment: str) -> Iterator[Served]:
    """Serve the page in the block."""
    if os.name == "nt":
        pytest.skip("Windows has no signals to end the page by")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "srflow_plugin", "demo", "--port", str(port), "--host", host, *arguments]
    with (temporary / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary), **environment},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # of a shell's background job: ignored
        )
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (temporary / "output.txt").read_text()
                time.sleep(0.2)
        yield Served(url, process, temporary)
    finally:
        process.kill()
        process.wait()


def leftovers(temporary: Path) -> list[Path]:
    """List what the page has left in its folder for temporary files."""
    return [path for path in temporary.iterdir() if path.name not in ("output.txt", "net.pth")]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where the page is served, by a process of its own, which leaves nothing when it is interrupted."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with served(temporary, "--checkpoint", "srflow_x4") as page:
        yield page.url
        assert len(list(temporary.glob("srflow_demo_*"))) == 1
        page.process.send_signal(signal.SIGINT)  # Ctrl+C
        assert page.process.wait() == 0
        assert leftovers(temporary) == []  # uploads and answers
