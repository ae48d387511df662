"""Gate in front of the page: lets through what the page itself asks for, from the page itself, within bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from srflow_plugin.demo.hosts import ForeignError, Hosts
from srflow_plugin.demo.pictures import check_room, check_upload
from srflow_plugin.demo.session import EXAMPLES
from srflow_plugin.demo.turns import Turns
from srflow_plugin.errors import UserError
from srflow_plugin.progress import tell

API = "/gradio_api"
FILE = f"{API}/file="
UPLOAD = f"{API}/upload"
JOIN = f"{API}/queue/join"
EXAMPLE = f"{API}/run/predict"  # at once: that is for a click on an example, by its number
STREAM = f"{API}/queue/data"
ASSETS = r"/(assets|static|svelte)/.*|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|pwa_icon|logout)?"
ASKED = re.compile(
    rf"{ASSETS}|{API}/(info|startup-events|app_id|user|login_check|theme\.css|upload_progress|queue/data)/?"
    rf"|{API}/heartbeat/[\w-]+|{re.escape(FILE)}.+"
)
TOLD = re.compile(rf"/login/?|{API}/(queue/join|run/predict|upload|cancel|reset)")
SESSION = re.compile(r"[\w-]{1,64}")
ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*:[/\\]", re.IGNORECASE)  # of the web, of files, ...
SENSELESS = "this call makes no sense"
LARGEST_CALL = 2**20  # bytes
LARGEST_FORM = 2**16  # bytes that a file has around it
HEADERS = {
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def headers_for(hosts: Hosts) -> dict[str, str]:
    """List the headers of every answer; only the site that may show the page as a part of its own can do so."""
    if hosts.framed_by is None:
        return HEADERS
    others = {name: value for name, value in HEADERS.items() if name != "X-Frame-Options"}  # which can name no site
    return {**others, "Content-Security-Policy": f"frame-ancestors {hosts.framed_by}"}


class RefusedError(Exception):
    """Answer to a request that is not let through."""

    def __init__(self, status: int, line: str) -> None:
        self.response = JSONResponse({"detail": line, "error": line}, status)


@dataclass
class Bounds:
    """Bounds of what the page takes.

    Attributes:
        hosts: names that the page is known by.
        folder: all pictures are in it.
        file_size: of an upload, in bytes.
        pixels: of an upload.
        inputs: of the functions behind the page, by their numbers; empty: of any.
    """

    hosts: Hosts
    folder: Path
    file_size: int
    pixels: int
    inputs: Mapping[int, int] = field(default_factory=dict)


class Gate:
    """ASGI application in front of Gradio's."""

    def __init__(self, app: ASGIApp, bounds: Bounds, turns: Turns) -> None:
        self.app = app
        self.bounds = bounds
        self.turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            answer = Answer(send, self.bounds.hosts)
            try:
                await self._pass(scope, receive, answer)
            except RefusedError as refusal:
                await refusal.response(scope, receive, answer)
            except Exception as error:
                if answer.is_begun:
                    raise
                tell(f"A call failed: {type(error).__name__}: {error}")  # such as none of the page's own does
                await RefusedError(400, SENSELESS).response(scope, receive, answer)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        self._check_page(headers, is_first=scope["method"] == "GET" and path == "/")
        if not (TOLD if scope["method"] == "POST" else ASKED).fullmatch(path):
            raise RefusedError(404, "there is nothing here")
        if scope["method"] == "POST":
            _check_size(headers, LARGEST_FORM + self.bounds.file_size if path == UPLOAD else LARGEST_CALL)
        if path in (JOIN, EXAMPLE):
            body = self._checked_call(headers, await _body(receive), is_queued=path == JOIN)
            receive = _handing_on(body, receive)
        elif path == UPLOAD:
            self._check_room()
            send = Uploads(send, self.bounds)
        elif path.startswith(FILE):
            self._check_path(path.removeprefix(FILE))
        if path == STREAM:
            session = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
            with self.turns.listening(session):
                await self.app(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _check_page(self, headers: Headers, is_first: bool) -> None:
        try:
            if len(headers.getlist("host")) != 1 or len(headers.getlist("origin")) > 1:
                raise ForeignError("this request has not one host")
            self.bounds.hosts.check(headers, is_first)
        except ForeignError as error:
            raise RefusedError(403, str(error)) from None

    def _check_room(self) -> None:
        try:
            check_room(self.bounds.folder)
        except UserError as error:
            raise RefusedError(507, str(error)) from None

    def _checked_call(self, headers: Headers, body: bytes, is_queued: bool) -> bytes:
        """Check a call; return what has been checked, and nothing that another parser would see in it."""
        try:
            call = json.loads(body)
            for values in _dictionaries(call):
                self._check_file(values, headers)
        except (ValueError, RecursionError):
            raise RefusedError(400, "this is not JSON") from None
        if not isinstance(call, dict) or not self._is_function(call):
            raise RefusedError(400, SENSELESS)
        session = call.get("session_hash")
        if not isinstance(session, str) or not SESSION.fullmatch(session):
            raise RefusedError(400, "session_hash must be letters and digits")
        try:
            if is_queued:
                self.turns.check(session)
        except UserError as error:
            raise RefusedError(429, str(error)) from None
        if not is_queued and not _is_number(call.get("data")):
            raise RefusedError(404, "there is nothing here but examples: join the queue")
        return json.dumps(call).encode()

    def _is_function(self, call: Mapping[str, Any]) -> bool:
        """Say whether a call is of a function of the page's, with as many values as it takes."""
        number, data = call.get("fn_index"), call.get("data")
        if not self.bounds.inputs:
            return True
        return type(number) is int and isinstance(data, list) and self.bounds.inputs.get(number) == len(data)

    def _check_file(self, values: Mapping[str, Any], headers: Headers) -> None:
        """Refuse addresses, and files that are not the page's own."""
        for key, value in values.items():
            if key == "path" and value is not None:
                self._check_path(value)
            elif isinstance(value, str) and ADDRESS.match(value):
                own = re.compile(rf"https?://({'|'.join(map(re.escape, _hosts(headers)))})/.*")
                if key != "url" or not own.fullmatch(value) or FILE not in value:
                    raise RefusedError(400, "this page fetches nothing: upload the image")

    def _check_path(self, path: object) -> None:
        if not isinstance(path, str) or ADDRESS.match(path):
            raise RefusedError(400, "this page fetches nothing: upload the image")
        parts = Path(path)
        if ".." in parts.parts or "\0" in path or not parts.is_relative_to(self.bounds.folder):
            raise RefusedError(403, "there is no such file: upload the image")


class Answer:
    """Answer to a request, with the headers that every one has."""

    def __init__(self, send: Send, hosts: Hosts) -> None:
        self.send = send
        self.hosts = hosts
        self.is_begun = False

    async def __call__(self, message: Message) -> None:
        """Send a part of it."""
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers_for(self.hosts))
            self.is_begun = True
        await self.send(message)


