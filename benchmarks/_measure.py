"""Pieces that benchmarks share: networks, steps of training, turns, ratios, peaks of memory, tables on pages.

Needs neither BasicSR nor matplotlib.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srflow_plugin import SRFlowNet
from srflow_plugin.archs.rrdb import make_trunk
from srflow_plugin.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
UNIT = "RRDBNet"
Times = dict[str, list[float]]  # seconds of contestants, one for each round
Ratio = tuple[float, float, float]  # median, smallest, largest
TRAININGS: dict[str, tuple[bool, dict[str, Any]]] = {  # does the encoder train, settings
    "float32, encoder frozen": (False, {}),
    "float32, all": (True, {}),
    "float32, all, recompute_encoder": (True, {"recompute_encoder": True}),
    "bfloat16, encoder frozen": (False, {"precision": "bfloat16"}),
    "bfloat16, all": (True, {"precision": "bfloat16"}),
    "bfloat16, all, recompute_encoder": (True, {"precision": "bfloat16", "recompute_encoder": True}),
}
COMPILED: dict[str, tuple[bool, dict[str, Any]]] = {
    "float32, encoder frozen, compiled": (False, {"compile": True}),
    "bfloat16, encoder frozen, compiled": (False, {"precision": "bfloat16", "compile": True}),
}


# -- contestants -------------------------------------------------------------------------------------------------------


class RRDBNet(nn.Module):
    """ESRGAN's generator, x4, as BasicSR's class of that name: for machines without BasicSR."""

    def __init__(self, num_feat: int = 64, num_block: int = 23, num_grow_ch: int = 32) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, num_feat, 3, padding=1)
        self.body = make_trunk(num_block, num_feat, num_grow_ch)
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (
            nn.Conv2d(num_feat, num_feat, 3, padding=1) for _ in range(4)
        )
        self.conv_last = nn.Conv2d(num_feat, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for conv in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        image: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))
        return image


def rrdbnet(**sizes: int) -> nn.Module:
    """Make BasicSR's RRDBNet, or what equals it; default: ESRGAN's sizes, 64 features and 23 blocks."""
    torch.manual_seed(0)
    try:
        from basicsr.archs import rrdbnet_arch
    except ImportError:
        return RRDBNet(**sizes)
    network: nn.Module = rrdbnet_arch.RRDBNet(3, 3, **sizes)
    return network


def rrdb_sizes(sizes: dict[str, Any]) -> dict[str, int]:
    """Pick what is RRDBNet's, too, of a network's sizes."""
    return {key: value for key, value in sizes.items() if key in ("num_feat", "num_block", "num_grow_ch")}


def make_network(**settings: Any) -> SRFlowNet:
    """Make a network whose flow is not at its start, where couplings do nothing."""
    torch.manual_seed(0)
    network = SRFlowNet(**settings)
    with torch.no_grad():
        for parameter in network.flow.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return network


def plain_sample(network: SRFlowNet, lq: Tensor) -> Tensor:
    """Draw one sample by the layers' own inverse."""
    contexts = network.encoder(lq)
    latents = [0.8 * torch.randn(len(lq), *shape, device=lq.device) for shape in network.latent_shapes(*lq.shape[2:])]
    image: Tensor = network.flow.inverse(latents, contexts)[0]
    return image


def plain_nll(network: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    """Compute a training loss by the layers' own forward; the constant is left out."""
    latents, logdet = network.flow(gt, network.encoder(lq))
    loss: Tensor = torch.stack([latent.square().sum() / 2 for latent in latents]).sum() - logdet.sum()
    return loss


def training_step(
    name: str, batch: int, patch: int, device: str, sizes: dict[str, Any] | None = None
) -> Callable[[], None]:
    """Make a step of training on random images; ``patch`` is the side in LR pixels, ``sizes`` are of our networks."""
    gt = torch.rand(batch, 3, 4 * patch, 4 * patch, device=device)
    lq = torch.rand(batch, 3, patch, patch, device=device)
    network: nn.Module
    if name == UNIT:
        network = rrdb = rrdbnet(**rrdb_sizes(sizes or {})).to(device)
        loss: Callable[[], Tensor] = lambda: F.l1_loss(rrdb(lq), gt)  # noqa: E731
    else:
        is_plain = name.startswith("plain layers")
        trains, settings = (name.endswith("all"), {}) if is_plain else (TRAININGS | COMPILED)[name]
        network = ours = make_network(**(sizes or {}), **settings).to(device)
        ours.encoder.requires_grad_(trains)
        loss = (lambda: plain_nll(ours, gt, lq)) if is_plain else (lambda: ours(gt, lq).mean())
    optimizer = torch.optim.Adam([parameter for parameter in network.parameters() if parameter.requires_grad], 1e-6)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


# -- time --------------------------------------------------------------------------------------------------------------


def wait(device: str) -> None:
    """Wait until a device has done all that it was asked to."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds(function: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    function()
    wait(device)
    return time.perf_counter() - start


def take_turns(contestants: dict[str, Callable[[], object]], rounds: int, device: str) -> Times:
    """Time each contestant in each round, after a warm-up round."""
    times: Times = {name: [] for name in contestants}
    for number in range(1 + rounds):
        for name, function in contestants.items():
            took = seconds(function, device)
            if number:
                times[name].append(took)
            sys.stderr.write(f"round {number}, {name}: {took:.3f} s\n")
    return times


def ratios(times: Times, unit: Sequence[float] | None = None) -> dict[str, Ratio]:
    """Divide each round's seconds by those of the unit in the same round; default: of RRDBNet."""
    result = {}
    for name, values in times.items():
        relative = [value / one for value, one in zip(values, unit or times[UNIT], strict=True)]
        result[name] = (statistics.median(relative), min(relative), max(relative))
    return result


def machine(device: str) -> dict[str, Any]:
    """Name what the figures depend on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


# -- memory ------------------------------------------------------------------------------------------------------------


def peak(device: str) -> float:
    """Read how many GB this process has had at most: on the CPU, or of the GPU's memory."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e9
    # Not resource.getrusage: there a process starts with its parent's peak.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def of_own_process(module: str, *arguments: str) -> float:
    """Run a benchmark in a process of its own; return the one number that it prints."""
    command = [sys.executable, "-m", module, *arguments]
    return float(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)


# -- pages -------------------------------------------------------------------------------------------------------------


def replace_between(page: Path, marks: tuple[str, str], text: str) -> None:
    """Replace what stands on a page of the documentation between two marks."""
    old = page.read_text(encoding="utf-8")
    before, after = old[: old.index(marks[0])], old[old.index(marks[1]) :]
    write_whole(page, f"{before}{marks[0]}\n\n{text}\n{after}")
