"""Devices by name, and what is said where torch cannot use them."""

from __future__ import annotations

import pytest
import torch

from srflow_plugin.devices import choose_device
from srflow_plugin.errors import UserError


def test_auto_is_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda is_there=is_there: is_there)
        assert choose_device().type == kind


def test_each_process_of_a_launcher_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device() == torch.device("cuda")
    for name, value in {"RANK": "7", "WORLD_SIZE": "8", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    assert choose_device() == torch.device("cuda:1")


def test_any_device_of_torch_is_taken() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("cpu:0") == torch.device("cpu:0")


def test_what_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, message in [
        ("gpu", "device 'gpu' is not known; use auto, cpu, cuda or cuda:1"),
        ("meta", "device 'meta' is not known; use auto, cpu, cuda or cuda:1"),
        ("cuda", "this machine has no GPU that torch can use; use cpu"),
        ("cuda:3", "this machine has no GPU that torch can use; use cpu"),
        ("mps", "device mps: torch cannot use it on this machine; use cpu"),
    ]:
        with pytest.raises(UserError) as error:
            choose_device(name)
        assert message in str(error.value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="this machine has 2 GPUs, counted from cuda:0"):
        choose_device("cuda:2")
