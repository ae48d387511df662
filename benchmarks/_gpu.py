"""Parts of benchmarks/gpu.py: each makes the rows of a table."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks._measure import (
    TRAININGS,
    UNIT,
    machine,
    make_network,
    ratios,
    rrdb_sizes,
    rrdbnet,
    take_turns,
    training_step,
    wait,
)
from benchmarks.exactness import compared_with_float64, errors
from srflow_plugin import SRFlowNet, load_network
from srflow_plugin.flow import fast
from srflow_plugin.images.resize import bicubic_upscale
from srflow_plugin.memory import is_shortage
from srflow_plugin.sampling.graphs import use_graphs
from srflow_plugin.sampling.tiling import tile_side

SHIPPED = "srflow_x4"
WANTED = ("basicsr", "matplotlib", "cv2", "lmdb", "skimage", "lpips", "triton", "pytest")
GREY_LEVELS = 255
Rows = list[list[Any]]


class Case(NamedTuple):
    """Sizes of what is measured: LR sides and patches in pixels, sizes of our networks; and the device."""

    device: str
    side: int = 160
    samples: int = 10
    patch: int = 40
    batch: int = 16
    most: int = 64  # patches of the memory's goal
    large: tuple[int, int] = (1500, 2000)
    rounds: int = 5
    sizes: dict[str, Any] = {}

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    def lq(self, side: int | None = None) -> Tensor:
        return torch.rand(1, 3, side or self.side, side or self.side, device=self.device)

    def network(self, **settings: Any) -> SRFlowNet:
        return make_network(**self.sizes, **settings).to(self.device).eval()

    def shipped(self, device: str | None = None, **settings: Any) -> SRFlowNet:
        return load_network(SHIPPED, **settings).to(device or self.device)


QUICK: dict[str, Any] = {
    **{"side": 16, "samples": 2, "patch": 8, "batch": 2, "most": 2, "large": (24, 32), "rounds": 1},
    "sizes": {
        **{"num_feat": 8, "num_grow_ch": 4, "num_block": 2, "feature_blocks": (0, 1)},
        **{"num_steps": 2, "hidden_channels": 8},
    },
}


# -- is it right -------------------------------------------------------------------------------------------------------


def the_machine(case: Case) -> Rows:
    rows: Rows = [[name, value] for name, value in machine(case.device).items()]
    if case.on_gpu:
        about = torch.cuda.get_device_properties(0)
        rows += [["memory, GB", about.total_memory / 1e9], ["CUDA, cuDNN", f"{torch.version.cuda}, {cudnn_version()}"]]
    missing = [name for name in WANTED if find_spec(name) is None]
    return [*rows, ["missing, which the parts do without", ", ".join(missing) or "nothing"]]


def cudnn_version() -> int | None:
    version: int | None = torch.backends.cudnn.version()
    return version


def pair(case: Case, side: int) -> tuple[Tensor, Tensor]:
    """Make a smooth HR image with a little noise, and its LR image."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, side // 4, side // 4, generator=generator)
    gt = bicubic_upscale(bicubic_upscale(coarse, 4), 4).clamp(0, 1)
    gt = (gt + 0.02 * torch.randn(gt.shape, generator=generator)).clamp(0, 1)
    return gt.to(case.device), nn.functional.avg_pool2d(gt, 4).to(case.device)


def exactness(case: Case) -> Rows:
    """Compare the plan with the layers that define it, precisions, directions, and the device with the CPU."""
    network, half = case.shipped(), case.shipped(precision="bfloat16")
    gt, lq = pair(case, 2 * case.patch)
    rows: Rows = [[name, error] for name, error in errors(network, half, gt, lq).items()]
    rows += [
        [name, error] for name, error in compared_with_float64(network, gt[:, :, :64, :64], lq[:, :, :16, :16]).items()
    ]
    with torch.no_grad():
        for precision in ("float32", "tf32", "bfloat16"):
            net = case.shipped(precision=precision)
            back = net.decode(net.encode(gt, lq)[0], lq)
            rows.append([f"there and back, {precision}, grey levels", GREY_LEVELS * largest(back, gt)])
        cpu, here = case.shipped("cpu"), [image.cpu() for image in (gt, lq)]
        codes = [net.code_length(*images).cpu() for net, images in ((network, (gt, lq)), (cpu, here))]
        rows.append(["code length, here against the CPU, bits per dimension", largest(*codes)])
    return rows


