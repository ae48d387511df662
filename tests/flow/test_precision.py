"""Convolutions of the flow in full precision, whatever PyTorch is told: TF32 emulated, and fake GPU tensors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from srflow_plugin import SRFlowNet
from srflow_plugin.flow import fast, full_precision, onednn
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


IN_AUTOCAST: dict[str, Callable[[SRFlowNet, Tensor, Tensor], Tensor]] = {
    "forward": lambda net, gt, lq: net(gt, lq),
    "encode": lambda net, gt, lq: torch.cat([latent.flatten() for latent in net.encode(gt, lq)[0]]),
    "code length": lambda net, gt, lq: net.code_length(gt, lq),
    "sample": lambda net, gt, lq: net.sample(lq, 0.8, seed=0),
    "sample in tiles": lambda net, gt, lq: net.sample(lq, 0.8, seed=0, tile=4),
    "the definition": lambda net, gt, lq: net.flow(*net.flow_inputs(gt, lq))[1],
    "the definition's inverse": lambda net, gt, lq: net.flow.inverse(
        [torch.ones(1, *shape) for shape in net.latent_shapes(8, 10)], net.flow_inputs(gt, lq)[1]
    )[0],
    "compiled": lambda net, gt, lq: torch.compile(net, backend="eager")(gt, lq),
}


@pytest.mark.filterwarnings("ignore")  # of torch.compile
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", IN_AUTOCAST)
def test_autocast_does_not_reach_the_flow(method: str, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scope of bfloat16 means precision: bfloat16, one of float16 changes nothing."""
    if method == "compiled" and os.name == "nt":
        pytest.skip("torch.compile asks for a compiler on Windows")
    if method == "compiled":  # which fuses in its own way
        monkeypatch.setattr(onednn, "is_fused", lambda x: False)
    network = small_network(scale_floor=0.3)
    same = small_network(scale_floor=0.3, precision="bfloat16" if kind == torch.bfloat16 else "float32")
    gt, lq = image_pair(4, 8, 10)
    gt, lq = gt[:1], lq[:1]
    with torch.no_grad():
        expected = IN_AUTOCAST[method.replace("compiled", "forward")](same, gt, lq)
        with torch.autocast("cpu", kind):
            found = IN_AUTOCAST[method](network, gt, lq)
            assert torch.is_autocast_enabled("cpu")  # for the rest of the program
    assert found.dtype == torch.float32 and torch.equal(found, expected)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_round_trip_within_autocast_is_exact(precision: str, kind: torch.dtype) -> None:
    network = small_network(scale_floor=0.3, precision=precision)
    gt, lq = image_pair(4, 8, 10)
    with torch.no_grad(), torch.autocast("cpu", kind):
        back = network.decode(network.encode(gt, lq)[0], lq)
    is_exact = precision != "bfloat16" and kind == torch.float16
    assert (back - gt).abs().max() < (2e-4 if is_exact else 2e-3)  # mixed in 16 bits: 0.01 and 0.08


def test_training_within_autocast_has_the_gradients_of_bfloat16() -> None:
    network = small_network(scale_floor=0.3).train()
    same = small_network(scale_floor=0.3, precision="bfloat16").train()
    gt, lq = image_pair(4, 4, 6)
    same(gt, lq).mean().backward()
    with torch.autocast("cpu", torch.bfloat16):
        network(gt, lq).mean().backward()
    for parameter, other in zip(network.parameters(), same.parameters(), strict=True):
        assert parameter.grad is not None and other.grad is not None
        assert torch.equal(parameter.grad, other.grad)
