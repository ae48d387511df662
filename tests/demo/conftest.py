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
from pathlib import Path

import pytest
import torch

from tests.helpers import small_network


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A file of a small network."""
    path = tmp_path / "net.pth"
    torch.save({"params": small_network().state_dict()}, path)
    return path


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where the page is served, by a process of its own, which leaves nothing when it is interrupted."""
    if os.name == "nt":
        pytest.skip("Windows has no signals to end the page by")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "srflow_plugin", "demo", "--port", str(port), "--checkpoint", "srflow_x4"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # of a shell's background job it is ignored
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            break
        except OSError:
            assert process.poll() is None, process.stdout and process.stdout.read()
            time.sleep(0.2)
    yield url
    assert len(list(tmp_path.glob("srflow_demo_*"))) == 1
    process.send_signal(signal.SIGINT)  # Ctrl+C
    assert process.wait() == 0
    assert not list(tmp_path.glob("srflow_demo_*"))  # uploads and answers
