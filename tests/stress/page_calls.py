"""Calls that no page of ours makes: `python -m tests.stress.page_calls --calls 500 --seed 0`.

A page is served by a process of its own, with programs that leave a trace first in its PATH. Every call must be
answered within ten seconds, and not by a fault of the server; no address may be fetched, no program started, no path of
this machine told that the caller did not name; the page must stay small, and answer a visitor in the end. Prints what
was answered; exit code 1 if something of this did not hold.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from tests.demo.conftest import save_checkpoint, served
from tests.helpers import noise_png
from tests.stress.hostile import crafted, not_pictures
from tests.stress.page import wait

SECONDS, MEBIBYTES = 10.0, 2048
API = "/gradio_api"
PATHS = [
    *(
        "/",
        "/config",
        "/info",
        "/docs",
        "/openapi.json",
        "/theme.css",
        "/login",
        "/logout",
        "/../../etc/passwd",
        "/%2e%2e/",
    ),
    *(f"{API}/{name}" for name in ("info", "queue/join", "queue/data", "queue/status", "run/predict", "run/upscale")),
    *(f"{API}/{name}" for name in ("call/upscale", "api/upscale", "upload", "cancel", "reset", "component_server")),
    *(f"{API}/{name}" for name in ("proxy=http://127.0.0.1:1/", "file=/etc/passwd", "file=C:\\x", "stream/a/b/c/d")),
    *(f"{API}/{name}" for name in ("heartbeat/a", "vibe-edit/", "mcp/sse", "dev/reload", "startup-events", "file/")),
]
STREAMS = (f"{API}/queue/data", f"{API}/heartbeat")
METHODS = ["GET", "POST", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"]


class Trap(threading.Thread):
    """Listens on this machine, and counts who comes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.visits = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}/a.png"

    def run(self) -> None:
        """Count connections, and end each."""
        while True:
            connection, _ = self.socket.accept()
            self.visits += 1
            connection.close()


def any_value(rng: random.Random, trap: str, depth: int = 0) -> Any:
    """Make a value of a call that no component of the page has."""
    values: list[Any] = [
        *(None, True, -1, 0, 3, 2**70, 1e400, -0.0, "", "text", "\0", "\x1b[31m", "a" * 5000, "net", "../net", []),
        *(
            {"path": path, "meta": {"_type": "gradio.FileData"}}
            for path in ("/etc/passwd", trap, "file:///etc/passwd", "")
        ),
        *({"path": path, "url": trap} for path in ("a.png", None, 5, ["a"], "\\\\host\\a.png")),
        *({"background": {"path": trap}, "layers": [{"url": trap, "path": "/dev/zero"}], "composite": trap}, trap),
    ]
    if depth < 3 and rng.random() < 0.3:
        inner = [any_value(rng, trap, depth + 1) for _ in range(rng.randrange(4))]
        return inner if rng.random() < 0.5 else {str(number): value for number, value in enumerate(inner)}
    return rng.choice(values)


def body(rng: random.Random, trap: str) -> bytes:
    """Make the contents of a call: what would be right, with something else in it."""
    call: dict[str, Any] = {
        "data": ["net", None, False, 0.8, 1, 0, None],
        "fn_index": rng.randrange(-1, 30),
        "session_hash": rng.choice(["a", "b" * 70, None, 5, "../x", "x\n", {"a": 1}]),
        "event_data": None,
        "trigger_id": rng.choice([None, 1, "x"]),
    }
    for _ in range(rng.randrange(4)):
        call["data"][rng.randrange(7)] = any_value(rng, trap)
    if rng.random() < 0.3:
        call[rng.choice([*call, "more", "api_name", "request"])] = any_value(rng, trap)
    data = json.dumps(call).encode()
    how = rng.random()
    if how < 0.1:
        return b"[" * rng.choice([10, 5000, 100_000])
    if how < 0.2:
        return data[: rng.randrange(len(data))] + rng.randbytes(rng.choice([0, 9]))
    return data


def upload(rng: random.Random) -> dict[str, Any]:
    """Make a form with files that are no pictures, too many, or crafted."""
    contents = [noise_png(0), crafted(rng), rng.choice([*not_pictures().values()]), b"", rng.randbytes(3000)]
    name = rng.choice(["a.png", "../../a.png", "/tmp/a.png", "a" * 300, "a\n.png", "a.html", "\x1b[31m.png", "CON"])
    kind = rng.choice(["image/png", "text/html", "a", ""])
    return {"files": [("files", (name, rng.choice(contents), kind)) for _ in range(rng.choice([1, 1, 2, 30]))]}


