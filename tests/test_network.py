"""SRFlowNet as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from conftest import image_pair, small_network

from srflow_plugin import SRFlowNet
from srflow_plugin.archs.explosions import exploded, resample_exploded
from srflow_plugin.checkpoints import load_network
from srflow_plugin.flow import ConditionalNet, bits_per_dimension, standard_normal_log_prob
from srflow_plugin.upscaling import SHIPPED

BEYOND_THE_PAPER: dict[str, dict[str, Any]] = {
    "floor": {"scale_floor": 0.3},
    "bound": {"log_scale_bound": 0.5},
    "SRFlow-DA": {"num_steps": 3, "num_levels": 2, "coupling_layers": 4, "coupling_kernel_size": 3},
    "NCSR": {"noise": "conditional", "noise_sigma": 8.0},
}
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


def test_logdet_of_the_whole_network_is_that_of_the_jacobian() -> None:
    network = small_network(4, num_steps=1).double()
    gt, lq = image_pair(4, 2, 4, batch=1, dtype=torch.float64)

    def encode(flat: torch.Tensor) -> torch.Tensor:
        return torch.cat([latent.flatten() for latent in network.encode(flat.view_as(gt), lq)[0]])

    jacobian = torch.autograd.functional.jacobian(encode, gt.flatten())
    _, logdet = network.encode(gt, lq)
    torch.testing.assert_close(logdet[0], torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-9, atol=1e-9)


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


@pytest.mark.parametrize("setting", BEYOND_THE_PAPER)
def test_options_beyond_the_paper_keep_the_flow_invertible_and_exact(setting: str) -> None:
    network = small_network(4, **BEYOND_THE_PAPER[setting]).double()
    gt, lq = image_pair(4, 2, 4, batch=1, dtype=torch.float64)

    def encode(flat: torch.Tensor) -> torch.Tensor:
        return torch.cat([latent.flatten() for latent in network.encode(flat.view_as(gt), lq)[0]])

    latents, logdet = network.encode(gt, lq)
    torch.testing.assert_close(network.decode(latents, lq), gt, rtol=1e-9, atol=1e-9)
    jacobian = torch.autograd.functional.jacobian(encode, gt.flatten())
    torch.testing.assert_close(logdet[0], torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-9, atol=1e-9)


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


def test_temperature_zero_is_deterministic_and_others_are_not() -> None:
    network = small_network()
    _, lq = image_pair(4, 5, 4)
    zero = network.sample(lq, temperature=0, num_samples=2)
    assert zero.shape == (2, 2, 3, 20, 16)
    assert torch.equal(zero[0], zero[1])
    latents = [torch.zeros(2, *shape) for shape in network.latent_shapes(5, 4)]
    torch.testing.assert_close(zero[0], network.decode(latents, lq))
    one = network.sample(lq, temperature=1, num_samples=2)
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one, network.sample(lq, temperature=1, num_samples=2))


@pytest.mark.parametrize("seed", [0, 1])
def test_same_seed_same_samples(seed: int) -> None:
    network = small_network()
    _, lq = image_pair(4, 4, 4)
    torch.manual_seed(1)
    first = network.sample(lq, 0.8, num_samples=3, seed=seed)
    torch.manual_seed(2)
    assert torch.equal(first, network.sample(lq, 0.8, num_samples=3, seed=seed))
    assert torch.equal(first[:2], network.sample(lq, 0.8, num_samples=2, seed=seed))
    assert not torch.equal(first, network.sample(lq, 0.8, num_samples=3, seed=seed + 1))


def test_seeded_sampling_leaves_the_global_generator_alone() -> None:
    network = small_network()
    _, lq = image_pair(4, 4, 4)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    network.sample(lq, 0.8, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_code_length_is_the_dequantised_density_whatever_the_noise_in_training() -> None:
    gt, lq = image_pair(4, 4, 6)
    gt = (255 * gt).round() / 255
    for setting in ({}, {"noise": "uniform"}, {"noise": "conditional"}):
        network = small_network(**setting)
        noise = torch.rand(gt.shape, generator=torch.Generator().manual_seed(3)) / 256
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
        torch.testing.assert_close(noisy, quiet(gt + torch.rand_like(gt) / levels, lq) + bits)
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
        log_prob = logdet + torch.stack([standard_normal_log_prob(latent) for latent in latents]).sum(0)
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


def test_a_checkpoint_remembers_what_shapes_cannot_tell() -> None:
    state = small_network(feature_blocks=(0, 1), scale_floor=0.1).state_dict()
    small_network(feature_blocks=(0, 1), scale_floor=0.1).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"scale_floor is 0\.1 in the checkpoint and 0\.0001 in the network"):
        small_network(feature_blocks=(0, 1)).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"feature_blocks is \(0, 1\) in the checkpoint and \(0, 2\)"):
        small_network(num_block=3, feature_blocks=(0, 2), scale_floor=0.1).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"log_scale_bound is None in the checkpoint and 0\.5 in the network"):
        small_network(log_scale_bound=0.5).load_state_dict(small_network().state_dict())
    with pytest.raises(RuntimeError, match="encoder_skip is last_block in the checkpoint and conv_first"):
        small_network(encoder_skip="conv_first", scale_floor=0.1).load_state_dict(state)


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
            net[-1].weight.zero_()
            net[-1].logs.zero_()
            net[-1].bias[1::2] = raw
        net.register_forward_hook(lambda module, args, output: scales.append(output[1]))
    network.flow(*network.flow_inputs(*image_pair(4, 4, 6)))
    assert len(scales) == len(nets) == 3 * 2 * 2
    for scale in scales:
        torch.testing.assert_close(scale, torch.full_like(scale, expected), rtol=1e-4, atol=0)


def test_samples_share_the_encoders_features() -> None:
    network = small_network()
    _, lq = image_pair(4, 5, 7)
    features = network.features(lq)
    network.encoder.forward = network.encoder.contexts = None  # is not asked again
    shared = [network.sample(lq, temperature, 2, seed=0, features=features) for temperature in (0, 0.8)]
    for temperature, images in zip((0, 0.8), shared, strict=True):
        assert torch.equal(images, small_network().sample(lq, temperature, 2, seed=0))


def test_only_exploded_places_are_drawn_again() -> None:
    scale, factor = 4, 0.5
    lq = torch.zeros(2, 3, 10, 120)
    generator = torch.Generator().manual_seed(0)
    latent = 0.5 * torch.rand(4, 3, 40, 480, generator=generator)
    latent[1, 0, 20, 40] = 7.0  # 7.5 -> 4 -> ... -> 1.375
    latent[1, 0, 20, 479] = 1.6  # 2.1 -> 1.3
    latent[3, 2, 0, 479] = 1e9
    widths = []

    def decode(latents: Sequence[torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
        assert latents[0].shape[2:] == (scale * lq.shape[2], scale * lq.shape[3])
        widths.append(lq.shape[3])
        return latents[0] + 0.5

    images = decode([latent], lq[[0, 1, 0, 1]])
    assert exploded(images).sum() == 3 and exploded(images)[1, 20, 40]
    widths.clear()
    calm = resample_exploded(decode, [latent], images, lq, scale, 2, factor)
    assert not exploded(calm).any()
    assert torch.equal(calm[[0, 2]], images[[0, 2]])
    assert calm[1, 0, 20, 40] == pytest.approx(0.5 + 7 * factor**3)
    assert calm[1, 0, 20, 479] == pytest.approx(0.5 + 1.6 * factor)
    reach = 4 * scale
    touched = (calm[1, :, :, :400] != images[1, :, :, :400]).any(0).nonzero()
    assert touched.min(0).values.tolist() == [20 - reach, 40 - reach]
    assert touched.max(0).values.tolist() == [39, 40 + reach + scale - 1]
    at_10, at_119 = 10 + 1 + 4 + 2 * 16 + 1, 1 + 4 + 2 * 16 + 1  # the place, REACH, twice OVERLAP, made even
    assert widths[:3] == [at_10, at_119, at_119]  # two places of the second image, one of the fourth
    assert widths[3:6] == [at_10, at_119, at_10] and set(widths[6:]) == {at_119}
    assert calm[3, 2, 0, 479] == 0.5  # 1e9 needs the last try, which is 0


def test_decoding_places_again_is_as_good_as_decoding_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_network(SHIPPED[4])
    lq = image_pair(4, 10, 40, batch=1)[0]  # 40x160 pixels, of which the sample explodes in one place
    widths = []
    decode = network.decode
    monkeypatch.setattr(network, "decode", lambda latents, lq: widths.append(lq.shape[3]) or decode(latents, lq))
    sample = partial(network.sample, lq, temperature=1.0, seed=0, resample=0.5)
    in_places = sample()
    assert widths[0] == 160 and len(widths) > 1 and max(widths[1:]) < 80
    monkeypatch.setattr("srflow_plugin.archs.explosions.OVERLAP", 160)
    torch.testing.assert_close(in_places, sample(), rtol=0, atol=1e-5)
    assert widths[-1] == 160


@pytest.mark.parametrize("tile", [None, 8])
def test_a_sample_drawn_again_is_repeatable_and_finite(tile: int | None) -> None:
    network = SRFlowNet(num_feat=6, num_grow_ch=4, num_block=2, feature_blocks=(0, 1), num_steps=2).eval()
    _, lq = image_pair(4, 9, 17)
    wild = network.sample(lq, 60.0, 2, seed=0, tile=tile)
    assert exploded(wild).any()
    calm = network.sample(lq, 60.0, 2, seed=0, tile=tile, resample=0.5)
    assert not exploded(calm).any()
    assert torch.equal(calm, network.sample(lq, 60.0, 2, seed=0, tile=tile, resample=0.5))
    mild = network.sample(lq, 0.01, 2, seed=0)
    assert torch.equal(mild, network.sample(lq, 0.01, 2, seed=0, resample=0.5))
