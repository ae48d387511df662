"""The page's server, on this machine; uploads and answers are gone when it ends, however it is ended."""

from __future__ import annotations

import asyncio
import hmac
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from srflow_plugin.demo.hosts import Hosts
from srflow_plugin.demo.pictures import only_pixels, pictures_folder, sweep
from srflow_plugin.demo.turns import Turns
from srflow_plugin.errors import UserError

if TYPE_CHECKING:
    from srflow_plugin.demo.session import Session

SWEPT_EVERY = 60.0  # seconds
SIGNALS = ("SIGTERM", "SIGHUP")  # beside Ctrl+C; Windows lacks the second
VISITORS = 1000  # of whom Gradio remembers what they see
LOGIN_PAUSE = 1.0  # seconds after a wrong password


@dataclass(frozen=True)
class Serving:
    """Way in which the page is served.

    Attributes:
        hosts: address to listen at.
        port: there.
        file_size: of an upload, in bytes.
        password: asked from visitors; None: none is.
    """

    hosts: Hosts
    port: int
    file_size: int
    password: str | None = None


def serve(sessions: dict[str, Session], how: Serving) -> None:
    """Serve the page until it is interrupted."""
    only_pixels()
    turns = Turns()
    with _ended_by_signals(), pictures_folder() as folder:
        _set_environment(folder)
        try:
            _launch(sessions, how, folder, turns)
        except KeyboardInterrupt:  # while the page is being made
            pass
        except OSError as error:
            host = how.hosts.host
            raise UserError(f"port {how.port} of {host} cannot be had ({error}); choose another with --port") from None
    if turns.is_taken:  # torch aborts a process that ends in the midst of its work
        sys.stdout.flush()
        os._exit(0)


def _set_environment(folder: Path) -> None:
    """Let no variable open the page to others, and nothing be left elsewhere; before Gradio is imported."""
    for name in [name for name in os.environ if name.startswith(("GRADIO_", "OAUTH_", "SPACE_", "SPACES_"))]:
        del os.environ[name]
    os.environ.pop("SYSTEM", None)  # by which Gradio knows its makers' servers
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing is reported anywhere
    os.environ["GRADIO_TEMP_DIR"] = os.environ["GRADIO_EXAMPLES_CACHE"] = str(folder)


def _launch(sessions: dict[str, Session], how: Serving, folder: Path, turns: Turns) -> None:
    from PIL import Image
    from starlette.middleware import Middleware

    from srflow_plugin.demo.gate import Bounds, Gate
    from srflow_plugin.demo.page import CALLS, THEME, make_page

    page = make_page(sessions, folder, turns)
    examples = set(folder.iterdir())
    pixels = max(session.max_pixels * session.network.scale**2 for session in sessions.values())
    Image.MAX_IMAGE_PIXELS = pixels  # where nobody else has looked at the size
    inputs = {number: len(function.inputs) for number, function in page.fns.items()}
    bounds = Bounds(how.hosts, folder, how.file_size, pixels, inputs)
    with _sweeping(folder, examples):
        page.launch(
            server_name=how.hosts.in_url,
            server_port=how.port,
            max_file_size=how.file_size,
            max_threads=CALLS,
            state_session_capacity=VISITORS,
            auth=how.password and _asks_for(how.password),
            app_kwargs={"middleware": [Middleware(Gate, bounds, turns)]},
            theme=THEME,
            quiet=True,
            show_error=False,  # of mistakes in the code; those of visitors are shown
            share=False,
            mcp_server=False,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            run_history=False,
            footer_links=[],
            allowed_paths=[],
        )


def _asks_for(password: str) -> Callable[[str, str], Awaitable[bool]]:
    """Make a check of a password, for any name of a user."""

    async def is_right(_: str, given: str) -> bool:
        right = hmac.compare_digest(given.encode(), password.encode())
        if not right:
            await asyncio.sleep(LOGIN_PAUSE)
        return right

    return is_right


@contextmanager
def _sweeping(folder: Path, but: set[Path]) -> Iterator[None]:
    """Delete old pictures in the block."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.wait(SWEPT_EVERY):
            sweep(folder, but)

    threading.Thread(target=run, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let signals end the block as Ctrl+C does, unless whoever started this process has them ignored."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: dict[Any, Any] = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