def call(client: httpx.Client, rng: random.Random, trap: str) -> httpx.Response:
    """Make a call."""
    own = str(client.base_url).removeprefix("http://").rstrip("/")
    headers = {"Host": rng.choice([own] * 30 + ["evil.example", "localhost:1", "127.0.0.1.evil.example", ""])}
    if rng.random() < 0.15:
        headers["Origin"] = rng.choice(
            [f"http://{own}", "http://evil.example", "null", "file://", f"https://{own}.evil.example"]
        )
    if rng.random() < 0.1:
        headers["Sec-Fetch-Site"] = rng.choice(["cross-site", "same-site", "same-origin", "none", "x"])
    if rng.random() < 0.1:
        headers[rng.choice(["X-Forwarded-Host", "Cookie", "Range", "X-Gradio-User"])] = "9" * rng.choice([1, 9])
    kind = rng.random()
    if kind < 0.4:
        path = rng.choice(
            [f"{API}/queue/join", f"{API}/queue/join", f"{API}/run/predict", f"{API}/cancel", f"{API}/reset"]
        )
        return client.post(path, content=body(rng, trap), headers={"Content-Type": "application/json", **headers})
    if kind < 0.6:
        return client.post(
            f"{API}/upload{rng.choice(['', '?upload_id=a', '?upload_id=../x'])}", headers=headers, **upload(rng)
        )
    path = rng.choice(PATHS)
    if rng.random() < 0.2:
        path += "?" + "&".join(
            f"{rng.choice(['session_hash', 'url', 'path'])}={rng.choice(['a', trap, '..%2f'])}" for _ in range(3)
        )
    request = client.build_request(rng.choice(METHODS), path, headers=headers, content=b"x" * rng.choice([0, 0, 9]))
    if not path.startswith(STREAMS):
        return client.send(request)
    response = client.send(request, stream=True)  # which has no end
    response.close()
    return httpx.Response(response.status_code)


def is_told(response: httpx.Response, folder: Path) -> bool:
    """Say if an answer shows the inside of the server."""
    return any(
        word in response.text for word in ("Traceback", "site-packages", "0x7f", "root:x:0", str(folder / "work"))
    )


def resident(process: int) -> float:
    """Memory of a process, MiB; 0 where nobody says."""
    status = Path(f"/proc/{process}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def attack(page: Any, folder: Path, calls: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Make so many calls; return what was answered how often, and what did not hold."""
    trap = Trap()
    trap.start()
    counts: Counter[str] = Counter()
    faults: list[str] = []
    with httpx.Client(base_url=page.url, timeout=SECONDS) as client:
        for number in tqdm(range(calls), unit="call"):
            start = time.monotonic()
            try:
                answer = call(client, random.Random(f"{seed} {number}"), trap.url)
            except httpx.TimeoutException:
                faults.append(f"call {number}: no answer in {SECONDS:g} s")
                continue
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                counts[f"closed or not sent: {type(error).__name__}"] += 1
                continue
            counts[str(answer.status_code)] += 1
            if answer.status_code in (500, 502) or is_told(answer, folder):
                faults.append(f"call {number}: {answer.status_code} {answer.text[:300]}")
            if time.monotonic() - start > SECONDS:
                faults.append(f"call {number}: {time.monotonic() - start:.1f} s")
    time.sleep(2)
    faults += [f"{trap.visits} addresses were fetched"] if trap.visits else []
    return counts, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        net, programs = save_checkpoint(folder / "net.pth"), folder / "programs"
        programs.mkdir()
        for name in ("gs", "djpeg", "convert"):
            (programs / name).write_text(f"#!/bin/sh\ntouch {folder}/executed\n")
            (programs / name).chmod(0o755)
        with served(folder, "--checkpoint", str(net), PATH=f"{programs}:/usr/bin:/bin") as page:
            counts, faults = attack(page, folder, args.calls, args.seed)
            used = resident(page.process.pid)
            seconds, _ = wait(page.url, folder, lambda *_: [])
            faults += ["the page has ended"] if page.process.poll() is not None else []
        faults += ["a program was started"] if (folder / "executed").exists() else []
        faults += [f"{used:.0f} MiB"] if used > MEBIBYTES else []
        screen = (folder / "output.txt").read_text()
        faults += [screen[-3000:]] if "Traceback" in screen else []
    for what, count in sorted(counts.items()):
        sys.stdout.write(f"{what:40}{count:6}\n")
    sys.stdout.write(f"at most {used:.0f} MiB; a visitor's answer afterwards took {seconds:.1f} s\n")
    sys.stdout.write("".join(f"{fault}\n" for fault in faults) or "0 faults\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
