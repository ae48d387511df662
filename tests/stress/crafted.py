"""Small files made to cost much or to run code: `python -m tests.stress.crafted --cases 500 --seed 0`.

Checkpoints, states and latents with one to three things in them that no program writes: tensors that claim to be
huge, of every layout and type, names, counts and containers of any kind, calls of functions, in each format. Each is
loaded, converted, resumed from or decoded in a process that may have 2 GB beyond what PyTorch takes, and has 10
seconds. It may work, or end with one line. Prints what became of each kind; exit code 1 if any was killed, took longer,
ended with a traceback or several lines, or ran code.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pickle
import queue
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as to_safetensors
from tqdm import tqdm

from srflow_plugin.applications.latents import read_latents, save_latents
from srflow_plugin.checkpoints.convert import convert
from srflow_plugin.checkpoints.fit import check_encoder_fit
from srflow_plugin.checkpoints.load import encoder_weights, load_network, read_checkpoint
from srflow_plugin.checkpoints.sealed import read_sealed
from srflow_plugin.errors import UserError
from srflow_plugin.memory import is_shortage
from srflow_plugin.training.resume import read_state, resume
from srflow_plugin.training.setup import load_run
from srflow_plugin.training.state import build_model
from tests.helpers import TINY, image_pair, make_data, small_network, train, train_model

SECONDS = 10.0
START = 120.0  # seconds for the process itself
MEMORY = 2 * 2**30
HUGE = 200_000_000
GOOD = ("works", "line")


class Called:
    """A call that a pickle asks for."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def odd_tensor(rng: random.Random) -> Any:
    """Make a tensor that no program writes there."""
    shape = [rng.choice([0, 1, 2, 3, 8, 64]) for _ in range(rng.randrange(6))]
    makers: list[Callable[[], Any]] = [
        lambda: torch.zeros(1).expand(HUGE, 3, 3, 3),
        lambda: torch.zeros(1).expand(2**20, 2**20),
        lambda: torch.zeros(HUGE, 0, 3, 3),
        lambda: torch.zeros(0, 2**31, 2**20),
        lambda: torch.zeros(HUGE, HUGE, device="meta"),
        lambda: torch.sparse_coo_tensor(torch.zeros(1, 1), [1.0], (HUGE,)),
        lambda: torch.eye(3).to_sparse_csr(),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        lambda: torch.full(shape, rng.choice([float("nan"), float("inf"), 1e30, -1.0, 0.0])),
        lambda: torch.zeros(shape, dtype=rng.choice([torch.int8, torch.int64, torch.bool, torch.uint8])),
        lambda: torch.zeros(shape, dtype=rng.choice([torch.complex64, torch.float64, torch.bfloat16, torch.half])),
        lambda: torch.zeros([*shape, 2, 3]).transpose(-1, -2),
        lambda: torch.nn.Parameter(torch.zeros(shape)),
        lambda: torch.zeros(9999)[: rng.randrange(9999)],
    ]
    return rng.choice(makers)()


def odd_value(rng: random.Random) -> Any:
    """Make something that is no tensor."""
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    wide: list[Any] = [0]
    for _ in range(40):
        wide = [wide, wide]
    return rng.choice(
        [
            None, True, -1, 5, 2**62, 10**400, 1.5, float("nan"), "text", "a\nb\x1b[31m", b"bytes", "x" * 10**5, (),
            [1], {}, {"a": 1}, {1: 2}, OrderedDict(a=1), Counter("aab"), {1, 2}, 1j, torch.Size([HUGE, HUGE]),
            torch.float32, deep, wide, np.float64(1), np.zeros(9), torch.device("cuda:7"),
            Called(Path.touch, Path("it_ran")), Called(os.system, "touch it_ran"), Called(bytearray, 3 * 10**9),
            Called(torch.Tensor, 2**20, 2**20), Called(torch.UntypedStorage, 2**40),
            Called(np.float64(0).__reduce__()[0], Called(np.dtype, "V2000000000")),
        ]
    )  # fmt: skip


NAMES = ("encoder.body.{}.rdb1.conv1.weight", "flow.levels.{}.bijections.3.x", "flow.levels.0.bijections.{}.x",
         "encoder.upconvs.{}.weight", "settings.{}", "body.{}.x", "model.{}.weight", "a\n{}\x1b[31m", "{}xx" * 10**5,
         "flow.levels.0.bijections.3.bijections.3.net.{}.initialized", "unused.{}", "module.{}")  # fmt: skip


