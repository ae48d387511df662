"""LPIPS as a loss."""

from __future__ import annotations

import lpips
import pytest
import torch
import torchvision
from basicsr.losses import build_loss

from srflow_plugin.images.tensors import to_bgr, to_tensor
from srflow_plugin.metrics import published
from srflow_plugin.metrics.lpips_metric import calculate_stlpips
from srflow_plugin.metrics.published import Net
from tests.helpers import noise_image


@pytest.mark.slow
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_is_that_of_its_package(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The trunk's weights need a download; the formula can be compared on others.
    name = {"alex": "alexnet", "vgg": "vgg16"}[net]
    torch.manual_seed(0)
    trunk = getattr(torchvision.models, name)(weights=None)
    monkeypatch.setattr(torchvision.models, name, lambda pretrained: trunk)
    monkeypatch.setattr(published, "trunk_weights", lambda net: trunk.state_dict())
    loss = build_loss({"type": "LPIPSLoss", "net": net, "loss_weight": 0.5})
    x, gt = torch.rand(2, 3, 64, 64, requires_grad=True), torch.rand(2, 3, 64, 64)
    distance, style = loss(x, gt)
    expected = lpips.LPIPS(net=net, verbose=False)(2 * x - 1, 2 * gt - 1)
    torch.testing.assert_close(distance, 0.5 * expected.mean())
    assert style is None and loss(gt, gt)[0] == 0
    distance.backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_shift_tolerant_lpips_is_what_the_metric_says(net: Net) -> None:
    pytest.importorskip("stlpips_pytorch", reason="the extra stlpips is not installed")
    loss = build_loss({"type": "STLPIPSLoss", "net": net, "loss_weight": 0.5})
    images = [noise_image(64, 72, seed) for seed in range(2)]
    x, gt = (to_tensor(image) for image in images)
    x.requires_grad_()
    distance, style = loss(x, gt)
    expected = calculate_stlpips(to_bgr(images[0]), to_bgr(images[1]), net=net)
    assert float(distance) == pytest.approx(0.5 * expected, rel=1e-4)
    assert style is None and float(loss(gt, gt)[0]) == pytest.approx(0, abs=1e-6)
    distance.backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())
