"""The page, asked by a program, and clicked through in a browser where there is one."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from gradio_client import Client, handle_file  # type: ignore[import-untyped]
from gradio_client.exceptions import AppError  # type: ignore[import-untyped]
from PIL import Image
from playwright.sync_api import sync_playwright

from srflow_plugin.demo.session import EXAMPLES, example

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.mark.slow
def test_the_page_answers_whoever_asks(address: str, tmp_path: Path) -> None:
    example("cat").crop((0, 0, 50, 43)).save(tmp_path / "photo.png")
    photo = handle_file(str(tmp_path / "photo.png"))
    client = Client(address, verbose=False, download_files=str(tmp_path))
    pictures, _, spread, figures, archive = client.predict("net", photo, True, 0.3, 2, 0, api_name="/upscale")
    assert [picture["caption"] for picture in pictures] == ["bicubic", "sample 0", "sample 1", "original"]
    assert {Image.open(picture["image"]).size for picture in pictures} == {(48, 40)}
    assert Image.open(spread).size[0] == 48 and "LR-PSNR of bicubic" in figures
    with zipfile.ZipFile(archive) as zipped:
        assert sorted(zipped.namelist()) == ["bicubic.png", "original.png", "sample_0.png", "sample_1.png"]
    pictures, *_ = client.predict("net", photo, True, 0, api_name="/compare")
    assert "temperature 0.8" in [picture["caption"] for picture in pictures]
    assert Image.open(client.predict("net", photo, photo, api_name="/transfer")).size == (48, 40)
    with pytest.raises(AppError, match="an image is missing"):
        client.predict("net", None, True, 0.3, 2, 0, api_name="/upscale")


@pytest.mark.slow
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
