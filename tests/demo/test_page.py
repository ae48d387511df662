"""The page, asked by a program, and clicked through in a browser where there is one."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from gradio_client import Client, handle_file  # type: ignore[import-untyped]
from gradio_client.exceptions import AppError  # type: ignore[import-untyped]
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from srflow_plugin.demo.session import EXAMPLES, example
from tests.helpers import noise_image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.mark.slow
def test_the_page_answers_whoever_asks(address: str, tmp_path: Path) -> None:
    example("cat").crop((0, 0, 50, 43)).save(tmp_path / "photo.png")
    photo = handle_file(str(tmp_path / "photo.png"))
    client = Client(address, verbose=False, download_files=str(tmp_path))
    answer = client.predict("srflow_x4", photo, True, 0.3, 2, 0, api_name="/upscale")
    _, pictures, _, _, spread, figures, _, archive = answer
    assert [picture["caption"] for picture in pictures] == ["bicubic", "sample 0", "sample 1", "original"]
    assert {Image.open(picture["image"]).size for picture in pictures} == {(48, 40)}
    assert Image.open(spread).size[0] == 48 and "LR-PSNR of bicubic" in figures
    with zipfile.ZipFile(archive) as zipped:
        assert sorted(zipped.namelist()) == ["bicubic.png", "original.png", "sample_0.png", "sample_1.png"]
    _, pictures, *_ = client.predict("srflow_x4", photo, True, 0, api_name="/compare")
    assert "temperature 0.8" in [picture["caption"] for picture in pictures]
    assert Image.open(client.predict("srflow_x4", photo, photo, api_name="/transfer")).size == (48, 40)
    with pytest.raises(AppError, match="an image is missing"):
        client.predict("srflow_x4", None, True, 0.3, 2, 0, api_name="/upscale")


NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    """The page in a browser; it asks nobody else for anything, and no script of it fails."""
    hosts, faults = set(), []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1400, "height": 1400})
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        yield page
        browser.close()
    assert hosts == {address.removeprefix("http://")} and faults == []


def super_resolve(page: Page) -> None:
    page.get_by_role("button", name="Super-resolve", exact=True).click()


@pytest.mark.slow
@NEEDS_CHROMIUM
def test_the_page_clicked_through(page: Page, tmp_path: Path) -> None:
    super_resolve(page)
    page.get_by_text("an image is missing").wait_for()
    assert page.locator("button.gallery-item").count() == len(EXAMPLES)
    page.get_by_role("button", name="example: cat").click()
    page.locator("img[src*='cat'], .image-frame img").first.wait_for()
    comparing = page.get_by_label("make my image smaller first")
    assert not comparing.is_checked()  # who uploads an image wants a larger one
    comparing.check()
    super_resolve(page)
    page.get_by_text("LR-PSNR of bicubic").wait_for(timeout=60_000)
    page.get_by_text("64x64 became 256x256").wait_for()
    assert page.get_by_text("sample 2", exact=True).count() == 1
    assert page.get_by_text("its PSNR may be lower than that of bicubic").is_visible()

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
    page.get_by_alt_text("result").wait_for(timeout=60_000)
    with zipfile.ZipFile(tmp_path / "all.zip") as zipped:
        assert sorted(zipped.namelist()) == ["bicubic.png", "original.png", "sample_0.png", "sample_1.png"]


def saved(page: Page, button: str, path: Path) -> Path:
    """Click on a button that downloads, and save what comes."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    download.value.save_as(path)
    return path


def paint(page: Page) -> None:
    """Draw a stroke in the middle of the editor, until there is one: it takes a while to be ready."""
    canvas = page.locator("canvas").first
    for _ in range(20):
        page.wait_for_timeout(1000)
        box = canvas.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 30, y + 20, steps=8)
        page.mouse.up()
        page.mouse.move(0, 0)
        page.wait_for_timeout(1000)
        red, green, blue, *_ = np.moveaxis(np.asarray(Image.open(io.BytesIO(canvas.screenshot()))).astype(int), 2, 0)
        if (np.minimum(red, blue) > green + 60).sum() > 500:  # the brush's colour
            return
    raise AssertionError("the editor takes no stroke")


