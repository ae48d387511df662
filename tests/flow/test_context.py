"""The convolution that reads features coarser than their level."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from srflow_plugin.flow import Context


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_convolution_of_an_enlargement(factor: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((2, 3, 5 * factor, 4 * factor), (2, 4, 5, 4), (6, 7, 3, 3), (6,))
    ]
    own, coarse, weight, bias = tensors
    context = Context(own, coarse)
    ours = context.conv(weight, bias)
    plain = F.conv2d(context.expanded(), weight, bias, padding=1)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    direction = torch.randn(plain.shape, dtype=torch.float64, generator=generator)
    gradients = [torch.autograd.grad(output, tensors, direction) for output in (ours, plain)]
    for gradient, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-11)


def test_a_window_of_a_context_is_the_window_of_its_enlargement() -> None:
    generator = torch.Generator().manual_seed(0)
    context = Context(torch.randn(1, 2, 12, 16, generator=generator), torch.randn(1, 3, 3, 4, generator=generator))
    rows, columns = slice(4, 12), slice(0, 8)
    assert context.factor == 4
    assert torch.equal(context.crop(rows, columns).expanded(), context.expanded()[:, :, rows, columns])
    own = Context(context.own)
    assert own.factor == 1 and torch.equal(own.crop(rows, columns).expanded(), context.own[:, :, rows, columns])
