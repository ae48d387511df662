"""``srflow demo``: a page to try networks on, on this machine."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from srflow_plugin.cli import arguments
from srflow_plugin.errors import UserError, needs

HELP = "start a local web page to try networks on"
NAMES = {"photo": "Photograph, x4", "real": "Real photograph (JPEG, noise), x4", "face": "Face, x8"}
PASSWORD = "SRFLOW_PASSWORD"
UNITS = {"": 1, "b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30}
OPEN = "warning: whoever can reach this machine can use the page, as there is no --password, and nothing is encrypted\n"
ENCRYPTED = "warning: others can reach this page; neither the password nor the pictures are encrypted on the way\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine only)"
    )
    parser.add_argument(
        "--port",
        type=arguments.in_range(int, low=1, below=2**16),
        default=7860,
        help="port to listen at (default: 7860)",
    )
    parser.add_argument(
        "--password",
        nargs="?",
        const="",
        help=f"password that visitors have to give, with any name; without a value it is that of {PASSWORD} in the "
        "environment, or asked for (others on this machine see what is on a command line)",
    )
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        metavar="NETWORK",
        help="SRFlow networks: files, or srflow_x4, srflow_x4_real, srflow_x8_face (default: all three)",
    )
    parser.add_argument(
        "--max-pixels",
        type=arguments.in_range(int, low=1),
        default=262_144,
        help="largest number of pixels of a low-resolution image (default: 262144, as 512x512)",
    )
    parser.add_argument("--max-file-size", type=size, default="20mb", help="largest size of an upload (default: 20mb)")
    arguments.add_device(parser)


def run(args: argparse.Namespace) -> None:
    from srflow_plugin.checkpoints.shipped import SHIPPED, find_checkpoint

    named = list(dict.fromkeys(args.checkpoint or []))
    chosen = {label: find_checkpoint(name) for label, name in zip(labels(named), named, strict=True)}
    shipped = {name: SHIPPED[word].path for word, name in NAMES.items()}
    with needs("demo", "srflow demo"):
        from srflow_plugin.applications.upscale import find_network
        from srflow_plugin.demo.hosts import Hosts
        from srflow_plugin.demo.serve import Serving, serve
        from srflow_plugin.demo.session import Session

        if find_spec("gradio") is None:  # it is imported once its environment is set
            raise ImportError(name="gradio")

    how = Serving(Hosts(args.host), args.port, args.max_file_size, password(args.password))
    sessions = {
        name: Session(find_network(None, path, args.device), args.max_pixels, path.stem)
        for name, path in (chosen or shipped).items()
    }
    if not how.hosts.is_local:
        sys.stderr.write(OPEN if how.password is None else ENCRYPTED)
    sys.stdout.write(f"http://{how.hosts.in_url}:{args.port} (Ctrl+C ends it)\n")
    sys.stdout.flush()
    serve(sessions, how)


def labels(names: Sequence[str]) -> list[str]:
    """Name networks by their files, and by as many folders as tell them apart.

    >>> labels(["a/net.pth", "b/net.pth", "other.pth", "srflow_x4"])
    ['a/net.pth', 'b/net.pth', 'other', 'srflow_x4']
    """
    stems = [Path(name).stem for name in names]
    paths = [Path(name).parts for name in names]
    result = []
    for stem, parts in zip(stems, paths, strict=True):
        others = [other for other in paths if Path(*other).stem == stem and other != parts]
        count = next((n for n in range(1, len(parts)) if all(other[-n:] != parts[-n:] for other in others)), len(parts))
        result.append("/".join(parts[-count:]) if others else stem)
    return result


def size(text: str) -> int:
    """Read a number of bytes.

    >>> size("20mb"), size("1.5 KB"), size("300")
    (20971520, 1536, 300)
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*([kmg]?b|)", text.strip().lower())
    number = int(float(match[1]) * UNITS[match[2]]) if match else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a size such as 20mb, 500kb or 1gb")
    return number


def password(given: str | None) -> str | None:
    """Find the password: what is given, or else in the environment, or typed in."""
    if given is None:
        return None
    found = given or os.environ.get(PASSWORD, "")
    if not found and sys.stdin.isatty():
        found = getpass.getpass("password that visitors have to give: ")
    if not found.strip():
        raise UserError(f"--password needs one: put it into {PASSWORD}, type it in, or give it behind --password")
    return found
