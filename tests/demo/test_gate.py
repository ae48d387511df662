"""Gate in front of the page, with an application behind it that answers everything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from srflow_plugin.demo import pictures
from srflow_plugin.demo.gate import Bounds, Gate
from srflow_plugin.demo.hosts import Hosts
from srflow_plugin.demo.turns import MANY, Turns
from srflow_plugin.errors import UserError
from tests.helpers import noise_image

URL = "http://127.0.0.1:7860"
JOIN, PREDICT = "/gradio_api/queue/join", "/gradio_api/run/predict"


class Behind:
    """Application behind the gate: it says which requests came through, and saves uploads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []  # of the files of the next upload
        self.data: list[bytes] = []

    async def answer(self, request: Request) -> PlainTextResponse | JSONResponse:
        body = await request.body()
        if b"senseless" in body:
            raise KeyError("senseless")
        if request.url.path.endswith("/upload"):
            paths = [self.folder / name for name in self.names]
            for path, data in zip(paths, self.data, strict=True):
                path.write_bytes(data)
            return JSONResponse([str(path) for path in paths])
        return PlainTextResponse(b"through " + body)


@pytest.fixture
def behind(tmp_path: Path) -> Behind:
    (tmp_path / "pictures").mkdir()
    return Behind(tmp_path / "pictures")


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def client(behind: Behind, turns: Turns) -> Iterator[TestClient]:
    bounds = Bounds(Hosts("127.0.0.1"), behind.folder, file_size=20_000, pixels=400)
    route = Route("/{path:path}", behind.answer, methods=["GET", "POST", "PUT"])
    with TestClient(Starlette(routes=[route], middleware=[Middleware(Gate, bounds, turns)]), URL) as client:
        yield client


def call(*data: Any, session: Any = "abc") -> dict[str, Any]:
    return {"data": list(data), "fn_index": 1, "session_hash": session}


def test_foreign_hosts_and_pages(client: TestClient) -> None:
    headers: list[dict[str, str]] = [
        {"Host": "evil.com:7860", "Origin": "http://evil.com:7860"},
        {"Origin": "http://evil.com"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    ]
    for one in headers:
        for method, path in (("GET", "/config"), ("POST", JOIN), ("POST", "/gradio_api/upload"), ("GET", "/")):
            answer = client.request(method, path, headers=one, content=b"{}")
            assert answer.status_code == 403 and "through" not in answer.text, (one, path)
    answer = client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})  # a link
    assert answer.status_code == 200
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    twice = [("Host", "127.0.0.1:7860"), ("Host", "evil.com")]
    assert client.get("/config", headers=twice).status_code == 403


def test_routes_that_the_page_needs_and_no_others(client: TestClient, behind: Behind) -> None:
    inside = f"/gradio_api/file={behind.folder}/abc/sample_0.png"
    through = ["/", "/config", "/theme.css", "/assets/a/b.js", "/static/x.svg", "/gradio_api/info", inside]
    through += ["/gradio_api/heartbeat/abc", "/gradio_api/queue/data?session_hash=abc", "/gradio_api/startup-events"]
    assert [path for path in through if client.get(path).status_code != 200] == []
    assert client.head("/").status_code != 404 and client.post("/login", content=b"x=1").status_code == 200
    closed = ["/gradio_api/runs", "/gradio_api/deep_link", "/monitoring", "/monitoring/abc", "/monitoring/summary"]
    closed += ["/gradio_api/proxy=https://evil.hf.space/", "/gradio_api/vibe-code", "/docs", "/openapi.json", "/gradio"]
    closed += ["/gradio_api/file", "/gradio_api/file/etc/passwd", "/gradio_api/dev/reload", "/gradio_api/token"]
    closed += ["/gradio_api/call/upscale/x", "/gradio_api/stream/a/b/c/playlist.m3u8", "/GRADIO_API/INFO", "/config/x"]
    assert [path for path in closed if client.get(path).status_code != 404] == []
    posts = ["run/upscale", "api/upscale", "call/upscale", "call/v2/upscale", "component_server", "process_recording"]
    posts += ["vibe-edit", "run/predict/x", "queue/join/x", "run-history/connect", "stream/x", "queue//join"]
    assert [path for path in posts if client.post(f"/gradio_api/{path}", json={}).status_code != 404] == []
    assert client.put(JOIN, json={}).status_code == 404


