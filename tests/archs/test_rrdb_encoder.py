"""The LR encoder."""

from __future__ import annotations

import pytest
import torch

from srflow_plugin.archs.rrdb_encoder import RRDBEncoder
from tests.helpers import image_pair, small_network


def test_a_recomputed_encoder_has_the_same_gradients() -> None:
    gt, lq = image_pair(4, 4, 6)
    gradients = []
    for recompute in (False, True):
        network = small_network(recompute_encoder=recompute)
        network(gt, lq).mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("scale", "num_levels"), [(2, 2), (4, 2), (4, 3), (4, 4), (8, 4)])
def test_each_level_gets_features_of_its_size(scale: int, num_levels: int) -> None:
    encoder = RRDBEncoder(3, 6, 4, 3, (0, 2), scale, num_levels)
    lq = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    contexts, features = encoder.contexts(lq), encoder(lq)
    assert encoder.out_channels == 6 * 3
    for level, (context, expanded) in enumerate(zip(contexts, features, strict=True), start=1):
        assert expanded.shape == (2, 18, 8 * scale // 2**level, 12 * scale // 2**level)
        assert torch.equal(context.expanded(), expanded)
        assert context.factor == max(1, scale // 2**level) or context.coarse is None
    assert len(features) == num_levels


def test_the_trunk_is_added_to_what_skip_says() -> None:
    lq = torch.rand(1, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    released, esrgan = (RRDBEncoder(3, 6, 4, 2, (1,), 2, 1, skip) for skip in ("last_block", "conv_first"))
    esrgan.load_state_dict(released.state_dict())
    with torch.no_grad():
        first = released.conv_first(lq)
        last = released.body(first)
        trunk = released.conv_body(last)
        for encoder, added in ((released, last), (esrgan, first)):
            torch.testing.assert_close(encoder(lq)[0], torch.cat([trunk + added, last], dim=1))
