"""Time and memory of enlarging one image by four, side by side: what a user would pick instead, and this project.

    python -m benchmarks.peers FOLDER [--size 64] [--rounds 3] [--device cpu] [--only PART ...] [--page PAGE]

Writes FOLDER/peers.json, peers.md (tables) and peers.png, of all parts measured there so far: a run with ``--only``
adds to those of the same machine and settings, and replaces the others. Parts: "networks" and "memory" at an LR image
of ``--size`` a side, and how seconds grow with "pixels" (half, once, twice that side), "samples" (1 to 10), "steps" (K)
and "threads" (CPUs only). All networks have their released sizes (BasicSR's option files) and random weights.
Contestants of a part take turns, round by round; figures are medians over rounds. Memory is the peak of a process of
its own in two calls; on a GPU, of what PyTorch has allocated there. ``--page docs/results/speed.md`` puts the tables
there, in place of those between its two comments, and the figure beside its others; ``--only`` with no part does that
alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import torch
from torch import Tensor, nn

from benchmarks._measure import (
    UNIT,
    Times,
    machine,
    make_network,
    of_own_process,
    peak,
    plain_sample,
    ratios,
    replace_between,
    rrdbnet,
    take_turns,
)
from srflow_plugin.images.resize import bicubic_upscale

# isort: split
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.srresnet_arch import MSRResNet
from basicsr.archs.swinir_arch import SwinIR

mpl.use("Agg")
import matplotlib.pyplot as plt

SWINIR = {"upscale": 4, "window_size": 8, "mlp_ratio": 2}
SWINIR_CLASSICAL = {"embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6, "upsampler": "pixelshuffle"}
SWINIR_LIGHT = {"embed_dim": 60, "depths": [6] * 4, "num_heads": [6] * 4, "upsampler": "pixelshuffledirect"}
STEP = 16  # LR sides are multiples: half of one is a multiple of SwinIR's windows
AXES = {
    "pixels": "LR side, pixels",
    "samples": "samples of one image",
    "steps": "K, flow steps a level",
    "threads": "threads",
}
PARTS = ("networks", "memory", *AXES)
MARKS = "<!-- tables of benchmarks/peers.py -->", "<!-- end -->"
NOTHING = "the loaded libraries alone"
Figures = dict[str, dict[str, list[float]]]  # of a contestant, by what grows: seconds of the rounds


class Drawing(nn.Module):
    """Network behind the call that draws images of an LR image with it."""

    def __init__(self, network: nn.Module, call: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, lq: Tensor) -> Tensor:
        return self.call(self.network, lq)


class Peer(NamedTuple):
    """One contestant: makes a network, which draws so many images in one call."""

    make: Callable[[], nn.Module]
    images: int = 1
    autocast: bool = False

    def on(self, device: str, side: int) -> Callable[[], object]:
        """Make the call that is timed."""
        network, lq = self.make().to(device).eval(), torch.rand(1, 3, side, side, device=device)

        def draw() -> None:
            with torch.no_grad(), torch.autocast(device, torch.bfloat16) if self.autocast else nullcontext():
                network(lq)

        return draw


def bicubic() -> nn.Module:
    return Drawing(nn.Identity(), lambda _, lq: bicubic_upscale(lq, 4))


def plain(**settings: Any) -> nn.Module:
    return Drawing(make_network(**settings), plain_sample)


def ours(precision: str, count: int, **settings: Any) -> nn.Module:
    return Drawing(make_network(precision=precision, **settings), lambda net, lq: net.sample(lq, 0.8, count))


def samples(precision: str, count: int, **settings: Any) -> Peer:
    return Peer(partial(ours, precision, count, **settings), count)


PEERS = {
    "bicubic": Peer(bicubic),
    "MSRResNet": Peer(partial(MSRResNet, 3, 3)),
    "EDSR": Peer(partial(EDSR, 3, 3, num_feat=256, num_block=32, res_scale=0.1)),
    UNIT: Peer(rrdbnet),
    f"{UNIT}, bfloat16": Peer(rrdbnet, autocast=True),
    "SwinIR, light": Peer(partial(SwinIR, **SWINIR, **SWINIR_LIGHT)),
    "SwinIR": Peer(partial(SwinIR, **SWINIR, **SWINIR_CLASSICAL)),
    "SwinIR, bfloat16": Peer(partial(SwinIR, **SWINIR, **SWINIR_CLASSICAL), autocast=True),
    "our plain layers, 1 sample": Peer(plain),
    **{
        f"ours, {precision}, {count} sample{'s' * (count > 1)}": samples(precision, count)
        for precision in ("float32", "bfloat16")
        for count in (1, 10)
    },
}
GROWING = (UNIT, "SwinIR", "our plain layers, 1 sample", "ours, float32, 1 sample", "ours, bfloat16, 1 sample")


def contestants(part: str, size: int, device: str) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """List the calls of a part: name, what grows, call."""
    if part == "networks":
        yield from ((name, str(size), peer.on(device, size)) for name, peer in PEERS.items())
    if part == "pixels":
        for name in GROWING:
            yield from ((name, str(side), PEERS[name].on(device, side)) for side in (size // 2, size, 2 * size))
    if part == "samples":
        for precision in ("float32", "bfloat16"):
            for count in (1, 2, 5, 10):
                yield f"ours, {precision}", str(count), samples(precision, count).on(device, size)
    if part == "steps":
        for steps in (4, 8, 16):
            yield "our plain layers, 1 sample", str(steps), Peer(partial(plain, num_steps=steps)).on(device, size)
            for precision in ("float32", "bfloat16"):
                peer = samples(precision, 1, num_steps=steps)
                yield f"ours, {precision}, 1 sample", str(steps), peer.on(device, size)
    if part == "threads" and device == "cpu":
        count = torch.get_num_threads()
        for name in GROWING:
            call = PEERS[name].on(device, size)
            for threads in sorted({1, *(2**power for power in range(1, 8) if 2**power < count), count}):
                yield name, str(threads), partial(with_threads, threads, call)


def with_threads(threads: int, call: Callable[[], object]) -> None:
    """Call with another number of threads; setting it takes no time worth mentioning."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    call()
    torch.set_num_threads(before)