FOREIGN = [
    "http://evil.com/x.png",
    "HTTPS://evil.com",
    "ftp://x/y",
    "file:///etc/passwd",
    "gopher://x",
    "http:/evil.com",
]
FOREIGN += ["//evil.com/x", "/etc/passwd", "{folder}/../lock", "{folder}/a/../../lock", "{folder}_other/x", "lock", "."]
FOREIGN += ["{folder}/%2e%2e/../x", "C:\\x.png", "data:image/png;base64,AA"]


@pytest.mark.parametrize("path", [*FOREIGN, "", "\thttp://evil.com/", __file__])
def test_files_that_are_not_the_pages_own(client: TestClient, behind: Behind, path: str) -> None:
    path = path.format(folder=behind.folder)
    own = {"path": f"{behind.folder}/abc/x.png", "url": None, "meta": {"_type": "gradio.FileData"}}
    payloads: list[Any] = [{**own, "path": path}, {"layers": [{**own, "path": path}]}, [[[{"a": {"path": path}}]]]]
    if ":/" in path or ":\\" in path:
        payloads += [{**own, "url": path}, path, {"image": path}, {"path": None, "url": path}]
    for payload in payloads:
        for route in (JOIN, PREDICT):
            answer = client.post(route, json=call("net", payload))
            assert answer.status_code in (400, 403) and "upload the image" in answer.json()["detail"], payload
    assert path in ("", ".") or client.get(f"/gradio_api/file={quote(path, safe='')}").status_code in (400, 403, 404)


def test_calls_come_through_as_they_were_checked(client: TestClient, behind: Behind) -> None:
    path = f"{behind.folder}/abc/x.png"
    image = {"path": path, "url": f"{URL}/gradio_api/file={path}", "orig_name": "x.png", "mime_type": "image/png"}
    assert client.post(PREDICT, json=call(2)).status_code == 200  # a click on an example
    for data in ((), (3,), (-1,), ("net", None), ([0],), (1, 1)):
        assert client.post(PREDICT, json=call(*data)).status_code == 404
    for one in (call("net: x4", image, True, 0.8, 3, 0, None), call({"background": image, "layers": [image]}), call()):
        answer = client.post(JOIN, json=one)
        assert answer.status_code == 200 and json.loads(answer.text.removeprefix("through ")) == one
    proxied = {**image, "url": f"https://demo.org/sub/gradio_api/file={path}"}
    assert client.post(JOIN, json=call(proxied), headers={"X-Forwarded-Host": "demo.org"}).status_code == 200
    assert client.post(JOIN, json=call(proxied)).status_code == 400
    twice = f'{{"session_hash": "abc", "data": [{{"path": "/etc/passwd", "path": "{path}"}}]}}'
    assert "/etc/passwd" not in client.post(JOIN, content=twice).text


@pytest.mark.parametrize("body", ["", "{", "[" * 100_000, "1" * 5000, "null", "[]", "\xff", '{"session_hash": 5}'])
def test_what_is_no_call(client: TestClient, body: str) -> None:
    for route in (JOIN, PREDICT):
        answer = client.post(route, content=body.encode("latin-1"))
        assert answer.status_code == 400 and "\n" not in answer.json()["detail"]


