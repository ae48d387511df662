"""SRFlowNet as a whole."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from srflow_plugin import SRFlowNet
from srflow_plugin.flow import ConditionalNet, bits_per_dimension, latents_log_prob
from tests.helpers import BEYOND_THE_PAPER, image_pair, jacobian_logdet, small_network

SCALES_AND_SIZES = [(2, 6, 10), (4, 4, 6), (8, 4, 6), (4, 5, 7), (4, 1, 1), (8, 3, 1), (2, 5, 3)]


@pytest.mark.parametrize(("scale", "h", "w"), SCALES_AND_SIZES)
def test_encode_decode_gives_the_image_back(scale: int, h: int, w: int) -> None:
    network = small_network(scale)
    gt, lq = image_pair(scale, h, w)
    with torch.no_grad():
        latents, logdet = network.encode(gt, lq)
        back = network.decode(latents, lq)
    assert [tuple(latent.shape[1:]) for latent in latents] == network.latent_shapes(h, w)
    assert back.shape == gt.shape == (2, 3, scale * h, scale * w)
    assert logdet.shape == (2,)
    assert (back - gt).abs().max() < 1e-4


@pytest.mark.slow
def test_logdet_of_the_whole_network_is_that_of_the_jacobian() -> None:
    network = small_network(4, num_steps=1).double()
    gt, lq = image_pair(4, 2, 4, batch=1, dtype=torch.float64)

    def encode(image: torch.Tensor) -> torch.Tensor:
        return torch.cat([latent.flatten() for latent in network.encode(image, lq)[0]])

    _, logdet = network.encode(gt, lq)
    torch.testing.assert_close(logdet[0], jacobian_logdet(encode, gt), rtol=1e-9, atol=1e-9)


def test_nll_is_the_density_in_bits_per_dimension() -> None:
    network = small_network()
    gt, lq = image_pair(4, 4, 6)
    latents, logdet = network.encode(gt, lq)
    normal = torch.distributions.Normal(0.0, 1.0)
    log_prob = logdet + torch.stack([normal.log_prob(latent).sum((1, 2, 3)) for latent in latents]).sum(0)
    expected = -log_prob / (math.log(2) * 3 * 16 * 24)
    nll, prior, logdet_bits, image = network(gt, lq, terms=True)
    assert image is None
    torch.testing.assert_close(network(gt, lq), expected)
    torch.testing.assert_close(nll, expected)
    torch.testing.assert_close(prior + logdet_bits, expected)


def test_each_image_of_a_batch_is_treated_alone() -> None:
    network = small_network()
    gt, lq = image_pair(4, 4, 6)
    torch.testing.assert_close(network(gt, lq)[1:], network(gt[1:], lq[1:]))


@pytest.mark.slow
@pytest.mark.parametrize("setting", BEYOND_THE_PAPER)
def test_options_beyond_the_paper_keep_the_flow_invertible_and_exact(setting: str) -> None:
    network = small_network(4, **BEYOND_THE_PAPER[setting]).double()
    gt, lq = image_pair(4, 2, 4, batch=1, dtype=torch.float64)

    def encode(image: torch.Tensor) -> torch.Tensor:
        return torch.cat([latent.flatten() for latent in network.encode(image, lq)[0]])

    latents, logdet = network.encode(gt, lq)
    torch.testing.assert_close(network.decode(latents, lq), gt, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logdet[0], jacobian_logdet(encode, gt), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("scale", "setting"), [(2, {}), (4, {}), (8, {}), *((4, setting) for setting in BEYOND_THE_PAPER.values())]
)
def test_gradients_reach_every_parameter(scale: int, setting: dict[str, Any]) -> None:
    network = small_network(scale, **setting).train()
    gt, lq = image_pair(scale, 4, 6)
    network(gt, lq).mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_unusual_depths_work() -> None:
    # fewer levels than the released networks, and one more: contexts at LR size and at a quarter of it
    for num_levels in (2, 4):
        network = small_network(4, num_levels=num_levels)
        gt, lq = image_pair(4, 3, 5)
        latents, _ = network.encode(gt, lq)
        assert (network.decode(latents, lq) - gt).abs().max() < 1e-4


def test_code_length_is_the_dequantised_density_whatever_the_noise_in_training() -> None:
    gt, lq = image_pair(4, 4, 6)
    gt = (255 * gt).round() / 255
    for noise_in_training in ("none", "uniform", "conditional"):
        network = small_network(noise=noise_in_training)
        noise = (torch.rand(gt.shape[1:], generator=torch.Generator().manual_seed(3)) - 0.5) / 256
        expected = network(gt + noise, lq) + 8
        torch.testing.assert_close(network.code_length(gt, lq, seed=3), expected)
        torch.testing.assert_close(network.code_length(gt, lq, 3, network.features(lq)), expected)
        assert not torch.equal(network.code_length(gt, lq, seed=4), expected)


def test_noise_settings() -> None:
    gt, lq = image_pair(4, 4, 6)
    quiet = small_network().train()
    torch.testing.assert_close(quiet(gt, lq), quiet.eval()(gt, lq))

    for levels, bits in ((256, 8), (32, 5)):
        uniform = small_network(noise="uniform", noise_levels=levels).train()
        torch.manual_seed(0)
        noisy = uniform(gt, lq)
        torch.manual_seed(0)
        torch.testing.assert_close(noisy, quiet(gt + (torch.rand_like(gt) - 0.5) / levels, lq) + bits)
        torch.testing.assert_close(uniform.eval()(gt, lq), quiet(gt, lq))

    gaussian = small_network(noise="gaussian", noise_sigma=5).train()
    torch.manual_seed(0)
    noisy = gaussian(gt, lq)
    torch.manual_seed(0)
    torch.testing.assert_close(noisy, quiet(gt + torch.randn_like(gt) * 5 / 255, lq))


def test_noise_conditional_network_is_told_the_level_it_gets() -> None:
    gt, lq = image_pair(4, 4, 6)
    network = small_network(**BEYOND_THE_PAPER["NCSR"])

    def nll(image: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        maps = [levels.view(2, 1, 1, 1).expand(-1, 1, *features.own.shape[2:]) for features in contexts]
        told = [
            features._replace(own=torch.cat([features.own, level], dim=1)).expanded()
            for features, level in zip(contexts, maps, strict=True)
        ]
        latents, logdet = network.flow(image, told)
        log_prob = logdet + latents_log_prob(latents)
        return bits_per_dimension(log_prob, 3 * 16 * 24)

    with torch.no_grad():
        contexts = network.encoder.contexts(lq)
        torch.manual_seed(0)
        noisy = network.train()(gt, lq)
        torch.manual_seed(0)
        levels = 8 * torch.rand(2)
        disturbed = gt + torch.randn_like(gt) * (levels / 255).view(2, 1, 1, 1)
        torch.testing.assert_close(noisy, nll(disturbed, levels))
        assert not torch.allclose(noisy, nll(disturbed, torch.zeros(2)))
        torch.testing.assert_close(network.eval()(gt, lq), nll(gt, torch.zeros(2)))


def test_the_image_of_a_forward_is_the_tau_0_image() -> None:
    for setting in ({}, BEYOND_THE_PAPER["NCSR"], {"noise": "uniform"}):
        network = small_network(**setting)
        gt, lq = image_pair(4, 5, 6)
        for mode in (True, False):
            terms = network.train(mode)(gt, lq, with_image=True)
            torch.testing.assert_close(terms.image, network.sample(lq, temperature=0)[0])
            (gradient,) = torch.autograd.grad(terms.image.sum(), network.encoder.conv_first.weight)
            assert gradient.abs().sum() > 0


def test_actnorms_are_fitted_in_an_explicit_step() -> None:
    network = SRFlowNet(num_feat=8, num_grow_ch=4, num_block=1, feature_blocks=(0,), num_steps=2, hidden_channels=8)
    gt, lq = image_pair(4, 8, 8)
    assert not network.initialized
    before = network(gt, lq).mean()
    assert not network.initialized  # a forward pass fits nothing
    network.initialize(gt, lq)
    assert network.initialized
    latents, _ = network.encode(gt, lq)
    # couplings only shrink by sigmoid(2) after the last ActNorm, and the 1x1 convolution is a rotation
    assert 0.2 < latents[-1].std() < 1.5
    assert network(gt, lq).mean() < before
    fresh = SRFlowNet(num_feat=8, num_grow_ch=4, num_block=1, feature_blocks=(0,), num_steps=2, hidden_channels=8)
    fresh.load_state_dict(network.state_dict())
    assert fresh.initialized


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 3}, "power of 2"),
        ({"scale": 8, "num_levels": 2}, "num_levels must be at least 3"),
        ({"num_block": 4}, "from 0 to 3"),
        ({"feature_blocks": ()}, "feature_blocks"),
        ({"feature_blocks": (8, 1)}, "rising order"),
        ({"feature_blocks": (1, 1)}, "rising order"),
        ({"noise": "poisson"}, "none, uniform, gaussian or conditional"),
        ({"noise_levels": 0}, "noise_levels >= 1"),
        ({"encoder_skip": "first"}, "last_block or conv_first"),
        ({"scale_floor": 0}, "scale_floor must lie"),
        ({"log_scale_bound": 0}, "log_scale_bound must be above 0"),
        ({"log_scale_bound": 1, "scale_floor": 0.3}, "in place of scale_floor"),
        ({"coupling_layers": 0}, "coupling_layers must be 1 or more"),
        ({"coupling_kernel_size": 2}, "coupling_kernel_size odd"),
    ],
)
def test_impossible_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SRFlowNet(**arguments)  # type: ignore[arg-type]


def test_mismatched_images_and_bad_temperatures_are_named() -> None:
    network = small_network()
    gt, lq = image_pair(4, 4, 6)
    with pytest.raises(ValueError, match="not 4 times"):
        network.encode(gt[..., :-4], lq)
    with pytest.raises(ValueError, match="temperature"):
        network.sample(lq, temperature=-1)
    with pytest.raises(ValueError, match="num_samples"):
        network.sample(lq, num_samples=0)


@pytest.mark.parametrize(
    ("setting", "raw", "expected"),
    [
        ({}, -1000, 1e-4),
        ({"scale_floor": 0.2}, -1000, 0.2),
        ({"scale_floor": 0.2}, 1000, 1.2),
        ({"log_scale_bound": 0.5}, -1000, math.exp(-0.5)),
        ({"log_scale_bound": 0.5}, 1000, math.exp(0.5)),
        ({"log_scale_bound": 0.5}, 0, 1),
    ],
)
def test_affine_scales_stay_within_their_limits(setting: dict[str, Any], raw: float, expected: float) -> None:
    network = small_network(**setting)
    nets = [module for module in network.modules() if isinstance(module, ConditionalNet)]
    scales = []
    for net in nets:
        with torch.no_grad():
            last: Any = net[-1]
            last.weight.zero_()
            last.logs.zero_()
            last.bias[1::2] = raw
        net.register_forward_hook(lambda module, args, output: scales.append(output[1]))
    network.flow(*network.flow_inputs(*image_pair(4, 4, 6)))
    assert len(scales) == len(nets) == 3 * 2 * 2
    for scale in scales:
        torch.testing.assert_close(scale, torch.full_like(scale, expected), rtol=1e-4, atol=0)
