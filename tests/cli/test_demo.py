"""srflow demo: what it says before there is a page."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.helpers import refusal


@pytest.mark.slow
@pytest.mark.usefixtures("studio")
def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refusal(capsys, "demo", "--port", port, "--checkpoint", "net.pth")
    assert f"port {port} of 127.0.0.1 cannot be had" in line and "choose another with --port" in line


@pytest.mark.usefixtures("studio")
def test_networks_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.pth does not exist" in refusal(capsys, "demo", "--checkpoint", "net.pth", "nowhere.pth")
    Path("text.pth").write_text("text")
    assert "text.pth is not a readable checkpoint" in refusal(capsys, "demo", "--checkpoint", "text.pth")
    assert "device 'gpu' is not known" in refusal(capsys, "demo", "--checkpoint", "net.pth", "--device", "gpu")