def test_calls_are_of_the_pages_functions(behind: Behind, turns: Turns) -> None:
    bounds = Bounds(Hosts("127.0.0.1"), behind.folder, file_size=20_000, pixels=400, inputs={1: 2, 3: 0})
    route = Route("/{path:path}", behind.answer, methods=["POST"])
    with TestClient(Starlette(routes=[route], middleware=[Middleware(Gate, bounds, turns)]), URL) as client:
        right = [{**call("a", 5)}, {**call(), "fn_index": 3}]
        wrong = [call(), call("a"), call("a", 5, 6), {**call(), "fn_index": True}, {**call("a", 5), "fn_index": "1"}]
        wrong += [{**call("a", 5), "data": "ab"}, {**call("a", 5), "fn_index": 2}, {**call("a", 5), "fn_index": None}]
        assert [client.post(JOIN, json=one).status_code for one in right] == [200, 200]
        assert {client.post(JOIN, json=one).json().get("error") for one in wrong} == {"this call makes no sense"}


def test_what_the_application_fails_on_is_refused(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    for path in ("/gradio_api/cancel", "/gradio_api/reset"):
        answer = client.post(path, content=b"senseless")
        assert answer.status_code == 400 and answer.json()["error"] == "this call makes no sense"
        assert capsys.readouterr().err == "A call failed: KeyError: 'senseless'\n"


def test_sessions_have_plain_names(client: TestClient) -> None:
    for session in ("", "a b", "x" * 65, "../x", ["abc"], None, "a\n"):
        assert client.post(JOIN, json=call(session=session)).status_code == 400


def test_bounds_of_requests(client: TestClient, behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.post(JOIN, content=b" " * (2**20 + 1)).status_code == 413
    assert client.post("/gradio_api/upload", content=b"x" * 100_000).status_code == 413
    assert client.post("/login", content=b"x" * (2**20 + 1)).status_code == 413
    assert client.post("/gradio_api/upload", content=iter([b"x"])).status_code == 411  # in pieces, without a length
    (behind.folder / "other.png").write_bytes(b"x" * 100)
    monkeypatch.setattr(pictures, "LARGEST", 99)
    answer = client.post("/gradio_api/upload", content=b"x")
    assert answer.status_code == 507 and "older ones are deleted" in answer.json()["detail"]


def test_a_visitor_with_too_many_calls(client: TestClient, turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(session: str) -> None:
        if session == "greedy":
            raise UserError(MANY)

    monkeypatch.setattr(turns, "check", check)
    answer = client.post(JOIN, json=call(session="greedy"))
    assert answer.status_code == 429 and answer.json()["detail"] == MANY
    assert client.post(JOIN, json=call(session="other")).status_code == 200


def test_uploads_are_images(client: TestClient, behind: Behind, tmp_path: Path) -> None:
    def upload(**files: bytes) -> tuple[int, str]:
        behind.names, behind.data = list(files), list(files.values())
        answer = client.post("/gradio_api/upload", content=b"x")
        return answer.status_code, answer.text

    def encoded(kind: str, size: int = 20) -> bytes:
        Image.fromarray(noise_image(size, size)).save(tmp_path / "image", kind)
        return (tmp_path / "image").read_bytes()

    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"):
        status, text = upload(a=encoded(kind))
        assert status == 200 and json.loads(text) == [str(behind.folder / "a")], kind
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n"
    page = b"<html><script>1</script>"
    for data in (b"", page, postscript, b"%PDF-1.7", b"\x00" * 500, encoded("PNG")[:20], encoded("ICO"), b"PK\x03\x04"):
        status, text = upload(b=data)
        assert status == 415 and "b is not an image that this page reads" in text, data[:20]
        assert not (behind.folder / "b").exists() and str(tmp_path) not in text
    status, text = upload(c=encoded("PNG", 21))
    assert status == 415 and "c has 21 x 21 pixels, more than 400" in text and not (behind.folder / "c").exists()
    bomb = b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000d49484452000033f4000033f40806000000e7b6abd1")
    assert upload(d=bomb)[0] == 415 and not (behind.folder / "d").exists()
    status, text = upload(e=encoded("PNG"), f=encoded("PNG"))
    assert status == 415 and "upload one image at a time" in text
