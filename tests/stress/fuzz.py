"""Broken option files, checkpoints, images and LMDBs: `python -m tests.stress.fuzz --cases 2000 --seed 0`.

Every case either works or ends with code 2 and one line, in a process of its own, and writes nothing outside its
working folder. Prints what each kind of case came to, and the output of the bad ones; exit code 1 if there are any.

`--kinds hostile --cases 1500`: files and names made to do harm (tests/stress/hostile.py). These must also end within
10 seconds and 2 GB, start no other program, and print nothing that a terminal would obey.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import torch
import yaml
from tqdm import tqdm

from srflow_plugin import SRFlowNet
from srflow_plugin.cli.main import basicsr_command, srflow_command
from srflow_plugin.data.checked import read_bgr
from tests.helpers import TINY, make_data
from tests.stress.hostile import HOSTILE, is_obeyed, traps

HOSTILE_SECONDS, HOSTILE_GIB = 10, 2
SECONDS = 60  # for one case; one that still runs then counts as working
MEMORY = 12 * 2**30
VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 7, 16, 100, 0.0, 0.5, -2.5, 1e300, float("nan"), float("inf"), "", "text",
    "../up", "/tmp/up", "a/b", "..", "5e-4", "\0", "é", [], [0], [1, 2], [-1.0, 0.5], ["a"], [[1]], {}, {"t": 1},
]  # fmt: skip
Case = Callable[[random.Random], int | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case alone and show its output")
    parser.add_argument("--kinds", choices=["broken", "hostile", *HOSTILE], default="broken")
    args = parser.parse_args()
    kinds = CASES if args.kinds == "broken" else HOSTILE
    kinds = {args.kinds: kinds[args.kinds]} if args.kinds in HOSTILE else kinds
    torch.set_num_threads(1)
    cv2.utils.logging.setLogLevel(0)
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template"
        make_template(template)
        cases = range(args.cases) if args.only is None else [args.only]
        for number in tqdm(cases, unit="case", disable=args.only is not None):
            kind, case = list(kinds.items())[number % len(kinds)]
            outcome, output = run_case(case, Path(folder) / "case", template, f"{args.seed} {number}")
            counts[kind, outcome] += 1
            if outcome == "BAD" or args.only is not None:
                sys.stdout.write(f"case {number} ({kind}), {outcome}:\n{output}\n")
    for (kind, outcome), count in sorted(counts.items()):
        sys.stdout.write(f"{kind:14} {outcome:9} {count}\n")
    sys.exit(any(outcome == "BAD" for _, outcome in counts))


def make_template(folder: Path) -> None:
    """Make a working folder in which everything works: tiny.yml, its LMDBs, folders of pairs, and a checkpoint."""
    folder.mkdir()
    shutil.copy(TINY, folder)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        make_data(folder, width=24, height=20)
    (folder / "small").mkdir()
    for path in (folder / "images" / "train").iterdir():
        cv2.imwrite(str(folder / "small" / path.name), cv2.resize(cv2.imread(str(path)), (6, 5)))
    opt = yaml.safe_load((folder / "tiny.yml").read_text())
    opt["logger"]["use_tb_logger"] = False
    opt["train"]["optim_g"]["lr"] = 1e-3
    (folder / "tiny.yml").write_text(yaml.safe_dump(opt))
    network = SRFlowNet(**{key: value for key, value in opt["network_g"].items() if key != "type"})
    torch.save({"params": network.state_dict(), "params_ema": network.state_dict()}, folder / "net.pth")


def run_case(case: Case, folder: Path, template: Path, seed: str) -> tuple[str, str]:
    """Run a case in a copy of the template and a process of its own; what came of it, and what it printed."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder / "work")
    log, is_hostile, start = folder.with_suffix(".log"), case in HOSTILE.values(), time.monotonic()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.chdir(folder / "work")
            if is_hostile:
                traps(folder)
            stream = log.open("w")
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            sys.stdout = sys.stderr = stream
            import resource  # which Windows has not

            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            signal.alarm(SECONDS)
            code = case(random.Random(seed)) or 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status, used = os.wait4(process, 0)
    output = log.read_text(errors="replace")
    seconds, gib = time.monotonic() - start, used.ru_maxrss / 2**20
    told = output + "".join(file.read_text(errors="replace") for file in folder.glob("work/experiments/*/*.log"))
    if is_hostile and (seconds > HOSTILE_SECONDS or gib > HOSTILE_GIB or is_obeyed(told)):
        return "BAD", f"{output[-3000:]!r}\n{seconds:.1f} s, {gib:.1f} GiB"
    lines = [
        line
        for line in output.splitlines()
        if re.match(r"(basicsr|srflow)( \w+)?: error: |tiny\.yml(: |, line )", line)
    ]
    outside = [path.name for path in folder.iterdir() if path.name != "work"]
    code = os.waitstatus_to_exitcode(status)
    if outside or "Traceback" in output:
        return "BAD", f"{output}\noutside: {outside}"
    if code in (0, -signal.SIGALRM):
        return "works", output
    if code == 2 and len(lines) == 1:
        return "one line", output
    if code == 1 and "stopped: " in output:  # the loss is not finite, and the line says so
        return "stopped", output
    return "BAD", f"{output}\nexit code {code}"


