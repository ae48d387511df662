"""A network as one graph: the numbers of ``SRFlowNet.decode``, at any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from srflow_plugin import SRFlowNet
from srflow_plugin.integrations.exported import Exported, export_program
from tests.helpers import NETWORKS, small_network

FEW: dict[str, Any] = {"num_block": 1, "feature_blocks": (0,), "num_steps": 1}
SIZES = [(1, 1, 1), (1, 2, 5), (3, 8, 4), (2, 5, 3)]  # images, height, width


def inputs_of(network: SRFlowNet, images: int, height: int, width: int) -> list[Tensor]:
    """Make an LR image, and latents of it."""
    generator = torch.Generator().manual_seed(height * 10 + width)
    lr = torch.rand(images, 3, height, width, generator=generator)
    shapes = network.latent_shapes(height, width)
    return [lr, *(0.5 * torch.randn(images, *shape, generator=generator) for shape in shapes)]


def difference(network: SRFlowNet, program: Any, inputs: list[Tensor], with_latents: bool) -> float:
    """Compute the largest difference of a program to the network, as a share of the largest value."""
    lr, *latents = inputs
    with torch.no_grad():
        expected = network.decode(latents if with_latents else [torch.zeros_like(x) for x in latents], lr)
        given = program(*inputs) if with_latents else program(lr)
    assert given.shape == expected.shape and given.dtype == torch.float32
    return float((given - expected).abs().max() / expected.abs().max().clamp(min=1))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_draws_what_the_network_draws(name: str) -> None:
    network = small_network(**NETWORKS[name])
    exported = Exported(network, "float32")
    for size in SIZES:
        for with_latents in (False, True):
            assert difference(network, exported, inputs_of(network, *size), with_latents) < 1e-5, (size, with_latents)


def test_the_graph_takes_back_what_one_sided_noise_has_made_brighter() -> None:
    network = small_network(one_sided_noise=16)
    assert difference(network, Exported(network, "float32"), inputs_of(network, 1, 3, 4), True) < 1e-5


def test_half_precision_is_that_of_the_networks_inside() -> None:
    network = small_network(scale_floor=0.3)
    exported = Exported(network, "float16")
    assert 0 < difference(network, exported, inputs_of(network, 1, 6, 5), True) < 1e-2
    halves = [value.dtype == torch.float16 for value in exported.state_dict().values()]
    assert any(halves) and not all(halves)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}  # as they were


@pytest.mark.slow
@pytest.mark.parametrize(("name", "with_latents"), [("x8", True), ("NCSR", False), ("SRFlow-DA", True)])
def test_a_program_takes_images_of_any_size(name: str, with_latents: bool, tmp_path: Path) -> None:
    network = small_network(**{**NETWORKS[name], **FEW})
    torch.export.save(export_program(network, with_latents), tmp_path / "net.pt2")
    program = torch.export.load(tmp_path / "net.pt2").module()
    for size in SIZES:
        assert difference(network, program, inputs_of(network, *size), with_latents) < 1e-5, size
