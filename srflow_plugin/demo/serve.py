"""The page's server, on this machine; uploads and answers are gone when it ends."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import: nothing is reported anywhere

from srflow_plugin.demo.page import THEME, make_page
from srflow_plugin.demo.session import Session
from srflow_plugin.errors import UserError


def serve(sessions: dict[str, Session], host: str, port: int, max_file_size: str) -> None:
    """Serve the page until it is interrupted."""
    with tempfile.TemporaryDirectory(prefix="srflow_demo_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            make_page(sessions, Path(folder)).launch(
                server_name=host,
                server_port=port,
                max_file_size=max_file_size,
                quiet=True,
                show_error=True,
                theme=THEME,
            )
        except OSError as error:
            raise UserError(f"port {port} of {host} cannot be had ({error}); choose another with --port") from None
