"""Our RRDB is BasicSR's: the same names, the same start, the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from basicsr.archs import rrdbnet_arch
from basicsr.archs.arch_util import make_layer
from torch import nn

from srflow_plugin.archs import rrdb

BLOCKS = {"ResidualDenseBlock": {"num_feat": 6, "num_grow_ch": 4}, "RRDB": {"num_feat": 6, "num_grow_ch": 4}}


def assert_same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    own, other = ours.state_dict(), theirs.state_dict()
    assert list(own) == list(other)
    for key, value in own.items():
        assert value.shape == other[key].shape and torch.equal(value, other[key]), key


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_basicsrs(name: str) -> None:
    blocks: list[Any] = []
    for module in (rrdb, rrdbnet_arch):
        torch.manual_seed(7)
        blocks.append(getattr(module, name)(**BLOCKS[name]))
    ours, theirs = blocks
    assert_same_weights(ours, theirs)
    assert any(value.any() for key, value in ours.state_dict().items() if key.endswith("weight"))
    x = torch.randn(2, 6, 9, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.equal(ours(x), theirs(x))
    gradients = [torch.autograd.grad(block(x).sum(), x)[0] for block in blocks]
    assert torch.equal(*gradients)


def test_sizes_that_are_not_given_are_basicsrs() -> None:
    states = [module.ResidualDenseBlock().state_dict() for module in (rrdb, rrdbnet_arch)]
    shapes = [{key: value.shape for key, value in state.items()} for state in states]
    assert shapes[0] == shapes[1]


def test_a_trunk_is_basicsrs() -> None:
    torch.manual_seed(3)
    ours = rrdb.make_trunk(3, 6, 4)
    torch.manual_seed(3)
    theirs = make_layer(rrdbnet_arch.RRDB, 3, num_feat=6, num_grow_ch=4)
    assert_same_weights(ours, theirs)
    x = torch.randn(1, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x), theirs(x))
