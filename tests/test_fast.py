"""The fast path computes what the plain one does: numbers, gradients, and for less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import image_pair, small_network
from test_network import BEYOND_THE_PAPER

from srflow_plugin import SRFlowNet
from srflow_plugin.archs import tiling
from srflow_plugin.flow import Context, bits_per_dimension, fast, standard_normal_log_prob

NETWORKS: dict[str, dict[str, Any]] = {
    "x2": {"scale": 2},
    "x4": {"scale": 4},
    # With the paper's floor random weights so deep do not keep the plain path's own digits.
    "x8": {"scale": 8, "scale_floor": 0.3},
    "x4, one level more": {"scale": 4, "num_levels": 4, "scale_floor": 0.3},
    **{name: {"scale": 4, **setting} for name, setting in BEYOND_THE_PAPER.items()},
}


def plain_encode(network: SRFlowNet, gt: torch.Tensor, lq: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """By the layers' own ``forward``."""
    return network.flow(*network.flow_inputs(gt, lq))


def plain_decode(network: SRFlowNet, latents: list[torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
    """By the layers' own ``inverse``."""
    contexts = network._contexts(network.features(lq))
    image, _ = network.flow.inverse(latents, [one.expanded() for one in contexts])
    return image[:, :, : network.scale * lq.shape[2], : network.scale * lq.shape[3]]


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_convolution_of_an_enlargement(factor: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((2, 3, 5 * factor, 4 * factor), (2, 4, 5, 4), (6, 7, 3, 3), (6,))
    ]
    context = Context(*tensors[:2])
    ours = context.conv(*tensors[2:])
    plain = F.conv2d(context.expanded(), *tensors[2:], padding=1)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    direction = torch.randn(plain.shape, dtype=torch.float64, generator=generator)
    gradients = [torch.autograd.grad(output, tensors, direction) for output in (ours, plain)]
    for gradient, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("h", "w", "window"), [(4, 6, 2**23), (3, 5, 2**23), (9, 14, 2**13)])
def test_fast_is_plain_in_both_directions(
    name: str, h: int, w: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "window_bytes", lambda device: window)  # the last: several windows a step
    network = small_network(**NETWORKS[name]).double()
    gt, lq = image_pair(network.scale, h, w, dtype=torch.float64)
    with torch.no_grad():
        latents, logdet = network.encode(gt, lq)
        plain_latents, plain_logdet = plain_encode(network, gt, lq)
        for ours, theirs in zip(latents, plain_latents, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(logdet, plain_logdet, rtol=1e-10, atol=1e-10)
        given = [latent + 0.1 * torch.randn_like(latent) for latent in latents]
        torch.testing.assert_close(network.decode(given, lq), plain_decode(network, given, lq), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_gradients_are_those_of_the_plain_path(name: str, dtype: torch.dtype, tolerance: float) -> None:
    network = small_network(**NETWORKS[name]).to(dtype)
    gt, lq = image_pair(network.scale, 3, 6, dtype=dtype)
    terms = network(gt, lq, with_image=True)
    latents, logdet = plain_encode(network, gt, lq)
    log_prob = logdet + torch.stack([standard_normal_log_prob(latent) for latent in latents]).sum(0)
    nll = bits_per_dimension(log_prob, sum(latent[0].numel() for latent in latents))
    image = plain_decode(network, [torch.zeros_like(latent) for latent in latents], lq)
    parameters = dict(network.named_parameters())
    for pair in ((terms.nll, nll), (terms.image.square(), image.square())):
        gradients = [
            torch.autograd.grad(value.mean(), list(parameters.values()), retain_graph=True, allow_unused=True)
            for value in pair
        ]
        for parameter, ours, theirs in zip(parameters, *gradients, strict=True):
            assert (ours is None) == (theirs is None), parameter
            if ours is not None:
                assert (ours - theirs).norm() <= tolerance * theirs.norm(), parameter


def test_samples_drawn_together_are_those_drawn_alone() -> None:
    network = small_network().double()
    _, lq = image_pair(4, 5, 4, dtype=torch.float64)
    together = network.sample(lq, 0.8, num_samples=5, seed=0)
    generator = torch.Generator().manual_seed(0)
    for sample in together:
        latents = [
            0.8 * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
            for shape in network.latent_shapes(5, 4)
        ]
        torch.testing.assert_close(sample, plain_decode(network, latents, lq), rtol=1e-9, atol=1e-9)


def test_a_recomputed_encoder_has_the_same_gradients() -> None:
    gt, lq = image_pair(4, 4, 6)
    gradients = []
    for recompute in (False, True):
        network = small_network(recompute_encoder=recompute)
        network(gt, lq).mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_bfloat16_is_near(direction: str) -> None:
    network, half = small_network(scale_floor=0.3), small_network(scale_floor=0.3, precision="bfloat16")
    gt, lq = image_pair(4, 6, 8)
    with torch.no_grad():
        latents, _ = network.encode(gt, lq)
        if direction == "decode":
            image = half.decode(latents, lq)
            assert image.dtype == torch.float32
            assert 1e-5 < (image - gt).abs().mean() < 0.02
        else:
            half_latents, half_logdet = half.encode(gt, lq)
            assert half_latents[0].dtype == half_logdet.dtype == torch.float32
            assert (half(gt, lq) - network(gt, lq)).abs().max() < 0.05
    half.train()(gt, lq).mean().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in half.parameters())


def stored_bytes(network: SRFlowNet, gt: torch.Tensor, lq: torch.Tensor, encode: Any) -> int:
    """What one forward pass keeps for the backward pass, beside the parameters."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = encode(network, gt, lq)
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    del held
    return sum(size for pointer, size in kept.items() if pointer not in own)


def test_training_keeps_less() -> None:
    network = small_network(num_steps=6, hidden_channels=32)
    network.encoder.requires_grad_(False)
    gt, lq = image_pair(4, 16, 16)
    plain, fast_bytes = (
        stored_bytes(network, gt, lq, encode) for encode in (plain_encode, lambda net, *pair: net.encode(*pair))
    )
    assert fast_bytes < 0.5 * plain


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_tiles_with_all_their_surroundings_are_the_whole_image(scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The small network reaches less far than this overlap, so not one digit may differ, at any seam.
    monkeypatch.setattr(tiling, "OVERLAP", 64)
    network = small_network(scale, num_block=1, feature_blocks=(0,), num_steps=1, scale_floor=0.3).double()
    _, lq = image_pair(scale, 75, 9, batch=1, dtype=torch.float64)
    whole, tiled = (network.sample(lq, 0.8, num_samples=2, seed=0, tile=tile) for tile in (None, 5))
    assert tiled.shape == whole.shape == (2, 1, 3, 75 * scale, 9 * scale)
    torch.testing.assert_close(tiled, whole, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network.sample(lq, 0.8, 2, seed=0, tile="auto"), whole, rtol=1e-9, atol=1e-9)


def test_memory_at_hand_decides_on_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    lq = torch.zeros(1, 3, 4, 4)
    sides = []
    for pages in (1, 2**20, 2**24):
        monkeypatch.setattr(tiling.os, "sysconf", lambda name, pages=pages: {"SC_AVPHYS_PAGES": pages}.get(name, 4096))
        sides.append(tiling.tile_side("auto", lq, 1))
    assert sides[0] == tiling.MIN_SIDE < sides[1] < sides[2]
    assert tiling.tile_side("auto", torch.cat(8 * [lq]), 1) < tiling.tile_side("auto", lq, 8) < sides[2]
    assert tiling.BYTES_PER_LQ_PIXEL * (sides[1] + 2 * tiling.OVERLAP) ** 2 < 2**32
