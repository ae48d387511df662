"""Passes through the encoder and the flow: none is made twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from srflow_plugin.applications.editing import interpolate, restore, transfer_content
from srflow_plugin.applications.maps import code_length_map, nll_map, sample_std
from srflow_plugin.applications.redraw import redraw
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.flow import fast
from srflow_plugin.images.files import write_image
from tests.helpers import image_pair, noise_image, small_network, srflow

Use = Callable[[SRFlowNet, Tensor, Tensor], Any]

# Of each use: passes through the encoder, encodings and decodings by the flow.
USES: dict[str, tuple[Use, tuple[int, int, int]]] = {
    "interpolate": (lambda net, gt, lq: interpolate(net, gt, gt, lq, 5), (1, 2, 5)),
    "restore": (lambda net, gt, lq: restore(net, gt, lq), (1, 1, 1)),
    "transfer": (lambda net, gt, lq: transfer_content(net, gt, lq, 0.5 * lq), (2, 1, 1)),
    "redraw": (lambda net, gt, lq: redraw(net, gt, lq, torch.ones(gt.shape[2:]), factor=1.0), (1, 1, 1)),
    "NLL map": (nll_map, (1, 1, 0)),
    "code length map": (code_length_map, (1, 1, 0)),
    "standard deviation": (lambda net, gt, lq: sample_std(net, lq, num_samples=3), (1, 0, 1)),
}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    counted: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            counted[name] += 1
            return function(*args, **options)

        monkeypatch.setattr(owner, name, call)

    count(SRFlowNet, "features")
    count(fast, "encode")
    count(fast, "decode")
    return counted


@pytest.mark.parametrize("name", USES)
def test_no_pass_is_made_twice(passes: Counter[str], name: str) -> None:
    use, expected = USES[name]
    gt, lq = image_pair(4, 8, 8, batch=1)
    use(small_network(), gt, lq)
    assert (passes["features"], passes["encode"], passes["decode"]) == expected


@pytest.mark.parametrize(("size", "encodings"), [((32, 40), 2), ((36, 40), 3)], ids=["whole", "extended"])
def test_latents_and_likelihood_are_of_one_pass_where_they_may_be(
    passes: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], encodings: int
) -> None:
    """The code length asks for noise everywhere; the likelihood of an image that is extended, on what is new."""
    monkeypatch.chdir(tmp_path)
    write_image(Path("hr.png"), noise_image(*size))
    torch.save({"params": small_network().state_dict()}, "net.pth")
    srflow("encode hr.png -o a.safetensors")
    assert (passes["features"], passes["encode"]) == (1, encodings)
