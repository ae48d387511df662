"""``srflow demo``: a page to try networks on, on this machine."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from srflow_plugin.cli import arguments
from srflow_plugin.errors import needs

HELP = "start a local web page to try networks on"
NAMES = {4: "photographs, x4", 8: "faces, x8"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine only)"
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        metavar="NETWORK",
        help="SRFlow networks: files, or srflow_x4, srflow_x8_face (default: both)",
    )
    parser.add_argument(
        "--max-pixels", type=int, default=262_144, help="of the low-resolution image (default: 262144, as 512x512)"
    )
    parser.add_argument("--max-file-size", default="20mb", help="of an upload (default: 20mb)")
    arguments.add_device(parser)


def run(args: argparse.Namespace) -> None:
    from srflow_plugin.checkpoints.shipped import SHIPPED, find_checkpoint

    named = args.checkpoint or []
    stems = Counter(Path(name).stem for name in named)
    chosen = {Path(name).stem if stems[Path(name).stem] == 1 else name: find_checkpoint(name) for name in named}
    shipped = {name: SHIPPED[scale] for scale, name in NAMES.items()}
    with needs("demo", "srflow demo"):
        from srflow_plugin.applications.upscale import find_network
        from srflow_plugin.demo.serve import serve
        from srflow_plugin.demo.session import Session

    sessions = {
        name: Session(find_network(None, path, args.device), args.max_pixels)
        for name, path in (chosen or shipped).items()
    }
    sys.stdout.write(f"http://{args.host}:{args.port} (Ctrl+C ends it)\n")
    sys.stdout.flush()
    serve(sessions, args.host, args.port, args.max_file_size)
