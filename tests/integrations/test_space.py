"""The Space: its page, served by its own script, as it is reached behind the Hub's servers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.demo.conftest import save_checkpoint
from tests.helpers import ROOT, UNIX

SPACE = ROOT / "integrations" / "space"
NAME = "user-name.hf.space"


def test_the_header_is_a_spaces() -> None:
    _, header, text = (SPACE / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    told = yaml.safe_load(header)
    assert told["sdk"] == "gradio" and (SPACE / told["app_file"]).is_file() and "# SRFlow" in text
    assert len(told["short_description"]) <= 60  # which the Hub refuses otherwise
    assert (SPACE / "requirements.txt").read_text().splitlines() == ["srflow_plugin[demo,hub]"]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Address of the Space's page, of a small network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    settings = {"SRFLOW_NETWORKS": str(save_checkpoint(tmp_path / "net.pth")), "GRADIO_SERVER_PORT": port}
    environment = {**os.environ, **settings, "SPACE_HOST": NAME, "SPACE_ID": "user/name", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(SPACE / "app.py")], env=environment, cwd=tmp_path)
    try:
        for _ in range(600):
            try:
                httpx.get(f"http://127.0.0.1:{port}", timeout=5)
                break
            except httpx.HTTPError:
                assert process.poll() is None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@UNIX
@pytest.mark.slow
def test_the_page_of_a_space(url: str) -> None:
    framed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    page = httpx.get(url, headers={"Host": NAME, **framed})
    assert page.status_code == 200 and "SRFlow" in page.text
    assert page.headers["Content-Security-Policy"] == "frame-ancestors https://huggingface.co"
    assert "X-Frame-Options" not in page.headers
    assert httpx.get(url, headers={"Host": "evil.com"}).status_code == 403
