"""The page's server, a process of its own, and visitors that misbehave."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file  # type: ignore[import-untyped]
from PIL import Image

from tests.demo.conftest import Served, leftovers, save_checkpoint, served
from tests.helpers import UNIX

pytestmark = [pytest.mark.slow, UNIX]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page of a small network, whose environment would open it to others."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "gs").write_text(f"#!/bin/sh\ntouch {folder}/ran\n")
    (folder / "gs").chmod(0o755)
    opening = {"SHARE": "True", "MCP_SERVER": "True", "ALLOWED_PATHS": "/", "VIBE_MODE": "1", "ROOT_PATH": "/evil"}
    opening |= {"SERVER_NAME": "0.0.0.0", "EXAMPLES_CACHE": "/", "SSR_MODE": "True", "NUM_WORKERS": "2"}
    opening |= {"RUN_HISTORY": "True", "WATCH_DIRS": "/tmp", "LOCAL_DEV_MODE": "1", "DEFAULT_CONCURRENCY_LIMIT": "9"}
    environment = {f"GRADIO_{name}": value for name, value in opening.items()}
    environment["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    temporary = folder / "temporary"
    temporary.mkdir()
    net = save_checkpoint(folder / "net.pth")
    limits = ("--max-pixels", "900", "--max-file-size", "200kb")
    with served(temporary, "--checkpoint", str(net), *limits, **environment) as page:
        yield page
        assert page.process.poll() is None
        output = (temporary / "output.txt").read_text()
        assert "Traceback" not in output and len(output.splitlines()) == 1, output
        assert not (folder / "ran").exists()


def photo(path: Path, level: int, size: int = 12) -> Any:
    Image.new("RGB", (size, size), (level, level, level)).save(path)
    return handle_file(str(path))


def client_of(page: Served, folder: Path, **settings: Any) -> Client:
    return Client(page.url, verbose=False, download_files=str(folder), **settings)


def level_of(path: str) -> float:
    return float(np.asarray(Image.open(path)).mean())


def test_visitors_see_their_own_pictures(page: Served, tmp_path: Path) -> None:
    wrong: list[str] = []

    def visit(level: int) -> None:
        image, client = photo(tmp_path / f"{level}.png", level), client_of(page, tmp_path)
        for number in range(4):
            _, pictures, *_ = client.predict("net", image, False, 0.3, 1, number, api_name="/upscale")
            found = level_of(pictures[0]["image"])
            wrong.extend([f"{level} became {found}"] if abs(found - level) > 0.5 else [])

    visitors = [threading.Thread(target=visit, args=(level,)) for level in (30, 120, 220)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert wrong == []


def test_nobody_goes_round_the_queue(page: Served) -> None:
    data = ["net", None, False, 0.3, 1, 0, None]
    for route in ("run/upscale", "api/upscale", "run/predict", "call/upscale", "call/v2/upscale"):
        body = {"data": data, "fn_index": 1, "session_hash": "abc"}
        answer = httpx.post(f"{page.url}/gradio_api/{route}", json=body)
        assert answer.status_code == 404, (route, answer.text)


def test_who_floods_keeps_nobody_waiting(page: Served, tmp_path: Path) -> None:
    image, honest = photo(tmp_path / "a.png", 30, 30), client_of(page, tmp_path)

    def seconds() -> float:
        start = time.monotonic()
        honest.predict("net", image, False, 0.8, 1, 0, api_name="/upscale")
        return time.monotonic() - start

    seconds()
    alone = seconds()
    flooder = client_of(page, tmp_path)
    jobs = [flooder.submit("net", image, False, 0.8, 10, seed, api_name="/upscale") for seed in range(40)]
    body = {"data": ["net", None, False, 0.8, 10, 0, None], "fn_index": 1}
    for number in range(60):
        httpx.post(f"{page.url}/gradio_api/queue/join", json={**body, "session_hash": f"silent{number}"})
    assert seconds() < 10 * alone + 5
    refused = [str(job.exception()) for job in jobs if job.exception()]
    assert len(refused) >= 30 and all("429" in line or "unfinished" in line for line in refused), refused


def output_of(page: Served, session: str, *data: Any) -> dict[str, Any]:
    """Call ``upscale`` as a program does that checks nothing."""
    body = json.dumps({"data": [*data, None], "fn_index": 1, "session_hash": session})
    headers = {"Content-Type": "application/json"}
    assert httpx.post(f"{page.url}/gradio_api/queue/join", content=body, headers=headers).status_code == 200
    with httpx.stream("GET", f"{page.url}/gradio_api/queue/data?session_hash={session}", timeout=60) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data:") or "{}")
            if message.get("msg") == "process_completed":
                output: dict[str, Any] = message["output"]
                return output
    raise AssertionError("no answer")


def ask(page: Served, *data: Any) -> str:
    return str(output_of(page, "raw", *data).get("error"))


def uploaded(page: Served, path: Path) -> dict[str, Any]:
    answer = httpx.post(f"{page.url}/gradio_api/upload", files={"files": (path.name, path.read_bytes())})
    return {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}


def test_uploads_after_an_example_are_read_as_they_are(page: Served, tmp_path: Path) -> None:
    Image.fromarray(np.arange(81, dtype=np.uint16).reshape(9, 9) * 800).save(tmp_path / "deep.png")
    click = {"data": [0], "fn_index": 0, "session_hash": "deep"}
    assert httpx.post(f"{page.url}/gradio_api/run/predict", json=click).status_code == 200
    output = output_of(page, "deep", "net", uploaded(page, tmp_path / "deep.png"), False, 0, 1, 0)
    picture = httpx.get(f"{page.url}/gradio_api/file={output['data'][1][0]['image']['path']}").content
    assert Image.open(io.BytesIO(picture)).mode == "I;16"


def test_values_that_sliders_cannot_have(page: Served, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    image = uploaded(page, tmp_path / "a.png")
    odd = [math.nan, math.inf, -math.inf, -1, 1e30, "x", None, [1], True]
    for value in odd:
        assert ask(page, "net", image, False, value, 1, 0) == "temperature must be a number from 0 to 1.2", value
    for value in (*odd, 0, 11):
        assert ask(page, "net", image, False, 0.8, value, 0) == "samples must be a number from 1 to 10", value
    for value in (*odd[:3], 1e30, "x", [1], 2**70, -(2**70)):
        assert ask(page, "net", image, False, 0.8, 1, value).startswith("seed must be a number from"), value
    for value in ("other", 5, ["net"], "/etc/passwd", None):
        assert ask(page, value, image, False, 0.8, 1, 0) == "there is no such network: choose net", value
    assert ask(page, "net", image, False, 0.8, 1, 2**62) == "None"


def test_uploads_that_are_no_images(page: Served, tmp_path: Path) -> None:
    upload = f"{page.url}/gradio_api/upload"
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n"
    for data in (eps, b"<svg/>", os.urandom(5000)):
        answer = httpx.post(upload, files={"files": ("photo.png", data)})
        assert answer.status_code == 415 and "is not an image" in answer.json()["detail"]
    assert httpx.post(upload, files={"files": ("photo.png", bytes(300_000))}).status_code == 413
    many = [("files", (f"{number}.png", b"x")) for number in range(900)]
    assert httpx.post(upload, files=many).status_code in (413, 415)
    Image.new("1", (3000, 3000)).save(tmp_path / "bomb.png")
    answer = httpx.post(upload, files={"files": ("bomb.png", (tmp_path / "bomb.png").read_bytes())})
    assert answer.status_code == 415 and "pixels" in answer.json()["detail"]
    assert httpx.post(upload, files={"files": ("x.png", eps)}, headers={"Origin": "http://evil.com"}).status_code == 403
    pictures = next(page.temporary.glob("srflow_demo_*/pictures"))
    assert [path.name for path in pictures.rglob("*") if path.name in ("photo.png", "bomb.png", "0.png", "x.png")] == []


def test_nothing_is_fetched_and_nothing_else_is_read(page: Served, tmp_path: Path) -> None:
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.5)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x.png"
        meta = {"meta": {"_type": "gradio.FileData"}}
        for path in (url, "http://intranet.example.invalid/x.png", "/etc/passwd", str(page.temporary / "output.txt")):
            for route in ("queue/join", "call/upscale", "run/predict", "run/upscale"):
                data = ["net", {"path": path, **meta}, False, 0.8, 1, 0, None]
                body = {"data": data, "fn_index": 1, "session_hash": "abc"}
                answer = httpx.post(f"{page.url}/gradio_api/{route}", json=body)
                assert answer.status_code in (400, 403, 404), (route, path)
            answer = httpx.get(f"{page.url}/gradio_api/file={path}")
            assert answer.status_code in (400, 403), path
        with suppress(TimeoutError):
            asked.append(listener.accept())
    assert asked == []


def test_other_pages_and_what_the_environment_would_open(page: Served) -> None:
    evil = {"Host": "evil.com", "Origin": "http://evil.com"}
    assert httpx.get(f"{page.url}/config", headers=evil).status_code == 403
    answer = httpx.get(f"{page.url}/config", headers={"Origin": "http://127.0.0.1:9999"})
    assert answer.status_code == 403
    config = httpx.get(f"{page.url}/config").json()
    assert not config["vibe_mode"] and not config.get("mcp_server") and not config.get("run_history")
    assert config["root"] == page.url and not config.get("footer_links")
    assert httpx.get(page.url).headers["X-Frame-Options"] == "DENY"
    assert httpx.post(f"{page.url}/gradio_api/mcp/", json={}).status_code == 404
    port = int(page.url.rsplit(":", 1)[1])
    with socket.socket() as other, pytest.raises(OSError):
        other.settimeout(1)
        other.connect((socket.gethostbyname(socket.gethostname()), port))
        if other.getpeername()[0].startswith("127."):
            raise OSError


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_leave_nothing(name: str, tmp_path: Path) -> None:
    net = save_checkpoint(tmp_path / "net.pth")
    image = photo(tmp_path / "photo.png", 30, 200)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with served(temporary, "--checkpoint", str(net)) as killed:
        killed.process.kill()
        killed.process.wait()
        assert len(leftovers(temporary)) == 1
    with served(temporary, "--checkpoint", str(net)) as page:
        assert len(leftovers(temporary)) == 1  # not that of the page before
        client_of(page, tmp_path).submit("net", image, False, 0.8, 10, 0, api_name="/upscale")
        time.sleep(1)  # in the midst of it
        page.process.send_signal(getattr(signal, name))
        assert page.process.wait(30) == 0
    assert leftovers(temporary) == [], (temporary / "output.txt").read_text()


def test_a_page_for_others_asks_for_the_password(tmp_path: Path) -> None:
    net = save_checkpoint(tmp_path / "net.pth")
    how = ("--checkpoint", str(net), "--password")
    with served(tmp_path, *how, host="0.0.0.0", SRFLOW_PASSWORD="a secret") as page:
        url = page.url.replace("0.0.0.0", "127.0.0.1")
        for path in ("/config", "/gradio_api/info", "/gradio_api/file=/etc/passwd", "/gradio_api/queue/data"):
            assert httpx.get(f"{url}{path}").status_code in (401, 403), path
        bodies = [{"data": [None] * count, "fn_index": 1, "session_hash": "abc"} for count in range(9)]
        answers = {httpx.post(f"{url}/gradio_api/queue/join", json=body).status_code for body in bodies}
        assert answers == {400, 401}  # not as many values as the function takes; no password
        assert httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.png", b"x")}).status_code == 401
        for wrong in ("", "secret", "A SECRET"):
            answer = httpx.post(f"{url}/login", data={"username": "any", "password": wrong})
            assert answer.status_code in (400, 422), wrong
        client = Client(url, auth=("anybody", "a secret"), verbose=False, download_files=str(tmp_path))
        image = photo(tmp_path / "a.png", 30)
        assert client.predict("net", image, False, 0.8, 1, 0, api_name="/upscale")
        assert httpx.get(f"{url}/", headers={"Host": "evil.com"}).status_code == 403
        output = (tmp_path / "output.txt").read_text().splitlines()
    assert output[0].startswith("warning: others can reach this page") and "a secret" not in "".join(output)
    assert len(output) == 2
