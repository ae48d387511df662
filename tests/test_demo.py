"""srflow demo: what it answers, and the page, clicked through in a browser where there is one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_network
from PIL import Image
from playwright.sync_api import sync_playwright

from srflow_plugin import bicubic_downscale, load_network
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.demo.session import EXAMPLES, TEMPERATURES, Session, example, transfer_example
from srflow_plugin.errors import UserError
from srflow_plugin.upscaling import find_network

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "net.pth"
    torch.save({"params": small_network().state_dict()}, path)
    return path


@pytest.fixture
def session(checkpoint: Path) -> Session:
    return Session(load_network(checkpoint), max_pixels=400)


def test_answers(session: Session) -> None:
    photograph = example("cat").crop((0, 0, 50, 43))
    answer = session.upscale(photograph, True, 0.3, 3, 0)
    gt = np.asarray(photograph)[:40, :48]
    pictures = [picture for picture, _ in answer.pictures]
    assert [title for _, title in answer.pictures] == ["bicubic", "sample 0", "sample 1", "sample 2", "original"]
    assert all(picture.shape == gt.shape for picture in pictures) and np.array_equal(pictures[-1], gt)
    assert answer.spread is not None and len(answer.figures) == 5
    lq = Image.fromarray(bicubic_downscale(np.ascontiguousarray(gt), 4))
    again = session.upscale(lq, False, 0.3, 3, 0)
    same = zip(pictures[:-1], (picture for picture, _ in again.pictures), strict=True)
    assert all(np.array_equal(*pair) for pair in same) and len(again.figures) == 2
    smooth = session.upscale(lq, False, 0, 3, 0)
    assert len(smooth.pictures) == 2 and smooth.spread is None


def test_temperatures_side_by_side(session: Session) -> None:
    photograph = example("cat").crop((0, 0, 48, 40))
    compared = session.compare_temperatures(photograph, True, 7)
    titles = [title for _, title in compared.pictures]
    assert titles == ["bicubic", *(f"temperature {temperature:g}" for temperature in TEMPERATURES), "original"]
    assert [name for name, _ in compared.figures] == titles[:-1]
    for number in (0, 2):
        alone = session.upscale(photograph, True, TEMPERATURES[number], 1, 7)
        assert np.array_equal(compared.pictures[1 + number][0], alone.pictures[1][0])


def test_transfer_brings_the_light_back() -> None:
    session = Session(find_network(4, None, "cpu"), max_pixels=65_536)
    edited, original = transfer_example()
    result = session.transfer(edited, original).astype(np.float64)
    before, after = (np.abs(image - np.asarray(original)).mean() for image in (np.asarray(edited), result))
    assert after < before / 4  # the light of the original is back


def test_the_encoder_runs_once_an_image(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_once = "srflow_plugin.archs.srflow_arch.resample_exploded"  # an untrained network's samples explode
    monkeypatch.setattr(drawn_once, lambda decode, latents, images, *others: images)
    calls = []
    features = session.network.features
    monkeypatch.setattr(session.network, "features", lambda lq: calls.append(1) or features(lq))
    images = [Image.fromarray(np.full((4, 5, 3), level, np.uint8)) for level in range(10)]
    for temperature in (0, 0.5, 0.9):
        session.upscale(images[0], False, temperature, 2, 1)
    assert len(calls) == 1
    for image in images:
        session.upscale(image, False, 0, 1, 0)
    assert len(calls) == 10 and len(session.features) == 8  # not without end


def test_what_cannot_be_answered(session: Session) -> None:
    with pytest.raises(UserError, match=r"21x20 is more than this page takes \(400 LR pixels\)"):
        session.upscale(Image.new("RGB", (21, 20)), False, 0, 1, 0)
    assert session.upscale(Image.new("RGB", (80, 80)), True, 0, 1, 0).pictures[1][0].shape == (80, 80, 3)
    with pytest.raises(UserError, match="smaller than 4 pixels"):
        session.upscale(Image.new("RGB", (3, 20)), True, 0, 1, 0)
    with pytest.raises(UserError, match="the same size"):
        session.transfer(Image.new("RGB", (8, 8)), Image.new("RGB", (8, 12)))


@pytest.fixture
def address(checkpoint: Path, tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "srflow_plugin", "demo", "--port", str(port), "--checkpoint", str(checkpoint)]
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


def test_a_port_that_is_taken(address: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = address.rpartition(":")[2]
    with pytest.raises(SystemExit) as stop:
        srflow_command(["demo", "--port", port, "--checkpoint", str(checkpoint)])
    assert stop.value.code == 2 and f"port {port} of 127.0.0.1 cannot be had" in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_clicked_through(address: str, tmp_path: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page()
        hosts = set()
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        page.goto(address)
        button = page.get_by_role("button", name="Super-resolve", exact=True)
        button.click()
        page.get_by_text("an image is missing").wait_for()
        assert page.locator("button.gallery-item").count() == len(EXAMPLES)
        page.locator("button.gallery-item").first.click()
        page.locator("img[src*='cat'], .image-frame img").first.wait_for()
        button.click()
        page.get_by_text("LR-PSNR of bicubic").wait_for(timeout=60_000)
        assert page.get_by_text("sample 2", exact=True).count() == 1

        page.get_by_label("number input for samples").fill("2")  # as a drag of the slider ends
        page.get_by_label("number input for samples").blur()
        page.get_by_text("sample 2", exact=True).wait_for(state="detached")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download all as PNG files").click()
        download.value.save_as(tmp_path / "all.zip")

        page.get_by_role("button", name="Compare temperatures").click()
        page.get_by_text("temperature 0.8", exact=True).first.wait_for(timeout=60_000)

        page.get_by_role("tab", name="Transfer content").click()
        page.get_by_role("row").filter(visible=True).last.click()  # the example
        page.get_by_role("button", name="Transfer", exact=True).click()
        page.locator("[aria-label='Fullscreen']").filter(visible=True).last.wait_for(timeout=60_000)
        browser.close()
    assert hosts == {address.removeprefix("http://")}  # the page asks nobody else for anything
    with zipfile.ZipFile(tmp_path / "all.zip") as zipped:
        assert sorted(zipped.namelist()) == ["bicubic.png", "original.png", "sample_0.png", "sample_1.png"]