def timed(part: str, size: int, rounds: int, device: str) -> Figures:
    """Let the contestants of a part take turns."""
    calls = {f"{name} @ {x}": call for name, x, call in contestants(part, size, device)}
    figures: Figures = {}
    for key, seconds in take_turns(calls, rounds, device).items():
        name, x = key.split(" @ ")
        figures.setdefault(name, {})[x] = seconds
    return figures


def peak_of(name: str, size: int, device: str) -> float:
    """GB at most in two calls, here."""
    if name != NOTHING:
        call = PEERS[name].on(device, size)
        call()
        call()
    return peak(device)


def memory(size: int, device: str) -> dict[str, float]:
    """GB that each contestant takes, in a process of its own."""
    options = ["-", "--size", str(size), "--device", device, "--peak-of"]
    return {name: of_own_process("benchmarks.peers", *options, name) for name in (NOTHING, *PEERS)}


# -- what is shown of it -----------------------------------------------------------------------------------------------


def median(figures: Figures, name: str, x: str) -> float:
    return statistics.median(figures[name][x])


def main_table(networks: Figures, gigabytes: dict[str, float]) -> str:
    """Make the table of all networks at one size."""
    times: Times = {name: next(iter(by_size.values())) for name, by_size in networks.items()}
    lines = [
        f"| | seconds | {UNIT} = 1 (smallest - largest) | images | seconds per image | peak memory, GB |",
        "|---|---|---|---|---|---|",
    ]
    for name, (middle, low, high) in ratios(times).items():
        seconds, images = statistics.median(times[name]), PEERS[name].images
        memory = f"{gigabytes[name]:.2f}" if name in gigabytes else ""
        lines.append(
            f"| {name} | {seconds:.3f} | {middle:.2f} ({low:.2f} - {high:.2f}) | {images} | {seconds / images:.3f} "
            f"| {memory} |"
        )
    if NOTHING in gigabytes:
        lines.append(f"| {NOTHING} | | | | | {gigabytes[NOTHING]:.2f} |")
    return "\n".join(lines) + "\n"


