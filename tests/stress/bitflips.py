"""One flipped bit in checkpoints, states and latents: `python -m tests.stress.bitflips --flips 200 --seed 0`.

Each flip is at a random place of a whole file. It is found (one line), or harmless (all that is read is the same, to
the bit); prints how many of each kind of file are what, and exits with 1 if any was missed or ended otherwise.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from srflow_plugin.applications.latents import read_latents, save_latents
from srflow_plugin.checkpoints.convert import convert
from srflow_plugin.checkpoints.load import read_checkpoint
from srflow_plugin.errors import UserError
from srflow_plugin.files import save_atomically
from srflow_plugin.training.resume import read_state
from tests.helpers import image_pair, small_network

Read = Callable[[Path], Any]
OUTCOMES = ("found", "harmless", "MISSED", "TRACEBACK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=200, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = {kind: flipped(path, read, args.flips, args.seed) for kind, path, read in whole_files(Path(folder))}
    sys.stdout.write(f"{'':14}" + "".join(f"{outcome:>11}" for outcome in OUTCOMES) + "\n")
    for kind, of_kind in counts.items():
        sys.stdout.write(f"{kind:14}" + "".join(f"{of_kind[outcome]:11}" for outcome in OUTCOMES) + "\n")
    sys.exit(any(of_kind["MISSED"] + of_kind["TRACEBACK"] for of_kind in counts.values()))


def whole_files(folder: Path) -> list[tuple[str, Path, Read]]:
    """Write a file of each kind, as the commands do."""
    network = small_network()
    save_atomically({"params": network.state_dict(), "params_ema": network.state_dict()}, folder / "net.pth")
    convert(folder / "net.pth", folder / "net.safetensors", storage="compact")
    optimizer = torch.optim.Adam(network.parameters())
    gt, lq = image_pair(4, 6, 4)
    network(gt, lq).mean().backward()
    optimizer.step()
    state = {"epoch": 1, "iter": 5, "optimizers": [optimizer.state_dict()], "schedulers": [], "samples": 10}
    save_atomically(state, folder / "5.state")
    with torch.no_grad():
        save_latents(folder / "latents", network.encode(gt, lq)[0], lq, network, "net.pth")
    return [
        (".pth", folder / "net.pth", read_checkpoint),
        (".safetensors", folder / "net.safetensors", read_checkpoint),
        (".state", folder / "5.state", read_state),
        ("latents", folder / "latents", lambda path: read_latents(path, network)),
    ]


def flipped(path: Path, read: Read, flips: int, seed: int) -> Counter[str]:
    """Flip one bit after the other, each in the whole file, and count what becomes of it."""
    whole, content = path.read_bytes(), read(path)
    rng, counts = random.Random(seed), Counter[str]()
    for _ in tqdm(range(flips), unit="flip", desc=path.name):
        place, bit = rng.randrange(len(whole)), rng.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        try:
            outcome = "harmless" if are_same(read(path), content) else "MISSED"
        except UserError as error:
            outcome = "found" if "\n" not in str(error) else "TRACEBACK"
        except Exception as error:
            outcome = "TRACEBACK"
            tqdm.write(f"byte {place}, bit {bit}: {error!r}", file=sys.stderr)
        if outcome == "MISSED":
            tqdm.write(f"{path.name}: byte {place}, bit {bit} was missed", file=sys.stderr)
        counts[outcome] += 1
    path.write_bytes(whole)
    return counts


def are_same(one: Any, other: Any) -> bool:
    """Compare what was read, to the bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        as_bytes = [value.contiguous().reshape(-1).view(torch.uint8) for value in (one, other)]
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*as_bytes)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(are_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(are_same, one, other))
    return bool(one == other)


if __name__ == "__main__":
    main()