@pytest.mark.slow
@NEEDS_CHROMIUM
def test_a_part_is_drawn_again_and_taken_back(page: Page, tmp_path: Path) -> None:
    pixels = np.dstack([np.asarray(example("cat").crop((0, 0, 50, 43))), noise_image(43, 50)[..., 0]])
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    page.locator("input[type=file]").first.set_input_files(str(tmp_path / "photo.png"))
    page.locator(".image-frame img").first.wait_for()
    super_resolve(page)
    page.get_by_text("50x43 became 200x172.").wait_for(timeout=60_000)  # enlarged, not made smaller
    with zipfile.ZipFile(saved(page, "Download all as PNG files", tmp_path / "all.zip")) as zipped:
        sample = np.asarray(Image.open(zipped.open("sample_0.png")))
    assert sample.shape == (172, 200, 4) and np.ptp(sample[..., 3]) > 100

    page.get_by_role("button", name="Draw a part of the picture again").click()
    page.get_by_text("Changes that can be taken back: 0.").wait_for()
    paint(page)
    pictures, changes = [sample], []
    for number, button in enumerate(("Draw again", "New seed", "Make calmer or livelier"), start=1):
        page.get_by_role("button", name=button, exact=True).click()
        page.get_by_text(f"Changes that can be taken back: {number}.").wait_for(timeout=60_000)
        page.wait_for_timeout(1000)
        drawn = np.asarray(Image.open(saved(page, "Download the picture as PNG", tmp_path / "drawn.png")))
        changed = (drawn != pictures[-1]).any(2)
        assert 0 < changed.mean() < 0.2 and np.array_equal(drawn[..., 3], sample[..., 3])
        pictures.append(drawn)
        changes.append(changed)
    assert all((changes[0] & change).sum() > change.sum() / 2 for change in changes)  # the painting stays where it is
    for number in (2, 1, 0):
        page.get_by_role("button", name="Undo", exact=True).last.click()
        page.get_by_text(f"Changes that can be taken back: {number}.").wait_for(timeout=60_000)
    drawn = np.asarray(Image.open(saved(page, "Download the picture as PNG", tmp_path / "drawn.png")))
    assert np.array_equal(drawn, sample)


ATTACK = """async ([address, data]) => {
    const body = new FormData();
    body.append("files", new Blob([Uint8Array.from(data)]), "forged.png");
    const frame = document.body.appendChild(document.createElement("iframe"));
    frame.src = address;
    await new Promise((done) => { frame.onload = done; });
    const read = await fetch(address + "/config").then((answer) => answer.text(), () => "refused");
    await fetch(address + "/gradio_api/upload", {method: "POST", mode: "no-cors", body}).catch(() => null);
    return read;
}"""


@pytest.mark.slow
@NEEDS_CHROMIUM
def test_two_browsers_and_a_page_of_others(address: str, tmp_path: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        pages = {level: browser.new_context().new_page() for level in (30, 220)}
        for level, page in pages.items():
            Image.new("RGB", (level, 12), (level, level, level)).save(tmp_path / f"{level}.png")
            page.goto(address)
            page.locator("input[type=file]").first.set_input_files(str(tmp_path / f"{level}.png"))
            page.locator(".image-frame img").first.wait_for()
        for page in pages.values():
            super_resolve(page)
        for level, page in pages.items():
            page.get_by_text(f"{level}x12 became {4 * level}x48.").wait_for(timeout=60_000)
        for level, page in [*pages.items(), *pages.items()]:
            with zipfile.ZipFile(saved(page, "Download all as PNG files", tmp_path / "all.zip")) as zipped:
                assert abs(np.asarray(Image.open(zipped.open("bicubic.png"))).mean() - level) < 0.5
        with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as foreign:
            Thread(target=foreign.serve_forever, daemon=True).start()
            page = browser.new_context().new_page()
            framed: list[str] = []
            page.on("framenavigated", lambda frame: framed.append(frame.title() if frame.parent_frame else ""))
            page.goto(f"http://127.0.0.1:{foreign.server_port}/nothing")
            data = list((tmp_path / "30.png").read_bytes())
            assert page.evaluate(ATTACK, [address, data]).startswith(("refused", '{"detail":"another page may not'))
            foreign.shutdown()
        assert not any("SRFlow" in title for title in framed)
        browser.close()
    assert [path.name for path in tmp_path.rglob("*.png") if path.name == "forged.png"] == []


@pytest.mark.slow
@NEEDS_CHROMIUM
def test_whatever_can_be_clicked_has_a_name(page: Page) -> None:
    for tab in ("Super-resolve", "Draw again here", "Transfer content"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(500)
        lines = page.locator("body").aria_snapshot().splitlines()
        assert len(lines) > 20
        kinds = ("button", "textbox", "spinbutton", "slider", "checkbox", "combobox", "listbox", "tab")
        assert [line for line in lines if line.strip(" -:") in kinds] == []
