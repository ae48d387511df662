"""The page under visitors that flood it, and under many side by side: `python -m tests.stress.page --calls 200`.

First a visitor asks once while others flood the page; what counts are the seconds until the answer comes, with another
try each second where the page refuses. Then visitors ask side by side, each with a picture of a grey of its own; what
counts are pictures of the grey of another one, in the answers and in their zips.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from gradio_client import Client, handle_file  # type: ignore[import-untyped]
from PIL import Image
from tqdm import tqdm

from tests.demo.conftest import save_checkpoint, served

LONGEST = 300  # seconds that a visitor tries
SAMPLES = 10
Flood = Callable[[str, Path], list[Any]]  # floods an address with an image; gives what has to be kept meanwhile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="of all who flood (default: 200)")
    parser.add_argument("--clients", type=int, default=5, help="that flood and wait (default: 5)")
    parser.add_argument("--visitors", type=int, default=4, help="side by side (default: 4)")
    parser.add_argument("--answers", type=int, default=1000, help="for all visitors side by side (default: 1000)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        net = save_checkpoint(folder / "net.pth")
        floods: dict[str, Flood] = {
            "nobody else": lambda url, image: [],
            "one who does not wait": lambda url, image: post(url, ["silent"] * args.calls),
            "as many who do not wait": lambda url, image: post(url, [f"silent{n}" for n in range(args.calls)]),
            f"{args.clients} who wait": lambda url, image: submit(url, image, args.calls, args.clients),
        }
        lines = ["| who floods | seconds to an answer | refusals before it |", "|---|---|---|"]
        for name, flood in floods.items():
            with served(folder, "--checkpoint", str(net)) as page:
                seconds, refusals = wait(page.url, folder, flood)
            lines.append(f"| {name} | {seconds:.1f} | {refusals} |")
        with served(folder, "--checkpoint", str(net)) as page:
            pictures, mixed = visit(page.url, folder, args.visitors, args.answers)
        lines += ["", f"{args.answers} answers to {args.visitors} visitors: {mixed} of {pictures} pictures mixed."]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(bool(mixed))


def photo(folder: Path, level: int, size: int) -> Path:
    path = folder / f"{level}.png"
    Image.new("RGB", (size, size), (level, level, level)).save(path)
    return path


def post(url: str, sessions: list[str]) -> list[Any]:
    """Queue a call in each session, and never look at its answer."""
    folder = Path(tempfile.mkdtemp())
    files = {"files": ("flood.png", photo(folder, 99, 48).read_bytes())}
    (path,) = httpx.post(f"{url}/gradio_api/upload", files=files).json()
    image = {"path": path, "meta": {"_type": "gradio.FileData"}}
    functions = httpx.get(f"{url}/config").json()["dependencies"]
    number = next(one["id"] for one in functions if one["api_name"] == "upscale")
    network = "net"
    with httpx.Client() as client:
        for session in tqdm(sessions, unit="call", leave=False):
            body = {"data": [network, image, False, 0.8, SAMPLES, 0, None], "fn_index": number, "session_hash": session}
            client.post(f"{url}/gradio_api/queue/join", json=body)
    return []


def submit(url: str, image: Path, calls: int, clients: int) -> list[Any]:
    """Queue calls of clients that wait for their answers."""
    crowd = [Client(url, verbose=False) for _ in range(clients)]
    arguments = ("net", handle_file(str(image)), False, 0.8, SAMPLES)
    return [crowd[n % clients].submit(*arguments, n, api_name="/upscale") for n in range(calls)]


def wait(url: str, folder: Path, flood: Flood) -> tuple[float, int]:
    """Measure how long one visitor waits; return the seconds, and how often the page refused."""
    image = photo(folder, 40, 48)
    honest = Client(url, verbose=False, download_files=str(folder))
    arguments = ("net", handle_file(str(image)), False, 0.8, 1, 0)
    honest.predict(*arguments, api_name="/upscale")
    flooding = flood(url, image)  # kept: its clients wait
    time.sleep(0.5)
    start, refusals = time.monotonic(), 0
    while time.monotonic() - start < LONGEST:
        try:
            honest.predict(*arguments, api_name="/upscale")
            break
        except Exception:
            refusals += 1
            time.sleep(1)
    del flooding
    return time.monotonic() - start, refusals


def visit(url: str, folder: Path, visitors: int, answers: int) -> tuple[int, int]:
    """Have visitors ask side by side; return how many pictures they saw, and how many of these were another one's."""
    counts, progress = {"pictures": 0, "mixed": 0}, tqdm(total=answers, unit="answer", leave=False)

    def see(picture: Any, level: int) -> None:
        counts["pictures"] += 1
        counts["mixed"] += abs(float(np.asarray(Image.open(picture).convert("L")).mean()) - level) > 0.5

    def ask(level: int) -> None:
        own = folder / f"visitor {level}"
        own.mkdir()
        image = handle_file(str(photo(own, level, 12)))
        client = Client(url, verbose=False, download_files=str(own))
        for seed in range(answers // visitors):
            _, pictures, _, _, _, _, _, archive = client.predict("net", image, False, 0, 1, seed, api_name="/upscale")
            see(pictures[0]["image"], level)
            with zipfile.ZipFile(archive) as zipped:
                see(zipped.open("bicubic.png"), level)
            progress.update()

    threads = [threading.Thread(target=ask, args=(20 + 200 * n // visitors,)) for n in range(visitors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts["pictures"], counts["mixed"]


if __name__ == "__main__":
    main()
