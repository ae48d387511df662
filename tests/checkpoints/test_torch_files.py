"""Files of ``torch.save`` that are damaged, or claim more than they hold."""

from __future__ import annotations

import os
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srflow_plugin import load_network
from srflow_plugin.checkpoints.convert import convert
from srflow_plugin.checkpoints.load import encoder_weights, read_checkpoint
from srflow_plugin.errors import UserError
from srflow_plugin.files import save_atomically
from srflow_plugin.training.resume import read_state
from tests.helpers import small_network
from tests.stress.bitflips import are_same, flipped, whole_files


class Called:
    """A call that a pickle asks for."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("kind", [".pth", ".safetensors", ".state", "latents"])
def test_a_flipped_bit_is_found_or_harmless(kind: str, tmp_path: Path) -> None:
    (case,) = (case for case in whole_files(tmp_path) if case[0] == kind)
    counts = flipped(*case[1:], flips=40, seed=1)
    assert counts["found"] + counts["harmless"] == 40 and counts["found"] > 30


@pytest.mark.slow
def test_every_bit_of_a_file_counts_or_does_not_matter(tmp_path: Path) -> None:
    path, weights = tmp_path / "net.pth", {"params": {"a": torch.arange(1.0, 4.0), "b": torch.ones(2)}}
    save_atomically(weights, path)
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        path.write_bytes(whole[: place // 8] + bytes([whole[place // 8] ^ 1 << place % 8]) + whole[place // 8 + 1 :])
        with suppress(UserError):
            assert are_same(read_checkpoint(path), weights), f"bit {place}"


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def doubled(times: int) -> Any:
    value: Any = [0]
    for _ in range(times):
        value = [value, value]
    return value


def itself() -> Any:
    value: dict[str, Any] = {}
    value["params"] = value
    return value


def many_blocks(count: int) -> dict[str, torch.Tensor]:
    state = small_network().state_dict()
    return {**state, **{f"encoder.body.{number}.rdb1.conv1.weight": torch.zeros(1) for number in range(count)}}


def in_weights(**changes: Any) -> dict[str, Any]:
    return {**small_network().state_dict(), **{key.replace("__", "."): value for key, value in changes.items()}}


HUGE = 200_000_000
CRAFTED: dict[str, tuple[Callable[[], Any], str]] = {
    "stride 0": (lambda: in_weights(encoder__conv_first__weight=torch.zeros(1).expand(HUGE, 3, 3, 3)), "claims to be"),
    "no length, others huge": (lambda: in_weights(encoder__conv_first__weight=torch.zeros(HUGE, 0, 3, 3)), "claims to"),
    "views of one": (lambda: {str(number): torch.zeros(9999)[:9998] for number in range(2)} | overlapping(), "claims"),
    "sparse": (lambda: in_weights(a=torch.sparse_coo_tensor(torch.zeros(1, 1), [1.0], (HUGE,))), "_sparse_tensor"),
    "quantised": (lambda: in_weights(a=torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)), "_rebuild_qt"),
    "on meta": (lambda: in_weights(a=torch.zeros(HUGE, HUGE, device="meta")), "_rebuild_meta_tensor"),
    "memory by a call": (lambda: {"a": Called(bytearray, 3 * 10**9)}, "bytearray, which is not loaded"),
    "nested deeply": (lambda: {"params": nested(250)}, "nested without end"),
    "nested doubly": (lambda: {"params": doubled(40)}, "nested without end"),
    "itself within": (itself, "nested without end"),
    "5,000 RRDBs": (lambda: many_blocks(5_000), "5000 RRDBs and 3 levels are more than its"),
    "complex": (lambda: in_weights(encoder__conv_first__bias=torch.zeros(6, dtype=torch.complex64)), "complex64"),
    "eight bits and a scale across": (
        lambda: {"flow.a": torch.zeros(1, 9999, dtype=torch.int8), "flow.a.scale": torch.zeros(9999, 1)},
        "flow.a.scale is [9999, 1], flow.a [1, 9999]",
    ),
    "eight bits and a scale that does not fit": (
        lambda: {"flow.a": torch.zeros(3, 2, dtype=torch.int8), "flow.a.scale": torch.zeros(2, 2)},
        "flow.a.scale is [2, 2]",
    ),
    "setting of whole numbers": (lambda: in_weights(settings__scale_floor=torch.tensor(1)), "a setting is a tensor []"),
    "setting of truth": (lambda: in_weights(settings__scale_floor=torch.tensor(True)), "torch.bool, which none can be"),
    "setting of several": (lambda: in_weights(settings__scale_floor=torch.ones(2)), "a setting is a tensor [2]"),
    "setting of floats": (lambda: in_weights(settings__feature_blocks=torch.tensor([0.0, 1.0])), "a tensor [2]"),
    "setting of many": (lambda: in_weights(settings__feature_blocks=torch.arange(10**5)), "feature_blocks"),
    "setting of a text": (lambda: in_weights(settings__encoder_skip=torch.zeros(3, dtype=torch.uint8)), "encoder_skip"),
    "too few dimensions": (lambda: in_weights(encoder__conv_first__weight=torch.zeros(6)), "too few dimensions"),
    "no dimensions": (lambda: in_weights(encoder__body__0__rdb1__conv1__weight=torch.zeros(())), "too few dimensions"),
    "unused, a number": (lambda: {"params": small_network().state_dict(), "unused": 5}, "as unused is no weights"),
    "unused, a list": (lambda: {"params": small_network().state_dict(), "unused": ["a"]}, "as unused is no weights"),
}


def overlapping() -> dict[str, torch.Tensor]:
    one = torch.zeros(20_000)
    return {f"v{number}": one[: 20_000 - number] for number in range(50)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CRAFTED)
def test_small_files_have_small_cost(case: str, tmp_path: Path) -> None:
    make, message = CRAFTED[case]
    torch.save(make(), tmp_path / "net.pth")
    start = time.process_time()  # whatever else this machine does
    for use in (load_network, lambda path: convert(path, tmp_path / "out.pth")):
        with pytest.raises(UserError) as error:
            use(tmp_path / "net.pth")
        assert message in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400
    assert time.process_time() - start < 10 and [path.name for path in tmp_path.iterdir()] == ["net.pth"]


def compressed(path: Path) -> None:
    torch.save({"a": torch.zeros(10**7)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def twice(path: Path) -> None:
    torch.save({"a": torch.zeros(9)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data/0"))
        archive.writestr(name, bytes(36))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("write", "message"),
    [(compressed, "is compressed; write it anew"), (twice, "is damaged .a name that is there twice")],
)
def test_archives_that_pytorch_does_not_write_are_refused(
    write: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "net.pth")
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path / "net.pth")


def test_whatever_is_right_is_read(tmp_path: Path) -> None:
    network = small_network()
    weights = network.state_dict()
    torch.save({"params": weights, "params_ema": weights}, tmp_path / "shared.pth")
    torch.save(weights, tmp_path / "older.pth", _use_new_zipfile_serialization=False)
    torch.save(OrderedDict(network.named_parameters()) | dict(network.named_buffers()), tmp_path / "parameters.pth")
    torch.save(
        {key: value.bfloat16() if value.ndim > 1 else value for key, value in weights.items()}, tmp_path / "b.pth"
    )
    for path in [*tmp_path.iterdir()]:
        assert load_network(path).scale == 4
    torch.save({"params": {"conv_first.weight": torch.zeros(0, 3)}}, tmp_path / "rrdb.pth")
    assert encoder_weights(read_checkpoint(tmp_path / "rrdb.pth"))


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    scalar, state = np.float64(0).__reduce__()[0], {"epoch": 1, "iter": 5, "optimizers": [], "schedulers": []}
    for content in ((), (bytes(9),), (Called(bytearray, 9),)):
        best = {"a": Called(scalar, Called(np.dtype, "V2000000000"), *content)}
        torch.save({**state, "best_metric_results": best}, tmp_path / "5.state")
        with pytest.raises(UserError, match="is not a readable checkpoint"):
            read_state(tmp_path / "5.state")
    torch.save({**state, "best_metric_results": {"a": np.float32(1.5)}}, tmp_path / "5.state")
    assert read_state(tmp_path / "5.state")["best_metric_results"] == {"a": 1.5}


# -- what training programs write beside the weights -------------------------------------------------------------------


def log_of_mmengine(**more: Any) -> Any:
    """Make the log that mmengine writes: arrays, and functions that sum them up; and more."""
    buffer = pytest.importorskip("mmengine.logging", reason="it comes with the extra train").HistoryBuffer([1.0], [1])
    vars(buffer).update(more)
    return buffer


def test_a_log_beside_the_weights_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = small_network()
    weights = {f"net.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": weights, "message_hub": {"loss": log_of_mmengine()}, "meta": {"iter": 3}}, "net.pth")
    assert all(torch.equal(value, weights[f"net.{key}"]) for key, value in load_network("net.pth").state_dict().items())
    for state, text in (
        (
            {"state_dict": weights, "message_hub": log_of_mmengine(more=Called(os.mkdir, "it_ran"))},
            r"\.mkdir, which is not loaded",
        ),
        ({"state_dict": weights, "history": np.ones(3)}, r"_reconstruct, which is not loaded"),  # of no log
        ({"state_dict": {**weights, "flow.x": log_of_mmengine()}}, "holds no weights"),
    ):
        torch.save(state, "net.pth")
        with pytest.raises(UserError, match=text):
            load_network("net.pth")
    assert not Path("it_ran").exists()
