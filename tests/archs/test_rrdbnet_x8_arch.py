"""RRDBNetX8 is BasicSR's RRDBNet with one more upsampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from basicsr.archs.rrdbnet_arch import RRDBNet

from srflow_plugin import RRDBNetX8

SIZES = {"num_feat": 6, "num_block": 2, "num_grow_ch": 4}


def pair() -> tuple[RRDBNetX8, RRDBNet]:
    """Make both with the same seed."""
    torch.manual_seed(5)
    ours = RRDBNetX8(3, 3, **SIZES)
    torch.manual_seed(5)
    return ours, RRDBNet(3, 3, **SIZES)


def test_names_and_start_are_basicsrs() -> None:
    ours, theirs = (network.state_dict() for network in pair())
    assert list(ours) == [*theirs, "conv_up3.weight", "conv_up3.bias"]
    for key, value in theirs.items():
        assert ours[key].shape == value.shape and torch.equal(ours[key], value), key
    defaults = (network(3, 3).state_dict().items() for network in (RRDBNetX8, RRDBNet))
    ours, theirs = ({key: value.shape for key, value in items} for items in defaults)
    assert theirs.items() <= ours.items()


def test_numbers_are_basicsrs_up_to_the_upsampling_that_it_lacks() -> None:
    ours, theirs = pair()
    seen: dict[str, torch.Tensor] = {}
    theirs.conv_hr.register_forward_pre_hook(lambda module, inputs: seen.update(up4=inputs[0].clone()))
    lq = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs(lq)
        up8 = F.leaky_relu(ours.conv_up3(F.interpolate(seen["up4"], scale_factor=2, mode="nearest")), 0.2)
        expected = theirs.conv_last(F.leaky_relu(theirs.conv_hr(up8), 0.2))
        image = ours(lq)
    assert image.shape == (2, 3, 32, 40) and torch.equal(image, expected)
