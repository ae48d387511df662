"""Convolutions of the flow in full precision, whatever PyTorch is told: TF32 emulated, and fake GPU tensors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from srflow_plugin.flow import fast, full_precision
from tests.helpers import image_pair, small_network


def is_tf32() -> bool:
    """Ask as cuDNN does for a convolution, by either of PyTorch's settings."""
    cudnn: Any = torch.backends.cudnn
    try:
        return bool(cudnn.allow_tf32)
    except RuntimeError:
        return bool(cudnn.conv.fp32_precision == "tf32")


def ten_bits(x: torch.Tensor) -> torch.Tensor:
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2**11).round() / 2**11, exponent)


class TF32(TorchFunctionMode):
    """What a GPU computes: convolutions of rounded numbers where the setting allows it."""

    rounded = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.conv2d, torch.nn.functional.conv2d) and is_tf32() and args[0].dtype == torch.float32:
            self.rounded += 1
            args = (ten_bits(args[0]), ten_bits(args[1]), *args[2:])
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=["by default", "by the newer setting"])
def allowed(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "by default":
        assert is_tf32()
        yield
        return
    conv: Any = getattr(torch.backends.cudnn, "conv", None)
    if not hasattr(conv, "fp32_precision"):
        pytest.skip("this PyTorch has the older setting only")
    was = conv.fp32_precision
    conv.fp32_precision = "tf32"
    yield
    conv.fp32_precision = was


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(("precision", "encoder_rounds"), [("float32", False), ("tf32", True)])
def test_tf32_does_not_reach_the_flow(precision: str, encoder_rounds: bool) -> None:
    network = small_network(scale_floor=0.3, precision=precision)
    gt, lq = image_pair(4, 8, 10)
    with torch.no_grad():
        exact_latents, exact_logdet = network.encode(gt, lq)
        exact = network.decode(exact_latents, lq)
        with TF32() as gpu:
            latents, logdet = network.encode(gt, lq)
            back = network.decode(latents, lq)
            assert (gpu.rounded > 0) == encoder_rounds
    assert (back - gt).abs().max() < 2e-4  # with rounded convolutions it is 0.05
    assert is_tf32()  # of the rest of the program
    if not encoder_rounds:
        assert torch.equal(logdet, exact_logdet) and torch.equal(back, exact)


@pytest.mark.usefixtures("allowed")
def test_the_emulation_would_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network(scale_floor=0.3)
    gt, lq = image_pair(4, 8, 10)
    monkeypatch.setattr("srflow_plugin.flow.precision._exact_cudnn", lambda: lambda: None)
    with torch.no_grad(), TF32():
        back = network.decode(network.encode(gt, lq)[0], lq)
    assert (back - gt).abs().max() > 2e-3


@pytest.mark.usefixtures("allowed")
def test_training_recomputes_and_differentiates_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "KEPT_BYTES", 0)
    network = small_network(scale_floor=0.3).train()
    gt, lq = image_pair(4, 4, 6)
    asked: list[bool] = []

    class Ask(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.convolution.default:
                asked.append(is_tf32())
            return func(*args, **(kwargs or {}))

    with Ask():  # type: ignore[no-untyped-call]
        loss = network(gt, lq).mean()
        forward = len(asked)
        loss.backward()
    assert forward > 0 and len(asked) > forward and not any(asked)  # the recomputed ones, too


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this PyTorch has no fake GPU tensors")
@pytest.mark.parametrize("allow", [True, False])
def test_convolutions_of_gpu_tensors(allow: bool) -> None:
    asked: list[tuple[str, bool]] = []

    class Ask(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.convolution.default:
                asked.append((args[0].device.type, is_tf32()))
            return func(*args, **(kwargs or {}))

    network = small_network(precision="tf32")
    was, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, allow
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            gpu = network.to("cuda")
            lq, gt = torch.rand(1, 3, 4, 6, device="cuda"), torch.rand(1, 3, 16, 24, device="cuda")
            with Ask():  # type: ignore[no-untyped-call]
                features = gpu.features(lq)
                of_encoder = len(asked)
                gpu.decode_features(gpu.encoding(gt, lq, features).latents, features)
    finally:
        torch.backends.cudnn.allow_tf32 = was
    assert {device for device, _ in asked} == {"cuda"}
    assert {tf32 for _, tf32 in asked[:of_encoder]} == {allow}  # the program's own choice
    assert {tf32 for _, tf32 in asked[of_encoder:]} == {False} and len(asked) > of_encoder


def test_scopes_may_be_nested_and_open_in_several_threads() -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with full_precision():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with full_precision(), full_precision():
        thread.start()
        inside.wait()
        assert not is_tf32()
    assert not is_tf32()
    leave.set()
    thread.join()
    assert is_tf32()
    with pytest.raises(ValueError, match=r"^oh$"), full_precision():
        raise ValueError("oh")
    assert is_tf32()
