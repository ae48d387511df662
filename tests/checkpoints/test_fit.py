"""Which weights fit which network, and what is said where they do not."""

from __future__ import annotations

import pytest
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet

from srflow_plugin import SRFlowNet
from srflow_plugin.errors import UserError
from srflow_plugin.options.schema import Section
from srflow_plugin.training.setup import load_run
from tests.helpers import released_like, small_network


def parse(*force: str, is_train: bool = True) -> Section:
    return load_run("tiny.yml", is_train=is_train, force=force).opt


@pytest.mark.usefixtures("workplace")
def test_option_files_take_released_files() -> None:
    opt = parse()
    arguments = {key: value for key, value in opt["network_g"].items() if key != "type"}
    network = SRFlowNet(**arguments)
    torch.save(released_like(network), "released.pth")
    parse("path:pretrain_network_g=released.pth", is_train=False)


@pytest.mark.usefixtures("workplace")
def test_an_encoder_that_does_not_fit_is_named() -> None:
    for changes, message in [
        ({"num_feat": 16}, r"conv_first\.weight is \[16, 3, 3, 3\] there, \[8, 3, 3, 3\] in network_g"),
        ({"num_block": 1}, r"body\.1\.rdb1\.conv1\.weight is missing"),
        ({"num_block": 3}, "has 3 RRDBs, the encoder of network_g 2"),
    ]:
        rrdb = RRDBNet(3, 3, **{"num_feat": 8, "num_block": 2, "num_grow_ch": 4, **changes})
        torch.save({"params": rrdb.state_dict()}, "rrdb.pth")
        with pytest.raises(UserError, match="path.pretrain_network_encoder: .*" + message):
            parse("path:pretrain_network_encoder=rrdb.pth")
    torch.save({"params": small_network().state_dict()}, "srflow.pth")
    with pytest.raises(UserError, match="holds no RRDB network"):
        parse("path:pretrain_network_encoder=srflow.pth")
