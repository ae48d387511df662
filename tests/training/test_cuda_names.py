"""Where BasicSR's code names CUDA on a machine without, it gets the CPU; elsewhere nothing changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srflow_plugin.training.cuda_names import OnCPU, of_this_machine


def test_cuda_means_the_cpu() -> None:
    with OnCPU():
        made = [
            torch.zeros(2, device="cuda"),
            torch.ones(2, device=torch.device("cuda", 0)),
            torch.ones(2).cuda(),
            torch.ones(2).to("cuda:1"),
            torch.ones(2).to(device="cuda"),
            nn.Linear(2, 2).cuda().weight,
            nn.Linear(2, 2).to("cuda").weight,
        ]
        assert {tensor.device.type for tensor in made} == {"cpu"}
        assert torch.zeros(2, device="meta").device.type == "meta"
        assert torch.zeros(4, 6).t().view(24).shape == (24,)
        assert torch.zeros(2).view(torch.int32).dtype == torch.int32


def test_what_was_moved_keeps_its_shape() -> None:
    with OnCPU():
        here = torch.zeros(1, 2)
        there = here.to("cuda")
        here.squeeze_(0)
        assert (here.shape, there.shape) == ((2,), (1, 2))


@pytest.mark.parametrize(
    ("gpus", "model", "helped"), [(0, "SRModel", True), (1, "SRModel", False), (0, "SRFlowModel", False)]
)
def test_only_basicsrs_models_on_a_cpu_are_helped(gpus: int, model: str, helped: bool) -> None:
    assert isinstance(of_this_machine({"num_gpu": gpus, "model_type": model}), OnCPU) == helped