def largest(one: Tensor, other: Tensor) -> float:
    return float((one.cpu() - other.cpu()).abs().max())


def seeds(case: Case) -> Rows:
    """Compare pictures of one seed: the CPU's, in tiles, in other precisions, by graphs, with this device's."""
    _, lq = pair(case, case.side)
    network = case.shipped()

    def sample(net: SRFlowNet, image: Tensor = lq, **options: Any) -> Tensor:
        return net.sample(image, 0.8, 2, seed=3, **options)

    graphed = case.shipped()
    use_graphs(graphed)
    others: dict[str, Callable[[], Tensor]] = {
        "again": lambda: sample(network),
        "on the CPU": lambda: sample(case.shipped("cpu"), lq.cpu()),
        "in tiles": lambda: sample(network, tile=case.side // 4),
        "in tf32": lambda: sample(case.shipped(precision="tf32")),
        "in bfloat16": lambda: sample(case.shipped(precision="bfloat16")),
        "by graphs, recorded": lambda: sample(graphed),
        "by graphs, replayed": lambda: sample(graphed),
    }
    one = sample(network)
    rows: Rows = []
    for name, other in others.items():
        picture = other()
        pixels = [(GREY_LEVELS * image.clamp(0, 1)).round().cpu() for image in (one, picture)]
        rows.append([name, GREY_LEVELS * largest(one, picture), float((pixels[0] != pixels[1]).float().mean())])
    return rows


def waits(case: Case) -> Rows:
    """Let PyTorch refuse every wait for the GPU where there should be none."""
    network, lq = case.network(), case.lq()
    step = training_step("float32, all", case.batch, case.patch, case.device, case.sizes)
    gt = torch.rand(1, 3, 4 * case.side, 4 * case.side, device=case.device)
    uses: dict[str, Callable[[], object]] = {
        "a sample": lambda: network.sample(lq, 0.8),
        "a sample with a seed": lambda: network.sample(lq, 0.8, seed=0),
        "a sample in tiles": lambda: network.sample(lq, 0.8, seed=0, tile=case.side // 2),
        "encoding": lambda: network.encode(gt, lq),
        "forward, backward, Adam": step,
    }
    rows: Rows = []
    for name, use in uses.items():
        with torch.set_grad_enabled(use is step):
            use()
            wait(case.device)
            try:
                with no_waiting(case.on_gpu):
                    use()
                rows.append([name, "does not wait"])
            except RuntimeError as error:
                rows.append([name, first_line(error)])
    return rows


@contextmanager
def no_waiting(on_gpu: bool) -> Iterator[None]:
    if not on_gpu:
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# -- is it fast --------------------------------------------------------------------------------------------------------


def milliseconds(times: list[float]) -> float:
    return 1000 * statistics.median(times)


def timed(calls: dict[str, Callable[[], object]], case: Case) -> Rows:
    """Let calls without gradients take turns: milliseconds, and the share of RRDBNet's where that is among them."""
    with torch.no_grad():
        times = take_turns(calls, case.rounds, case.device)
    relative = ratios(times) if UNIT in times else {}
    return [[name, milliseconds(took), *relative.get(name, ())[:1]] for name, took in times.items()]


def sampling(case: Case) -> Rows:
    lq, rrdb = case.lq(), rrdbnet(**rrdb_sizes(case.sizes)).to(case.device).eval()

    def in_bfloat16() -> None:
        with torch.autocast(case.device, torch.bfloat16):
            rrdb(lq)

    calls: dict[str, Callable[[], object]] = {UNIT: lambda: rrdb(lq), f"{UNIT}, bfloat16": in_bfloat16}
    for precision in ("float32", "tf32", "bfloat16"):
        network = case.network(precision=precision)
        for count in (1, case.samples):
            calls[f"{precision}, {count} samples"] = partial(network.sample, lq, 0.8, count)
    calls[f"bfloat16, {case.samples} samples, seed"] = partial(network.sample, lq, 0.8, case.samples, seed=0)
    return timed(calls, case)


def switched(case: Case, on: Callable[[str], SRFlowNet]) -> Rows:
    """Time sampling of networks as they are beside others with something switched on."""
    lq, calls = case.lq(), dict[str, Callable[[], object]]()
    for precision in ("float32", "bfloat16"):
        for state, network in (("off", case.network(precision=precision)), ("on", on(precision))):
            for count in (1, case.samples):
                calls[f"{precision}, {count} samples, {state}"] = partial(network.sample, lq, 0.8, count)
    return timed(calls, case)


def graphs(case: Case) -> Rows:
    def on(precision: str) -> SRFlowNet:
        network = case.network(precision=precision)
        use_graphs(network)
        return network

    return switched(case, on)


def compiled(case: Case) -> Rows:
    return switched(case, lambda precision: case.network(precision=precision, compile=True))


def window_sizes(case: Case) -> Rows:
    lq, network = case.lq(), case.network(precision="bfloat16")
    rows: Rows = []
    for power in range(23, 33, 2):
        with patch.object(fast, "window_bytes", lambda device, size=2**power: size):
            forget_peak(case)
            ((_, took),) = timed({f"2**{power}": lambda: network.sample(lq, 0.8, case.samples)}, case)
            rows.append([f"2**{power}", took, peak(case)])
    return rows


def profile(case: Case) -> Rows:
    """Count the operations of one call, and the time that they take on the device against that of the call."""
    lq, network = case.lq(), case.network(precision="bfloat16")
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if case.on_gpu else []
    with torch.no_grad():
        network.sample(lq, 0.8, case.samples)
        wait(case.device)
        start = time.perf_counter()
        with torch.profiler.profile(activities=activities) as profiler:
            network.sample(lq, 0.8, case.samples)
            wait(case.device)
        took = time.perf_counter() - start

    def of_device(event: Any) -> float:
        spent: float = event.self_device_time_total if case.on_gpu else event.self_cpu_time_total
        return spent / 1000

    events = sorted(profiler.key_averages(), key=of_device, reverse=True)
    busy = sum(map(of_device, events))
    rows: Rows = [["the call, with the profiler", 1, 1000 * took], ["the device", "", busy]]
    return rows + [[event.key[:80], event.count, of_device(event)] for event in events[:12]]


def training(case: Case) -> Rows:
    torch.backends.cudnn.benchmark = True  # as BasicSR trains
    names = [UNIT, *TRAININGS]
    steps: dict[str, Callable[[], object]] = {
        name: training_step(name, case.batch, case.patch, case.device, case.sizes) for name in names
    }
    times = take_turns(steps, case.rounds, case.device)
    units = ratios(times)
    return [
        [name, milliseconds(times[name]), 1000 * case.batch / milliseconds(times[name]), 100 / units[name][0]]
        for name in names
    ]


# -- does it fit -------------------------------------------------------------------------------------------------------


def forget_peak(case: Case) -> None:
    gc.collect()
    if case.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(case: Case) -> float | str:
    """GB that PyTorch has had of the GPU at most since :func:`forget_peak`; CPUs do not say."""
    return torch.cuda.max_memory_allocated() / 1e9 if case.on_gpu else ""


def memory(case: Case) -> Rows:
    rows: Rows = []
    for name in (UNIT, *TRAININGS):
        forget_peak(case)
        try:
            step = training_step(name, case.most, case.patch, case.device, case.sizes)
            step()
            step()
            rows.append([name, peak(case)])
        except RuntimeError as error:
            if not is_shortage(error):
                raise
            rows.append([name, "too little memory"])
        step = None  # type: ignore[assignment]
    return rows


def large(case: Case) -> Rows:
    """Enlarge a large image in the tiles that the free memory allows."""
    lq, rows = torch.rand(1, 3, *case.large, device=case.device), Rows()
    for precision in ("float32", "bfloat16"):
        network = case.shipped(precision=precision)
        forget_peak(case)
        side = tile_side("auto", lq.shape, 1, network.scale, lq.device)
        with torch.no_grad():
            start = time.perf_counter()
            network.sample(lq, 0.8, tile="auto", resample=0.8)
            wait(case.device)
        rows.append([precision, str(side or "whole"), time.perf_counter() - start, peak(case)])
    return rows


PARTS: dict[str, Callable[[Case], Rows]] = {
    "machine": the_machine,
    "exactness": exactness,
    "seeds": seeds,
    "waits": waits,
    "sampling": sampling,
    "training": training,
    "memory": memory,
    "graphs": graphs,
    "compile": compiled,
    "profile": profile,
    "windows": window_sizes,
    "large": large,
}
