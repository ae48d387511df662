"""Devices by name, and what is said where torch cannot use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F

from srflow_plugin import devices
from srflow_plugin.devices import accelerators, choose_device
from srflow_plugin.errors import UserError
from srflow_plugin.flow.precision import to_complete
from tests.helpers import small_network

Machine = Callable[..., None]


@pytest.fixture(autouse=True)
def as_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The accelerators that torch finds, which other tests do not see."""
    monkeypatch.setattr(devices, "accelerators", accelerators)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A function that makes this a machine with some accelerators, of which some are broken."""

    def make(kind: str | None, count: int = 1, broken: tuple[str, ...] = ()) -> None:
        working = {"cpu", "cpu:0", *(f"{kind}:{index}" for index in range(count)), *([kind] if count else [])} - {
            *broken
        }
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind) if kind else None)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
        monkeypatch.setattr(devices, "fault_of", lambda device: None if str(device) in working else "no kernel")

    devices._say_once.cache_clear()
    yield make
    devices._say_once.cache_clear()


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu", "mtia", "hpu"])
def test_auto_is_the_accelerator_that_torch_finds(kind: str, machine: Machine) -> None:
    machine(kind)
    assert choose_device() == torch.device(kind)
    machine(None)
    assert choose_device() == torch.device("cpu")


def test_older_versions_of_torch_know_cuda_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "fault_of", lambda device: None)
    monkeypatch.delattr(torch, "accelerator")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for is_there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda is_there=is_there: is_there)
        assert choose_device() == torch.device(kind)


def test_a_torch_that_fails_to_look_for_accelerators_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> bool:
        raise RuntimeError("driver and library do not match")

    monkeypatch.setattr(torch.accelerator, "is_available", fails)
    assert choose_device() == torch.device("cpu")


def test_each_process_of_a_launcher_has_an_accelerator_of_its_own(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("xpu", 2)
    assert choose_device() == torch.device("xpu")
    for name, value in {"RANK": "7", "WORLD_SIZE": "8", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    assert choose_device() == torch.device("xpu:1")


def test_auto_falls_back_to_the_cpu_and_says_so_once(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine("cuda", broken=("cuda", "cuda:0"))
    assert choose_device() == choose_device() == torch.device("cpu")
    assert capsys.readouterr().err == "cuda is there and does not work (no kernel): the CPU is used\n"


def test_a_device_is_tried_with_a_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    devices.fault_of.cache_clear()
    assert devices.fault_of(torch.device("cpu")) is None
    assert "meta" in (devices.fault_of(torch.device("meta")) or "")
    monkeypatch.setattr(F, "conv2d", lambda x, weight: torch.zeros(1))
    devices.fault_of.cache_clear()
    assert devices.fault_of(torch.device("cpu")) == "it computes wrong numbers"

    def fails(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: no kernel image is available for execution.\nCUDA kernel errors might be")

    monkeypatch.setattr(F, "conv2d", fails)
    devices.fault_of.cache_clear()
    assert devices.fault_of(torch.device("cpu")) == "CUDA error: no kernel image is available for execution"
    devices.fault_of.cache_clear()


@pytest.mark.parametrize("name", ["cpu", "cpu:0", "cuda", "cuda:1", "CUDA:1", " cpu"])
def test_devices_are_taken_by_name(name: str, machine: Machine) -> None:
    machine("cuda", 2)
    assert choose_device(name) == torch.device(name.strip().lower())


@pytest.mark.parametrize(
    ("name", "kind", "count", "broken", "message"),
    [
        ("gpu", "cuda", 2, (), "device 'gpu' is not known; use auto, cpu, cuda:0 or cuda:1"),
        ("", None, 0, (), "device '' is not known; use auto or cpu"),
        ("cuda:-2", None, 0, (), "device 'cuda:-2' is not known; use auto or cpu"),
        ("meta", "mps", 1, (), "device meta cannot be used here: no kernel; use auto, cpu or mps"),
        ("mps", "cuda", 1, (), "device mps cannot be used here: no kernel; use auto, cpu or cuda"),
        ("cuda:2", "cuda", 2, (), "device cuda:2 cannot be used here: no kernel; use auto, cpu, cuda:0 or cuda:1"),
        ("xpu:0", "xpu", 2, ("xpu:0",), "device xpu:0 cannot be used here: no kernel; use auto, cpu or xpu:1"),
        ("cuda", "cuda", 1, ("cuda",), "device cuda cannot be used here: no kernel; use auto or cpu"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_can(
    name: str, kind: str | None, count: int, broken: tuple[str, ...], message: str, machine: Machine
) -> None:
    machine(kind, count, broken)
    with pytest.raises(UserError) as error:
        choose_device(name)
    assert str(error.value) == message


def test_real_devices_that_are_not_here_are_refused() -> None:
    here = {device.type for device in accelerators()}
    for name in {"mps", "xpu", "cuda:77", "vulkan", "privateuseone", "meta"} - here:
        with pytest.raises(UserError, match=rf"^device {name} cannot be used here: .*; use auto.*$") as error:
            choose_device(name)
        assert len(str(error.value)) < 250


class OfApple(torch.Tensor):
    """A tensor of a device without float64 and linear algebra."""

    device = torch.device("mps")

    def cpu(self, *args: object, **kwargs: object) -> torch.Tensor:
        return torch.full((1,), 7.0)


def test_what_a_device_lacks_is_computed_on_the_cpu() -> None:
    assert to_complete(torch.ones(1).as_subclass(OfApple)).double().item() == 7.0
    here = torch.ones(1)
    assert to_complete(here) is here


def test_a_network_goes_to_a_device_without_float64() -> None:
    def moved(x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return x.clone()

    network = small_network(scale_floor=0.3)
    before = network.settings.scale_floor
    network._apply(moved)  # type: ignore[no-untyped-call]
    assert before.dtype == torch.float64 and network.settings.scale_floor.dtype == torch.float32
    assert network.settings.differences(small_network(scale_floor=0.3).state_dict(), "settings.") == []
    assert network.settings.differences(small_network(scale_floor=0.4).state_dict(), "settings.")
