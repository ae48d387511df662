"""Run by torchrun in a folder with tiny.yml: each rank trains on its own data, all end with the same weights."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch
import torch.distributed as dist
from conftest import image_pair  # imports srflow_plugin, which makes BasicSR importable

# isort: split
from basicsr.models import build_model

from srflow_plugin.cli.options import parse_options


def main() -> None:
    args = Namespace(opt="tiny.yml", launcher="pytorch", auto_resume=False, debug=False, force_yml=None)
    opt = parse_options(args, Path.cwd(), is_train=True)
    opt["train"]["freeze_encoder_iters"] = 2
    opt["train"]["pixel_opt"] = {"type": "L1Loss"}  # through the inverse, in the same forward
    model = build_model(opt)
    for iteration in range(1, 5):
        gt, lq = image_pair(4, 4, 4)
        shift = 0.1 * (dist.get_rank() + iteration)
        model.feed_data({"gt": gt * shift, "lq": lq * shift})
        model.optimize_parameters(iteration)
        net = model.get_bare_model(model.net_g)
        for name, value in [*net.state_dict().items(), *model.net_g_ema.state_dict().items()]:
            copies = [torch.zeros_like(value) for _ in range(dist.get_world_size())]
            dist.all_gather(copies, value)
            assert torch.equal(copies[0], copies[1]), f"{name} differs after iteration {iteration}"
    moved = model.optimizer_g.state[net.encoder.conv_first.weight]["step"]
    assert moved == 2, f"the encoder took {moved} steps, not 2"


if __name__ == "__main__":
    main()
    # Only now, with the model gone: Gloo's threads and a reducer that is freed after its group can wait for each other.
    dist.destroy_process_group()
