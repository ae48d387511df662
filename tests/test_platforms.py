"""Systems that are not here, imitated: what only Unix has is taken away, or what only Windows has is given.

Each runs in a process of its own: PyTorch and the other libraries are imported before, and see the system as it is.
"""

from __future__ import annotations

import ast
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from srflow_plugin.errors import UserError
from srflow_plugin.images.files import read_image
from srflow_plugin.options.files import load_options
from srflow_plugin.training.stop import STOP_SIGNALS, StopRequest
from tests.helpers import ROOT, UNIX, WITHOUT_VALIDATION, assert_same_networks, run_python, small_network, train

LIBRARIES = "import multiprocessing, os, signal, subprocess, sys, tempfile, PIL.Image, safetensors.torch, torch\n"
# What no Windows has; nor has it psutil or a container here.
TAKEN_AWAY = """
for name in ("sysconf", "fork", "sched_getaffinity", "killpg", "getpgid", "mkfifo"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGXFSZ"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("resource", "fcntl", "psutil", "pwd", "grp", "termios"):
    sys.modules[name] = None
from srflow_plugin import memory
from pathlib import Path
memory.PROC = memory.CGROUPS = Path("nowhere")
"""
LOCKED = """
import errno, types
locked = set()

def locking(file, mode, count):
    byte = (os.fstat(file).st_ino, os.lseek(file, 0, os.SEEK_CUR))
    if mode == 2 and byte in locked:
        raise OSError(errno.EACCES, "Permission denied")
    (locked.discard if mode == 0 else locked.add)(byte)

sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2, LK_UNLCK=0)
here, sys.platform = sys.platform, "win32"
from srflow_plugin import locks
sys.platform = here
"""
WINDOWS = f"{LIBRARIES}{LOCKED}{TAKEN_AWAY}signal.SIGBREAK = signal.SIGTERM\n"
MACOS = f"""{LIBRARIES}
from pathlib import Path
from srflow_plugin import memory
memory.PROC = memory.CGROUPS = Path("nowhere")
sys.modules["psutil"] = None
known = os.sysconf

def sysconf(name):
    if name == "SC_AVPHYS_PAGES":
        raise ValueError("unrecognized configuration name")
    return known(name)

os.sysconf = sysconf
if hasattr(os, "sched_getaffinity"):
    del os.sched_getaffinity
"""
SYSTEMS = {"Windows": WINDOWS, "macOS": MACOS}
COMMANDS = """
from srflow_plugin.cli.main import srflow_command
for command in (
    "upscale lr.png -o out.png --checkpoint net.pth",
    "upscale in -o out --checkpoint net.pth --num-samples 2",
    "encode hr.png -o a.safetensors --checkpoint net.pth",
    "decode a.safetensors -o back.png --checkpoint net.pth",
    "std-map lr.png -o std.png --checkpoint net.pth",
    "restore hr.png -o restored.png --checkpoint net.pth",
    "convert net.pth net.safetensors",
):
    assert srflow_command(command.split()) == 0, command
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with an HR image, its LR image, a folder of images and a network."""
    torch.save({"params": small_network(scale_floor=0.3).state_dict()}, tmp_path / "net.pth")
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "hr.png"), cv2.GaussianBlur(image, (9, 9), 0))
    cv2.imwrite(str(tmp_path / "lr.png"), image[::4, ::4])
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / "in" / f"{name}.png"), image[::4, ::4])
    return tmp_path


@UNIX
@pytest.mark.parametrize("system", SYSTEMS)
def test_commands_work_on_other_systems(system: str, place: Path) -> None:
    done = run_python(SYSTEMS[system] + COMMANDS, cwd=place)
    assert done.returncode == 0, done.stderr
    assert read_image(place / "out.png").shape == read_image(place / "hr.png").shape
    assert np.array_equal(read_image(place / "back.png"), read_image(place / "hr.png"))
    assert len([*(place / "out").glob("*.png")]) == 4


@UNIX
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_same_seed_is_the_same_picture_on_other_systems(system: str, place: Path) -> None:
    command = "from srflow_plugin.cli.main import srflow_command\nsrflow_command({!r}.split())"
    for start, name in ((SYSTEMS[system], "there"), ("", "here")):
        done = run_python(start + command.format(f"upscale lr.png -o {name}.png --checkpoint net.pth"), cwd=place)
        assert done.returncode == 0, done.stderr
    assert np.array_equal(read_image(place / "there.png"), read_image(place / "here.png"))