def train(*entries: str) -> int:
    return basicsr_command(["train", "-opt", "tiny.yml", *(["--force_yml", *entries] if entries else [])])


def broken_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flipped, cut, doubled or emptied."""
    broken = bytearray(data)
    how = rng.choice(["flip", "flip", "flip", "cut", "insert", "empty", "zero"])
    place = rng.randrange(len(broken))
    if how == "flip":
        for _ in range(rng.choice([1, 3, 30])):
            broken[rng.randrange(rng.choice([len(broken), min(100, len(broken))]))] ^= rng.randrange(1, 256)
    elif how == "cut":
        del broken[place:]
    elif how == "insert":
        broken[place:place] = rng.randbytes(rng.choice([1, 50]))
    elif how == "empty":
        broken.clear()
    else:
        broken[place : place + 64] = bytes(len(broken[place : place + 64]))
    return bytes(broken)


# -- the kinds of cases ------------------------------------------------------------------------------------------------


def option_file(rng: random.Random) -> int:
    """One to three keys deleted, renamed, added, or with another value; or a file that is not YAML."""
    path = Path("tiny.yml")
    if rng.random() < 0.1:
        path.write_bytes(broken_bytes(path.read_bytes(), rng))
        return train()
    opt = yaml.safe_load(path.read_text())
    for _ in range(rng.choice([1, 1, 2, 3])):
        section, key = rng.choice(list(leaves(opt)))
        how = rng.choice(["value", "value", "value", "delete", "rename", "add"])
        if how == "value":
            section[key] = rng.choice(VALUES)
        elif how == "delete":
            del section[key]
        elif how == "rename":
            section[str(key)[:-1] + rng.choice("xs_")] = section.pop(key)
        else:
            section[rng.choice(["extra", "type", "scale", "name", "lr", 5, None])] = rng.choice(VALUES)
    path.write_text(yaml.safe_dump(opt))
    return train()


def leaves(section: dict[Any, Any]) -> Any:
    for key, value in section.items():
        yield section, key
        if isinstance(value, dict):
            yield from leaves(value)


def forced_option(rng: random.Random) -> int:
    """--force_yml with odd keys and values."""
    opt = yaml.safe_load(Path("tiny.yml").read_text())
    paths = [":".join(map(str, path)) for path in key_paths(opt)]
    keys = [rng.choice([rng.choice(paths), rng.choice(paths) + ":more", "", ":", "val:metrics:psnr"]) for _ in range(2)]
    odd = [*map(str, VALUES), "[", "{a: ", "!!python/object:os.system x", "&a [*a]"]
    separator = rng.choice(["=", "=", "=", "", "=="])
    return train(*(f"{key}{separator}{rng.choice(odd)}".replace("\0", "") for key in keys))


def key_paths(section: dict[Any, Any], prefix: tuple[Any, ...] = ()) -> Any:
    for key, value in section.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from key_paths(value, (*prefix, key))


def checkpoint(rng: random.Random) -> int:
    """Bytes broken, or tensors missing, renamed, of other shapes and types, not finite; or code in a pickle."""
    path = Path("net.pth")
    how = rng.choice(["bytes", "bytes", "tensors", "tensors", "objects"])
    if how == "bytes":
        path.write_bytes(broken_bytes(path.read_bytes(), rng))
    elif how == "tensors":
        state = torch.load(path, weights_only=True)
        weights = state["params"]
        for key in rng.sample(sorted(weights), rng.choice([1, 2, 10])):
            change = rng.choice(["delete", "rename", "shape", "type", "nan", "extra", "number"])
            if change in ("delete", "rename"):
                value = weights.pop(key)
                if change == "rename":
                    weights[key + "x"] = value
            elif change == "extra":
                weights["extra." + key] = torch.zeros(3)
            else:
                weights[key] = {
                    "shape": torch.zeros(rng.choices([0, 1, 3, 8], k=rng.randrange(5))),
                    "type": weights[key].to(rng.choice([torch.float16, torch.float64, torch.int64, torch.bool])),
                    "nan": torch.full_like(weights[key].float(), torch.nan),
                    "number": 5,
                }[change]
        torch.save(rng.choice([state, weights, {"params_ema": weights}, {"params": weights, "params_ema": 3}]), path)
    else:
        odd: list[Any] = [[], 5, {}, {"params": {}}, {"params": [1]}, {1: torch.zeros(2)}, torch.zeros(3), None, "text"]
        if rng.random() < 0.3:
            path.write_bytes(pickle.dumps(Evil()))
        else:
            torch.save(rng.choice([*odd, Evil()]), path)
    command = rng.randrange(3)
    if command == 0:
        return srflow_command(["convert", "net.pth", rng.choice(["out.pth", "out.safetensors"])])
    if command == 1:
        path.rename("net.safetensors")
        return srflow_command(["convert", "net.safetensors", "out.pth", "--to-released"])
    return train("path:pretrain_network_g=net.pth", f"path:param_key_g={rng.choice(['params', 'params_ema', 'x'])}")


class Evil:
    """Its pickle, when loaded, writes a file where the fuzz looks for one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch ../executed",))