def change(content: Any, rng: random.Random) -> Any:
    """Change something somewhere."""
    holders = [*_holders(content)]
    holder = rng.choice(holders)
    keys = [*holder] if isinstance(holder, dict) else [*range(len(holder))]
    kind = rng.randrange(8)
    if kind == 0 and isinstance(holder, dict):
        name, count = rng.choice(NAMES), rng.choice([1, 10, 3000])
        holder.update({name.format(number): rng.choice([torch.zeros(1), odd_tensor(rng)]) for number in range(count)})
    elif kind == 1 and isinstance(holder, dict):
        settings = [key for key in keys if str(key).startswith("settings.")] or keys
        holder.update({key: odd_tensor(rng) for key in rng.sample(settings, min(1, len(settings)))})
    elif kind == 2 and keys:
        del holder[rng.choice(keys)]
    elif kind == 3:
        return {rng.choice(["params", "params_ema", "state_dict", "unused", "x"]): content}
    elif kind == 4 and isinstance(holder, dict):
        holder[rng.choice(["params", "unused", "iter", "x"])] = rng.choice([holder, content, odd_value(rng)])
    elif keys:
        holder[rng.choice(keys)] = rng.choice([odd_tensor, odd_tensor, odd_value])(rng)
    return content


def _holders(content: Any) -> Iterator[Any]:
    """List dictionaries and lists, each once."""
    left, seen = [content], set()
    while left:
        holder = left.pop()
        if isinstance(holder, dict | list) and id(holder) not in seen:
            seen.add(id(holder))
            yield holder
            left += [*holder.values()] if isinstance(holder, dict) else holder


def written(content: Any, rng: random.Random) -> bytes:
    """Write contents in one of the formats, or in none."""
    buffer = io.BytesIO()
    how = rng.randrange(12)
    if how == 0:
        torch.save(content, buffer, _use_new_zipfile_serialization=False)
    elif how == 1:
        return pickle.dumps(content, protocol=rng.randint(2, 5))
    elif how == 2 and isinstance(content, dict):
        return safetensors_of(content)
    elif how == 3:
        torch.save(content, buffer)
        with zipfile.ZipFile(buffer) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])) as archive:
            for name, part in members.items():
                archive.writestr(name, part + bytes(10**8 * (name.endswith("data/0"))))
    elif how == 4:
        lies = {"a": {"dtype": "F32", "shape": [HUGE, 0, 2**40], "data_offsets": [0, rng.choice([0, 2**62])]}}
        header = json.dumps(lies).encode()
        return len(header).to_bytes(8, "little") + header
    else:
        torch.save(content, buffer)
    return buffer.getvalue()


def safetensors_of(content: dict[Any, Any]) -> bytes:
    weights = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if any(value.numel() > 10**7 for value in weights.values()):
        raise ValueError("this would be no small file")
    return to_safetensors({key: value.contiguous() for key, value in weights.items()})


def make_template(folder: Path) -> None:
    """Make a working folder with an option file, its data, a whole checkpoint, state and latents."""
    folder.mkdir()
    shutil.copy(TINY, folder)
    network = small_network()
    before = Path.cwd()
    os.chdir(folder)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        make_data(Path(), width=52, height=44)
        train("val=none", "train:total_iter=2")
        torch.save({"params": network.state_dict()}, "net.pth")
        gt, lq = image_pair(4, 6, 4)
        save_latents("latents", network.encode(gt, lq)[0], lq)
    os.chdir(before)


def make_case(template: Path, path: Path, kind: str, rng: random.Random) -> None:
    """Write the file of a case; what cannot be written at all is changed anew."""
    while True:
        source = {"checkpoint": "net.pth", "state": "experiments/tiny/training_states/2.state"}.get(kind)
        if source:
            content = torch.load(template / source, weights_only=True)
            content = content["params"] if kind == "checkpoint" and rng.random() < 0.5 else content
        else:
            content = read_sealed(template / "latents")[0]
        try:
            for _ in range(rng.randint(1, 3)):
                content = change(content, rng)
            if kind == "latents":
                path.write_bytes(safetensors_of(content))
            else:
                path.write_bytes(written(content, rng))
        except Exception:
            continue
        if path.stat().st_size < 20 * 10**6:
            return


# -- the process that reads --------------------------------------------------------------------------------------------