def growth_table(part: str, figures: Figures) -> str:
    """Make the table of a part: seconds by what grows."""
    xs = list(next(iter(figures.values())))
    lines = [f"| seconds; {AXES[part]} | {' | '.join(xs)} |", "|---" * (1 + len(xs)) + "|"]
    for name in figures:
        lines.append(f"| {name} | {' | '.join(f'{median(figures, name, x):.2f}' for x in xs)} |")
    return "\n".join(lines) + "\n"


def tables(results: dict[str, Any]) -> str:
    """Make the tables of what has been measured."""
    texts = []
    if "networks" in results:
        texts.append(main_table(results["networks"], results.get("memory", {})))
    texts += [growth_table(part, results[part]) for part in AXES if results.get(part)]
    return "\n".join(texts)


def bars(axes: Any, title: str, values: dict[str, float], scale: str) -> None:
    colours = ["tab:orange" if name.startswith("our") else "tab:blue" for name in values]
    drawn = axes.barh(list(values), list(values.values()), color=colours)
    axes.bar_label(drawn, fmt="%.3g", padding=2, fontsize=8)
    axes.set(title=title, xscale=scale)
    axes.margins(x=0.15)
    axes.invert_yaxis()


def curves(axes: Any, label: str, figures: Figures, scale: str) -> None:
    for name, by_x in figures.items():
        xs = [int(x) for x in by_x]
        style = {"ls": "-" if name.startswith("our") else "--", "marker": "o", "ms": 3}
        axes.plot(xs, [median(figures, name, x) for x in by_x], label=name, **style)
        axes.set(xlabel=label, ylabel="seconds", xscale=scale, yscale=scale)
        axes.set_xticks(xs, [str(x) for x in xs])
    if not figures:
        axes.set_axis_off()
        return
    axes.minorticks_off()
    axes.legend(fontsize=7)
    if scale == "linear":
        axes.set_ylim(bottom=0)


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw all that has been measured."""
    figure, places = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
    if "networks" in results:
        size = str(results["settings"]["size"])
        per_image = {name: median(results["networks"], name, size) / PEERS[name].images for name in results["networks"]}
        bars(places[0, 0], f"seconds per image, {size}x{size} x4", per_image, "log")
    if "memory" in results:
        bars(places[1, 0], "peak memory, GB", results["memory"], "linear")
    for (part, label), axes in zip(AXES.items(), places[:, 1:].flat, strict=True):
        curves(axes, label, results.get(part, {}), "log" if part == "pixels" else "linear")
    figure.savefig(path, dpi=75)


def put_on_page(page: Path, results: dict[str, Any]) -> None:
    """Replace the tables that stand on a page between :data:`MARKS`, and its figure."""
    replace_between(page, MARKS, tables(results))
    plot(results, page.parent / "pictures" / "peers.png")


def measure(parts: list[str], size: int, rounds: int, device: str, folder: Path) -> dict[str, Any]:
    """Measure parts, and write each as soon as it is done beside those that are there."""
    file = folder / "peers.json"
    settings = {"machine": machine(device), "size": size}
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if results.get("settings") != settings:
        results = {"settings": settings}
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        fewer = max(1, rounds - (part == "pixels"))  # whose large images take most of the time
        results[part] = memory(size, device) if part == "memory" else timed(part, size, fewer, device)
        file.write_text(json.dumps(results, indent=1))
        (folder / "peers.md").write_text(tables(results))
        plot(results, folder / "peers.png")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--size", type=int, default=64, help=f"side of the LR image, a multiple of {STEP}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--page", type=Path, help="documentation that the tables and the figure belong to")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.size < STEP or args.size % STEP:
        parser.error(f"--size must be a multiple of {STEP}, not {args.size}")
    if args.peak_of:
        sys.stdout.write(f"{peak_of(args.peak_of, args.size, args.device)}\n")
        return
    results = measure(args.only, args.size, args.rounds, args.device, args.folder)
    if args.page:
        put_on_page(args.page, results)
    sys.stdout.write(f"{results['settings']}\n\n{tables(results)}")


if __name__ == "__main__":
    main()