@UNIX
def test_locks_of_windows_keep_two_users_apart(tmp_path: Path) -> None:
    done = run_python(
        f"{WINDOWS}from srflow_plugin.locks import LockFile, held\n"
        "from srflow_plugin.errors import UserError\n"
        "locks.PATIENCE = 0.1\n"
        "path = Path('lock')\n"
        "with LockFile(path) as one, LockFile(path) as other:\n"
        "    assert one.claim() and not other.claim() and other.claim(1)\n"
        "    one.sign()\n"
        "    assert f'process {os.getpid()} ' in other.holder\n"
        "    try:\n"
        "        with held(path, 'it'):\n"
        "            raise AssertionError\n"
        "    except UserError as error:\n"
        "        assert 'it is in use: process' in str(error)\n"
        "    one.release()\n"
        "    assert other.claim()\n",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


@UNIX
def test_a_training_ends_at_a_signal_of_windows(place: Path) -> None:
    done = run_python(
        f"{WINDOWS}from srflow_plugin.training.stop import STOP_SIGNALS, StopRequest, leave_signals_to_parent\n"
        "assert {number.name for number in STOP_SIGNALS} == {'SIGTERM', 'SIGINT'}, STOP_SIGNALS\n"
        "with StopRequest() as stop:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    assert stop.requested and stop.exit_code == 130\n"
        "leave_signals_to_parent(0)\n",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr


def test_a_run_in_a_thread_leaves_signals_alone() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    seen: list[object] = []

    def run() -> None:
        with StopRequest() as stop:
            seen.extend([stop.requested, stop.exit_code, [signal.getsignal(number) for number in STOP_SIGNALS]])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False, 0, before] and [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_a_handler_that_is_none_of_pythons_is_given_back_as_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    set_handler = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, handler: set_handler(number, handler) and None)
    with StopRequest():
        pass
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    set_handler(signal.SIGINT, signal.default_int_handler)


@pytest.mark.slow
def test_a_training_in_a_thread_and_one_in_the_main_thread_are_the_same(workplace: Path) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(train(WITHOUT_VALIDATION, "name=thread")))
    thread.start()
    thread.join()
    assert codes == [0] and train(WITHOUT_VALIDATION, "name=main") == 0
    assert_same_networks("thread", "main")


@pytest.fixture
def spawned() -> Iterator[None]:
    """Processes are spawned, as on Windows and macOS, not forked."""
    usual = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(usual, force=True)


@pytest.mark.slow
def test_workers_that_are_spawned_read_the_same_images(workplace: Path, spawned: None) -> None:
    assert train(WITHOUT_VALIDATION, "name=alone") == 0
    assert train(WITHOUT_VALIDATION, "name=spawned", "datasets:train:num_worker_per_gpu=1") == 0
    assert_same_networks("alone", "spawned")


def test_texts_are_read_and_written_in_one_encoding_on_every_system() -> None:
    """Elsewhere than here the default is not UTF-8."""
    faults = []
    for path in (ROOT / "srflow_plugin").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not _says_encoding(node):
                faults.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:60]}")
    assert not faults


def _says_encoding(call: ast.Call) -> bool:
    """Say whether a call is none that reads or writes a text, or names the encoding."""
    assert isinstance(call.func, ast.Attribute)
    name = call.func.attr
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return True
    if name == "read_text":
        return bool(call.args)
    if name == "write_text":
        return len(call.args) > 1
    if name == "open" and call.args and isinstance(call.args[0], ast.Constant):
        return "b" in str(call.args[0].value)
    return True


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_a_name_that_no_text_can_hold_is_named_all_the_same(place: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.png")
    (place / "lr.png").rename(place / name)
    command = ["std-map", name, "-o", os.fsdecode(b"\xff.png"), "--checkpoint", "net.pth"]
    code = f"from srflow_plugin.cli.main import srflow_command\nraise SystemExit(srflow_command({command!a}))"
    done = run_python(code, cwd=place)
    assert done.returncode == 0 and "\\udcff.png is written." in done.stdout, done.stderr


@pytest.mark.parametrize(
    "text",
    [r'a: "C:\new\train"', r'a: "D:\data"', 'b: 1\na: "C:\\train" # mine', r"""a: {b: ["x", "C:\n.png"]}"""],
)
def test_paths_of_windows_in_double_quotes_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"\\ is special in double quotes; write .:\\.* in single quotes, or with /"):
        load_options(tmp_path / "a.yml")
    with pytest.raises(UserError, match=r"--force_yml a=.*is special in double quotes"):
        (tmp_path / "b.yml").write_text("a: 1", encoding="utf-8")
        load_options(tmp_path / "b.yml", [r'a="C:\new"'])


@pytest.mark.parametrize("path", [r"C:\new\train", "C:/new/train", r"\\server\share\train", r"data\train"])
def test_paths_of_windows_are_taken_as_they_are(path: str, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(f"a: {path}\nb: '{path}'\n# \"C:\\old\"\n", encoding="utf-8")
    opt = load_options(tmp_path / "a.yml", [f"path:pretrain_network_g={path}", f"c.d='{path}'"])
    assert opt == {"a": path, "b": path, "path": {"pretrain_network_g": path}, "c": {"d": path}}


@UNIX
def test_a_process_that_reads_images_ignores_what_this_system_has() -> None:
    done = run_python(
        "import signal\nfrom srflow_plugin.training.stop import STOP_SIGNALS, leave_signals_to_parent\n"
        "leave_signals_to_parent(0)\n"
        "assert all(signal.getsignal(number) is signal.SIG_IGN for number in STOP_SIGNALS)\n"
        "[signal.raise_signal(number) for number in STOP_SIGNALS]\n",
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