def uses(path: Path, kind: str) -> list[Callable[[], object]]:
    """List what people would do with a file."""
    if kind == "checkpoint":
        _, lq = image_pair(4, 4, 4)
        return [
            lambda: load_network(path).sample(lq, 0),
            lambda: convert(path, Path("out.pth"), storage="half", overwrite=True),
            lambda: convert(path, Path("out.safetensors"), storage="compact", overwrite=True),
            lambda: check_encoder_fit(encoder_weights(read_checkpoint(path)), small_network().encoder, "it"),
        ]
    if kind == "state":
        return [lambda: go_on(path)]
    return [lambda: decode(path)]


def go_on(path: Path) -> None:
    model = build_model(load_run("tiny.yml", is_train=True, force=["val=none"]).opt)
    resume(model, read_state(path), path)
    train_model(model, 1, 2)


def decode(path: Path) -> None:
    network = small_network()
    latents, lq = read_latents(path, network)
    with torch.no_grad():
        network.decode([latent.float() for latent in latents], lq.float())


def read_files(folder: Path) -> None:
    """Read the files that are named on the standard input; answer each with what became of it."""
    os.chdir(folder)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    go_on(Path("experiments/tiny/training_states/2.state").absolute())  # imports whatever is needed
    resource.setrlimit(resource.RLIMIT_DATA, (_data() + MEMORY, resource.RLIM_INFINITY))
    answers = sys.stdout
    for line in sys.stdin:
        kind, path = line.split()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            outcomes = [outcome(use) for use in uses(Path(path), kind)]
        bad = [one for one in outcomes if one not in GOOD]
        ran = ["EXECUTED"] if Path("it_ran").exists() else []
        Path("it_ran").unlink(missing_ok=True)
        answers.write(json.dumps((ran + bad + (["works"] if "works" in outcomes else ["line"]))[0]) + "\n")
        answers.flush()


def _data() -> int:
    """Read how much memory of its own this process has, in bytes."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in text.splitlines() if line.startswith("VmData")).split()[1])


def outcome(use: Callable[[], object]) -> str:
    try:
        use()
    except UserError as error:
        text = str(error)
        return "line" if text.isprintable() and len(text) < 1000 else f"LINES {text[:300]!r}"
    except (MemoryError, RuntimeError) as error:  # which commands answer with a line
        return "line" if is_shortage(error) else "TRACEBACK " + traceback.format_exc()[-700:]
    except Exception:
        return "TRACEBACK " + traceback.format_exc()[-700:]
    return "works"


class Reader:
    """Process that reads files, with a watchdog; started anew where it was killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def ask(self, kind: str, path: Path) -> str:
        """Say what becomes of a file."""
        first = self.process is None
        if self.process is None:
            command = [sys.executable, "-m", "tests.stress.crafted", "--read", str(self.folder)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.answers: queue.Queue[str] = queue.Queue()
            threading.Thread(target=self._listen, args=(self.process, self.answers), daemon=True).start()
        assert self.process.stdin
        self.process.stdin.write(f"{kind} {path}\n")
        self.process.stdin.flush()
        try:
            answer = self.answers.get(timeout=SECONDS + START * first)
        except queue.Empty:
            answer = "SLOW"
        if answer in ("", "SLOW"):
            self.close()
            return answer or "KILLED"
        return str(json.loads(answer))

    def close(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            answers.put(line)
        answers.put("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read_files(args.read)
        return
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (_data() + MEMORY, resource.RLIM_INFINITY))  # for writing them, too
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as parent:
        template = Path(parent) / "template"
        make_template(template)
        reader = Reader(template)
        for number in tqdm(range(args.cases), unit="case"):
            rng = random.Random(f"{args.seed} {number}")
            kind = ("checkpoint", "state", "latents")[number % 3]
            path = Path(parent) / f"{number}.file"
            make_case(template, path, kind, rng)
            became = reader.ask(kind, path)
            path.unlink()
            counts[kind, became.split()[0]] += 1
            if became not in GOOD:
                tqdm.write(f"case {number} ({kind}): {became}", file=sys.stderr)
        reader.close()
    for (kind, became), count in sorted(counts.items()):
        sys.stdout.write(f"{kind:12}{became:10}{count:6}\n")
    bad = sum(count for (_, became), count in counts.items() if became not in GOOD)
    sys.stdout.write(f"{bad} of {args.cases} bad\n")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
