"""The noise of training leaves images as bright as they are, belongs to its draw, and bounds the code of any size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from srflow_plugin import SRFlowNet
from srflow_plugin.applications.maps import code_length_map, nll_map
from srflow_plugin.flow import latents_log_prob
from tests.helpers import image_pair, plain_encode, small_network

SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "uniform": {"noise": "uniform"},
    "uniform, 32 levels": {"noise": "uniform", "noise_levels": 32},
    "gaussian": {"noise": "gaussian"},
    "conditional": {"noise": "conditional", "noise_sigma": 8.0},
    "trained one-sided": {"one_sided_noise": 256, "noise": "uniform"},
}


def exact_flow(batch: torch.Tensor, lq: torch.Tensor, **settings: Any) -> SRFlowNet:
    """Make a flow that knows its training images exactly as far as it can: their mean and variance at each channel.

    Its conditional networks are zero, so that its ActNorms are all there is, and these are fitted.
    """
    torch.manual_seed(0)
    network = SRFlowNet(num_feat=4, num_grow_ch=2, num_block=1, feature_blocks=[0], num_steps=1, **settings).train()
    network.initialize(batch, lq)
    return network.eval()


def grey_images(height: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Make 8 bit images whose noise of one draw averages out to a hundredth of a grey level."""
    generator = torch.Generator().manual_seed(0)
    gt = torch.randint(60, 196, (32, 3, height, height), generator=generator).float() / 255
    return gt, torch.zeros(32, 3, height // 4, height // 4)


@pytest.mark.parametrize("name", SETTINGS)
def test_what_an_exact_flow_draws_is_as_bright_as_its_images(name: str) -> None:
    gt, lq = grey_images()
    network = exact_flow(gt, lq, **SETTINGS[name])
    smooth = network.sample(lq[:1], temperature=0)
    bias = 255 * (smooth.mean() - gt.mean())
    assert abs(float(bias)) < 0.03
    drawn = (255 * network.sample(lq, temperature=1, seed=None)).round() / 255
    # The images of this flow are Gaussian, 39 grey levels wide: their mean is known to a few hundredths.
    assert abs(float(255 * (drawn.mean() - gt.mean()))) < 0.15


def test_a_network_trained_one_sided_is_half_a_level_too_bright_unless_it_says_so() -> None:
    gt, lq = grey_images()
    noisy = gt + torch.rand(gt.shape, generator=torch.Generator().manual_seed(1)) / 256
    before = exact_flow(noisy, lq)
    bias = 255 * float(before.sample(lq[:1], temperature=0).mean() - gt.mean())
    assert bias == pytest.approx(0.498, abs=0.03)
    told = SRFlowNet(
        num_feat=4, num_grow_ch=2, num_block=1, feature_blocks=[0], num_steps=1, one_sided_noise=256
    ).eval()
    weights = {key: value for key, value in before.state_dict().items() if not key.startswith("settings.")}
    told.load_state_dict(weights, strict=False)
    assert 255 * float(told.sample(lq[:1], temperature=0).mean() - gt.mean()) == pytest.approx(0, abs=0.03)
    with torch.no_grad():
        latents, logdet = told.encode(gt, lq)
        theirs, their_logdet = before.encode(gt + 1 / 512, lq)
        assert all(torch.equal(*pair) for pair in zip(latents, theirs, strict=True))
        assert torch.equal(logdet, their_logdet)
        torch.testing.assert_close(told.decode(latents, lq), gt)
        torch.testing.assert_close(told.code_length(gt, lq), before.code_length(gt + 1 / 512, lq))
        plain, _ = plain_encode(told, gt, lq)
    torch.testing.assert_close(plain[0], latents[0])


@pytest.mark.parametrize("name", ["uniform", "gaussian", "conditional"])
def test_noise_of_a_draw_is_the_same_in_any_batch(name: str) -> None:
    network = small_network(scale_floor=0.3, **SETTINGS[name]).double().train()
    gt, lq = image_pair(4, 4, 6, batch=4, dtype=torch.float64)
    with torch.no_grad():
        torch.manual_seed(0)
        together = network(gt, lq, noise_seeds=[5, 6, 7, 8])
        torch.manual_seed(1)
        parts = [network(gt[part], lq[part], noise_seeds=[5 + part.start, 6 + part.start]) for part in PAIRS]
        torch.testing.assert_close(torch.cat(parts), together, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(network(gt, lq, noise_seeds=[5, 6, 7, 9])[3], together[3])


PAIRS = [slice(0, 2), slice(2, 4)]
SIZES = [(1, 1), (1, 4), (5, 5), (3, 6), (4, 6)]


def extended_bits(network: SRFlowNet, gt: torch.Tensor, lq: torch.Tensor, seed: int) -> torch.Tensor:
    """Bits of the 8 bit image extended by its last row and column, by the layers alone; of these the own image's."""
    multiple = network.scale * network.lq_multiple
    bottom, right = (-size % multiple for size in gt.shape[2:])
    extended = torch.nn.functional.pad(gt, (0, right, 0, bottom), mode="replicate")
    noise = torch.rand(extended.shape[1:], generator=torch.Generator().manual_seed(seed)) - 0.5
    latents, logdet = plain_encode(network, extended + noise.to(gt) / 256, network.padded_lq(lq))
    return 8 * extended[0].numel() - (latents_log_prob(latents) + logdet) / math.log(2)


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize(("h", "w"), SIZES)
def test_code_length_is_the_bits_of_the_image_itself_whatever_its_size(scale: int, h: int, w: int) -> None:
    network = small_network(scale, scale_floor=0.3).double()
    gt, lq = image_pair(scale, h, w, dtype=torch.float64)
    gt = (255 * gt).round() / 255
    with torch.no_grad():
        bits = network.code_length(gt, lq, seed=3)
        torch.testing.assert_close(bits * gt[0].numel(), extended_bits(network, gt, lq, 3), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(code_length_map(network, gt, lq, 3).mean((1, 2)), bits, rtol=1e-10, atol=1e-10)
        assert code_length_map(network, gt, lq).shape == (2, scale * h, scale * w)
        torch.testing.assert_close(nll_map(network, gt, lq).mean((1, 2)), network(gt, lq), rtol=1e-10, atol=1e-10)
        for batch in (gt[:1], gt[1:]):
            assert network.code_length(batch, lq[: len(batch)]).shape == (1,)


def test_the_two_quantities_differ_by_the_noise_alone_for_any_size() -> None:
    # With an image that is its own dequantised one, the bits are 8 more than the density, extended or not.
    network = exact_flow(*grey_images(16))
    for h, w in SIZES:
        gt = torch.full((1, 3, 4 * h, 4 * w), 128 / 255)
        lq = torch.zeros(1, 3, h, w)
        with torch.no_grad():
            assert float(network.code_length(gt, lq) - network(gt, lq)) == pytest.approx(8, abs=0.01)


def test_the_density_of_an_extended_image_is_no_higher_for_its_copies() -> None:
    network = exact_flow(*grey_images(16))
    with torch.no_grad():
        bits = [
            float(network.code_length(torch.full((1, 3, 4 * h, 4 * w), 128 / 255), torch.zeros(1, 3, h, w)))
            for h, w in SIZES
        ]
    # Every value of this flow costs alike; what is added costs bits, too, and is divided by the own values.
    for (h, w), of_size in zip(SIZES, bits, strict=True):
        values = (h + h % 2) * (w + w % 2) / (h * w)
        assert of_size == pytest.approx(values * bits[-1], rel=0.02)


def test_no_noise_may_be_said_as_option_files_say_it() -> None:
    assert SRFlowNet(num_feat=4, num_block=1, feature_blocks=[0], num_steps=1, noise=None).noise == "none"
    with pytest.raises(ValueError, match="noise must be none, uniform, gaussian or conditional, not 'x'"):
        SRFlowNet(num_feat=4, num_block=1, feature_blocks=[0], num_steps=1, noise="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one_sided_noise must be 1 or more, not 0"):
        SRFlowNet(num_feat=4, num_block=1, feature_blocks=[0], num_steps=1, one_sided_noise=0)
