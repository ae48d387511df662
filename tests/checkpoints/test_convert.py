"""Checkpoints in another format, or in less space."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from srflow_plugin import load_network
from srflow_plugin.checkpoints.convert import Storage, convert
from srflow_plugin.errors import UserError
from tests.helpers import released_like, small_network


@pytest.mark.parametrize("storage", ["half", "compact"])
def test_less_space_for_nearly_the_same_network(storage: Storage, tmp_path: Path) -> None:
    network = small_network()
    torch.save({"params": network.state_dict()}, tmp_path / "net.pth")
    names: tuple[Storage, Storage] = ("float32", storage)
    for name in names:
        convert(tmp_path / "net.pth", tmp_path / f"{name}.safetensors", storage=name)
    whole, small = (load_network(tmp_path / f"{name}.safetensors") for name in names)
    assert {value.dtype for value in small.parameters()} == {torch.float32}
    saved = 0
    for key, value in whole.state_dict().items():
        eight_bit = storage == "compact" and value.ndim == 4 and key.startswith("encoder.body.")
        if value.ndim < 2 or not value.is_floating_point():
            assert torch.equal(small.state_dict()[key], value)
        elif eight_bit:
            largest = value.abs().amax((1, 2, 3), keepdim=True)
            assert ((small.state_dict()[key] - value).abs() <= 0.501 * largest / 127).all()
            saved += 3 * value.numel() - 4 * len(value)
        else:
            assert torch.equal(small.state_dict()[key], value.half().float())
            saved += 2 * value.numel()
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in names]
    assert sizes[0] - sizes[1] == pytest.approx(saved, rel=0.03)  # the headers differ, too


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("middle", ["middle.pth", "middle.safetensors"])
def test_the_way_to_our_format_and_back_keeps_every_bit(tmp_path: Path, middle: str, prefix: str) -> None:
    state = released_like(small_network(4, feature_blocks=(0, 1)))
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "released.pth")
    convert(tmp_path / "released.pth", tmp_path / middle)
    convert(tmp_path / middle, tmp_path / "back.pth", released=True)
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["released.pth", middle, "back.pth"])


def test_a_target_is_replaced_only_when_asked_and_never_by_half(tmp_path: Path) -> None:
    source, target = tmp_path / "a.pth", tmp_path / "b.pth"
    torch.save({"params": small_network().state_dict()}, source)
    target.write_text("mine")
    with pytest.raises(UserError, match=r"b\.pth exists; give --overwrite"):
        convert(source, target)
    with pytest.raises(UserError, match="the released format has scale_floor"):
        torch.save({"params": small_network(scale_floor=0.3).state_dict()}, tmp_path / "c.pth")
        convert(tmp_path / "c.pth", target, released=True, overwrite=True)
    assert target.read_text() == "mine"
    convert(source, target, overwrite=True)
    assert torch.load(target, weights_only=True).keys() == {"params"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "b.pth", "c.pth"]


@pytest.mark.parametrize("target", ["a.pth", "a.safetensors", "released.pth"])
@pytest.mark.parametrize("part", ["encoder.body", "flow.levels.1"])
def test_a_network_that_is_not_whole_is_not_passed_on(tmp_path: Path, target: str, part: str) -> None:
    weights = small_network().state_dict()
    del weights[next(name for name in reversed(weights) if name.startswith(part))]
    torch.save({"params": weights}, tmp_path / "net.pth")
    with pytest.raises(UserError, match="is missing"):
        convert(tmp_path / "net.pth", tmp_path / target, released=target.startswith("released"))
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]
