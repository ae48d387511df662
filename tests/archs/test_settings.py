"""What shapes cannot tell travels with the weights."""

from __future__ import annotations

import pytest
import torch

from srflow_plugin.archs.settings import Value, decode_setting, encode_setting
from tests.helpers import small_network


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


@pytest.mark.parametrize("value", [1e-4, 0.3, None, "last_block", (1, 8, 15, 22), (0,)])
def test_a_setting_comes_back_also_from_float32(value: Value) -> None:
    encoded = encode_setting(value)
    assert decode_setting(encoded) == value
    rounded = encoded.to(torch.float32) if encoded.is_floating_point() else encoded
    assert decode_setting(rounded) == value