class Uploads:
    """Answer to an upload, held back until the files are found to be images; others are deleted."""

    def __init__(self, send: Send, bounds: Bounds) -> None:
        self.send = send
        self.bounds = bounds
        self.start: Message = {}
        self.body = b""

    async def __call__(self, message: Message) -> None:
        """Take a part of Gradio's answer; send the whole as it ends."""
        if message["type"] == "http.response.start":
            self.start = message
            return
        self.body += message.get("body", b"")
        if message.get("more_body"):
            return
        if self.start["status"] == 200:
            self._check([Path(path) for path in json.loads(self.body)])
        await self.send(self.start)
        await self.send({"type": "http.response.body", "body": self.body})

    def _check(self, paths: list[Path]) -> None:
        lines = ["upload one image at a time"] if len(paths) > 1 else []
        for path in paths:
            try:
                check_upload(path, self.bounds.pixels)
            except UserError as error:
                path.unlink(missing_ok=True)
                lines.append(str(error))
        if lines:
            raise RefusedError(415, lines[0])


def _is_number(data: object) -> bool:
    return isinstance(data, list) and len(data) == 1 and data[0] in range(len(EXAMPLES))


def _hosts(headers: Headers) -> list[str]:
    return [headers[name] for name in ("host", "x-forwarded-host") if name in headers]


def _dictionaries(value: Any) -> Iterator[Mapping[str, Any]]:
    """Give all dictionaries in a JSON value; those in lists, and strings in lists as if they were in one."""
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, list):
            one = dict(enumerate(one))
        if isinstance(one, dict):
            yield one
            rest += one.values()


def _check_size(headers: Headers, limit: int) -> None:
    """Refuse a body that is too large, or does not say how large it is."""
    length = headers.get("content-length", "")
    if not length.isdecimal():
        raise RefusedError(411, "say how long the request is")
    if int(length[:20]) > limit:
        raise RefusedError(413, f"this is more than {limit:,} bytes")


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "the request has no end")
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


def _handing_on(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return messages.pop() if messages else await receive()

    return receiving
