"""The fast path computes what the plain one does: numbers, gradients, and for less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from srflow_plugin import SRFlowNet
from srflow_plugin.flow import bits_per_dimension, fast, latents_log_prob, onednn
from tests.helpers import NETWORKS, image_pair, plain_decode, plain_encode, run_python, small_network


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


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_gradients_are_those_of_the_plain_path(name: str, dtype: torch.dtype, tolerance: float) -> None:
    network = small_network(**NETWORKS[name]).to(dtype)
    gt, lq = image_pair(network.scale, 4, 8, dtype=dtype)
    terms = network(gt, lq, with_image=True)
    latents, logdet = plain_encode(network, gt, lq)
    log_prob = logdet + latents_log_prob(latents)
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
    assert all(parameter.grad is not None for parameter in half.parameters())
    assert {parameter.grad.dtype for parameter in half.parameters() if parameter.grad is not None} == {torch.float32}


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


def test_training_on_large_images_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "KEPT_BYTES", 0)
    network = small_network(num_steps=6, hidden_channels=32)
    network.encoder.requires_grad_(False)
    gt, lq = image_pair(4, 16, 16)
    plain, fast_bytes = (
        stored_bytes(network, gt, lq, encode) for encode in (plain_encode, lambda net, *pair: net.encode(*pair))
    )
    assert fast_bytes < 0.5 * plain


def test_training_on_small_images_computes_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network(num_steps=2)
    gt, lq = image_pair(4, 4, 6)
    grads, convolutions = [], []
    for kept_bytes in (0, fast.KEPT_BYTES):
        monkeypatch.setattr(fast, "KEPT_BYTES", kept_bytes)
        network.zero_grad()
        loss = network(gt, lq).mean()
        with Calls("aten.convolution.default") as calls:
            loss.backward()
        convolutions.append(calls.count)
        grads.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    assert convolutions[0] > convolutions[1] == 0
    assert all(map(torch.equal, *grads))


@pytest.mark.parametrize("images", [1, 3])
def test_fused_convolutions_of_bfloat16(images: int) -> None:
    """One pass rounds once where several round each."""
    if not onednn.is_there():
        pytest.skip("this PyTorch has no oneDNN for bfloat16")
    torch.manual_seed(0)
    x = torch.randn(2 * images, 6, 9, 11)[:, :3].bfloat16()  # a part of the channels, as couplings have it
    added = torch.randn(2, 16, 9, 11).bfloat16()
    for size in (1, 3):
        weight, bias = torch.randn(16, 3, size, size).bfloat16(), torch.randn(16).bfloat16()
        convolution = fast.Convolution(weight, bias)
        for summand in (None, added):
            with torch.no_grad():
                fused = convolution.relu(x, summand)
            with torch.enable_grad():
                several = convolution.relu(x, summand)
            exact = fast.Convolution(weight.double(), bias.double()).relu(
                x.double(), None if summand is None else summand.double()
            )
            assert fused.dtype == torch.bfloat16
            assert (fused - exact).abs().max() <= (several - exact).abs().max() <= 0.1
            assert not torch.equal(fused, exact)


class Calls(TorchDispatchMode):
    """Count calls of one operator."""

    def __init__(self, name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name, self.count = name, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += str(func) == self.name
        return func(*args, **(kwargs or {}))


def test_many_channels_are_inverted_whatever_the_number_of_threads(tmp_path: Path) -> None:
    """A program's own call of torch.set_num_threads breaks what oneMKL makes of several matrices at once."""
    code = """
import torch
from srflow_plugin.flow.fast import channel_logdet, inverse_mixings
from srflow_plugin.flow.multiscale import TransitionStep
torch.set_num_threads(2)
steps = [TransitionStep(192) for _ in range(6)]
for step, (inverse, _) in zip(steps, inverse_mixings(steps)):
    torch.testing.assert_close(inverse[:, :, 0, 0] @ step.invconv.weight, torch.eye(192), atol=1e-5, rtol=0)
assert abs(channel_logdet(steps).item()) < 1e-3, channel_logdet(steps)  # rotations
channel_logdet(steps).backward()
for step in steps:
    torch.testing.assert_close(step.invconv.weight.grad, step.invconv.weight.detach(), atol=1e-4, rtol=0)
"""
    done = run_python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