def training_state(rng: random.Random) -> int:
    """A checkpoint to resume from with a broken state or network."""
    train("train:total_iter=2")
    folder = Path("experiments/tiny")
    path = rng.choice([folder / "training_states" / "2.state", folder / "models" / "net_g_2.pth"])
    if rng.random() < 0.5:
        path.write_bytes(broken_bytes(path.read_bytes(), rng))
    else:
        state = torch.load(path, weights_only=True)
        key = rng.choice(sorted(state))
        state[key] = rng.choice([None, 5, -1, "text", [], {}, [{}], torch.zeros(2)])
        if rng.random() < 0.3:
            del state[key]
        torch.save(state, path)
    entries = ["train:total_iter=3"]
    if rng.random() < 0.5:
        return train(*entries, "path:resume_state=experiments/tiny/training_states/2.state", "name=again")
    return basicsr_command(["train", "-opt", "tiny.yml", "--auto_resume", "--force_yml", *entries])


def image(rng: random.Random) -> int:
    """An image file with broken bytes, of another kind, or with an odd name."""
    folder = Path(rng.choice(["images/train", "small"]))
    path = folder / "1.png"
    picture = read_bgr(path)
    variants: list[np.ndarray] = [
        picture,
        picture[..., 0],
        np.dstack([picture, picture[..., :1]]),
        picture.astype(np.uint16) * 257,
        picture[:1, :1],
        picture[:, :3],
        np.zeros((8, 4000, 3), np.uint8),
    ]
    ending = rng.choice([".png", ".png", ".jpg", ".bmp", ".tif", ".webp"])
    chosen = rng.choice(variants)
    if chosen.dtype == np.uint16 and ending not in (".png", ".tif"):
        ending = ".png"
    data = cv2.imencode(ending, chosen)[1].tobytes()
    path.write_bytes(broken_bytes(data, rng) if rng.random() < 0.7 else data)
    if rng.random() < 0.2:
        name = rng.choice(["é.png", "a.b.png", "..png", "-x.png", " .png", "0 .png"])
        path = path.rename(folder / name)
    if rng.random() < 0.4:
        return srflow_command(["prepare", str(folder), "-o", "out/x", *rng.choice([[], ["--crop-size", "8"]])])
    folders = ["datasets:train:dataroot_gt=images/train", "datasets:train:dataroot_lq=small"]
    skip = f"datasets:train:skip_bad_images={rng.choice(['true', 'false'])}"
    return train(*folders, "datasets:train:io_backend:type=disk", skip, "datasets:train:gt_size=16")


def lmdb_pair(rng: random.Random) -> int:
    """An LMDB with a broken file, a stale list, a missing or broken image, or an odd key."""
    folder = Path(f"data/{rng.choice(['train', 'val'])}_{rng.choice(['HR', 'LRx4'])}.lmdb")
    how = rng.choice(["list", "file", "missing", "value", "value", "key", "cut"])
    if how == "list":
        lines = (folder / "meta_info.txt").read_text()
        odd = ["", "x\n", 2 * lines, lines[:-9], lines.replace("(", "["), "../../up.png (20,24,3) 1\n", "0 1 2\n"]
        (folder / "meta_info.txt").write_text(rng.choice(odd))
        if rng.random() < 0.3:
            (folder / "meta_info.txt").write_bytes(broken_bytes(lines.encode(), rng))
    elif how == "file":
        (folder / rng.choice(["data.mdb", "lock.mdb", "meta_info.txt"])).unlink()
    elif how == "cut":
        data = (folder / "data.mdb").read_bytes()
        (folder / "data.mdb").write_bytes(data[: rng.choice([0, 1, 100, 4096, 5000, len(data) // 2])])
    else:
        with lmdb.open(str(folder)) as database, database.begin(write=True) as transaction:
            value = transaction.pop(b"0") or b""
            if how == "value":
                transaction.put(b"0", broken_bytes(value, rng))
            elif how == "key":
                transaction.put(rng.choice([b"../../up", b"\xff", b"0.png"]), value)
    return train()


CASES: dict[str, Case] = {
    "option file": option_file,
    "image": image,
    "checkpoint": checkpoint,
    "forced": forced_option,
    "LMDB": lmdb_pair,
    "option file 2": option_file,
    "state": training_state,
}

if __name__ == "__main__":
    main()
