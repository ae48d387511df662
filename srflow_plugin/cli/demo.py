"""``srflow demo``: a page to play with, on this machine."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from srflow_plugin.errors import UserError
from srflow_plugin.upscaling import SHIPPED, find_network

NAMES = {4: "photographs, x4", 8: "faces, x8"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine only)"
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.add_argument("--checkpoint", type=Path, nargs="+", help="SRFlow networks (default: those of the package)")
    parser.add_argument(
        "--max-pixels", type=int, default=65_536, help="of the low-resolution image (default: 65536, as 256x256)"
    )
    parser.add_argument("--max-file-size", default="20mb", help="of an upload (default: 20mb)")
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: a GPU if there is one"
    )


def run(args: argparse.Namespace) -> None:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import: nothing is reported anywhere
    try:
        from srflow_plugin.demo.page import THEME, make_page
    except ImportError as error:
        raise UserError(f"srflow demo needs {error.name}; pip install 'srflow_plugin[demo]'") from None
    from srflow_plugin.demo.session import Session

    if args.checkpoint:
        networks = {path.stem: find_network(None, path, args.device) for path in args.checkpoint}
    else:
        networks = {
            name: find_network(scale, None, args.device) for scale, name in NAMES.items() if SHIPPED[scale].exists()
        }
    sessions = {name: Session(network, args.max_pixels) for name, network in networks.items()}
    sys.stdout.write(f"http://{args.host}:{args.port} (Ctrl+C ends it)\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="srflow_demo_") as folder:  # uploads and answers, gone when the page is
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            make_page(sessions, Path(folder)).launch(
                server_name=args.host,
                server_port=args.port,
                max_file_size=args.max_file_size,
                quiet=True,
                show_error=True,
                theme=THEME,
            )
        except OSError as error:
            raise UserError(
                f"port {args.port} of {args.host} cannot be had ({error}); choose another with --port"
            ) from None


DEMO = {"demo": ("open a page to play with, on this machine", add_arguments, run)}
