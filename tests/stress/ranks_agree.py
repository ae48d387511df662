"""One training by any number of processes: `torchrun --nproc_per_node=N -m tests.stress.ranks_agree ITERATIONS OUT.pt`.

Run in a folder with tiny.yml and with the project's folder in PYTHONPATH. Each iteration has the same eight images,
shared among the processes, each of which works on its share in so many parts as a third argument says; a fourth is the
noise (uniform), a fifth the reduction of the losses (mean). In float64, the encoder frozen for the first half. Fails
where two processes have different weights after an iteration; writes the losses and the final weights of rank 0.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from srflow_plugin.training.distributed import leave
from srflow_plugin.training.setup import load_run
from srflow_plugin.training.state import build_model
from tests.helpers import image_pair

IMAGES = 8


def main(iterations: int, out: Path, parts: int, noise: str, reduction: str) -> None:
    opt = load_run("tiny.yml", is_train=True, launcher="pytorch" if "RANK" in os.environ else "none").opt
    freeze = iterations // 2
    opt["train"].update(freeze_encoder_iters=freeze, accumulation_steps=parts, grad_clip=1.0)
    opt["train"]["scheduler"]["milestones"] = [freeze]
    opt["train"]["pixel_opt"] = {"type": "L1Loss", "reduction": reduction}  # through the inverse, in the same forward
    opt["train"]["nll_opt"]["reduction"] = reduction
    opt["network_g"]["noise"] = noise
    torch.set_default_dtype(torch.float64)
    model = build_model(opt)
    net = model.get_bare_model(model.net_g)
    log = []
    for iteration in range(1, iterations + 1):
        gt, lq = image_pair(4, 4, 4, batch=IMAGES, dtype=torch.float64)
        brightness = (0.2 + torch.arange(IMAGES).view(-1, 1, 1, 1) / IMAGES + 0.01 * iteration) / 2
        own = slice(opt["rank"], IMAGES, opt["world_size"])
        model.update_learning_rate(iteration)
        draws = IMAGES * iteration + torch.arange(IMAGES)
        model.feed_data({"gt": (gt * brightness)[own], "lq": (lq * brightness)[own], "draw": draws[own]})
        model.optimize_parameters(iteration)
        log.append(dict(model.get_current_log()))
        for name, value in [*net.state_dict().items(), *model.net_g_ema.state_dict().items()]:
            copies = [torch.zeros_like(value) for _ in range(opt["world_size"])]
            if opt["dist"]:
                dist.all_gather(copies, value)
                assert all(torch.equal(copies[0], copy) for copy in copies), f"{name} differs after {iteration}"
    moved = model.optimizer_g.state[net.encoder.conv_first.weight]["step"]
    assert moved == iterations - freeze, f"the encoder took {moved} steps, not {iterations - freeze}"
    if opt["rank"] == 0:
        torch.save({"log": log, "weights": net.state_dict()}, out)


if __name__ == "__main__":
    parts, noise, reduction = [*sys.argv[3:], *("1", "uniform", "mean")[len(sys.argv) - 3 :]]
    main(int(sys.argv[1]), Path(sys.argv[2]), int(parts), noise, reduction)
    leave()  # only now, with the model gone
