"""Everything that runs on a device, on one that is pretended: no tensor is made on the CPU where it is not meant to be.

PyTorch's fake tensors have shapes, types and a device, and no numbers; they refuse to mix devices as real ones do. The
pretended device is "meta", since its backward pass needs no driver, and CUDA where PyTorch is built for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
import torch
from basicsr.models import build_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from srflow_plugin.applications.editing import interpolate, restore, transfer_content
from srflow_plugin.applications.maps import code_length_map, nll_map, sample_std
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.flow import compiled, precision
from srflow_plugin.images.resize import bicubic_upscale, differentiable_downscale
from srflow_plugin.models import validation
from srflow_plugin.options.schema import Section
from srflow_plugin.sampling import explosions
from tests.helpers import NETWORKS, small_network

aten = torch.ops.aten
DEVICES = ["meta", pytest.param("cuda", marks=[] if torch.backends.cuda.is_built() else pytest.mark.skip("no CUDA"))]
SIDE = 12  # of LR images; no multiple of 8
COPIES = (aten._to_copy.default, aten.copy_.default)
MASKED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
WAITING = (
    *(aten._local_scalar_dense.default, aten._linalg_check_errors.default, aten.equal.default),
    *(aten.nonzero.default, aten.masked_select.default, aten.repeat_interleave.Tensor, aten._unique2.default),
)


class Watch(TorchDispatchMode):
    """Mode that notes every tensor made on the CPU out of nothing; it answers questions about numbers.

    Seeded draws are made on the CPU on purpose, and PyTorch's own code wraps numbers there. ``lacks_float64``: the
    device is one that knows no float64 and no linear algebra. ``waits``: what cannot go on before the device has done
    all that it was asked for.
    """

    def __init__(self, device: str, lacks_float64: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.lacks_float64 = device, lacks_float64
        self.wrong: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.right = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.is_waiting(func, args, kwargs):
            self.waits[str(func)] += 1
        if func is aten._local_scalar_dense.default:
            return 1.0 if args[0].is_floating_point() else 0
        if func is aten.nonzero.default:
            return args[0].new_zeros((1, args[0].ndim), dtype=torch.int64)
        result = func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        is_meant = func is aten.scalar_tensor.default or kwargs.get("generator") is not None
        for tensor in made:
            is_there = tensor.device.type == self.device
            is_lacking = self.lacks_float64 and (tensor.dtype == torch.float64 or "linalg" in str(func))
            is_beside = self.lacks_float64 and tensor.ndim == 0  # of what is computed on the CPU instead
            if (is_there and is_lacking) or not (is_there or given or is_meant or is_beside):
                self.wrong[str(func)] += 1
            self.right += is_there
        return result

    def is_waiting(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Say whether the host waits: for numbers, for a size that depends on them, or for a copy."""
        if func in COPIES:
            source, target = (args[1], args[0]) if func is aten.copy_.default else (args[0], args[0])
            target = torch.device(kwargs.get("device") or target.device)
            is_quick = target.type == "meta" or (target.type != "cpu" and kwargs.get("non_blocking", False))
            return target.type != source.device.type and not is_quick
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        is_there = any(tensor.device.type == self.device for tensor in given)
        is_masked = func in MASKED and any(index is not None and index.dtype == torch.bool for index in args[1])
        return is_there and (func in WAITING or is_masked)


@contextmanager
def pretended(network: nn.Module, device: str, lacks_float64: bool = False) -> Iterator[Watch]:
    """Move a network to a device that is pretended; in the block nothing is made elsewhere."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to(device)
        for parameter in network.parameters():
            assert isinstance(parameter, FakeTensor) and parameter.device.type == device
        with Watch(device, lacks_float64) as watch:
            yield watch
    assert watch.right > 0 and not watch.wrong


def fake_pair(network: SRFlowNet, device: str) -> tuple[Tensor, Tensor]:
    """Make an HR and an LR image, a batch of two."""
    size = network.scale * SIDE
    return torch.rand(2, 3, size, size, device=device), torch.rand(2, 3, SIDE, SIDE, device=device)


WAITS: dict[str, Callable[[Tensor], object]] = {
    "a number": lambda x: float(x.sum()),
    "a question": lambda x: bool((x > 0).all()),
    "numbers": lambda x: x.tolist(),
    "where": lambda x: x.nonzero(),
    "a mask": lambda x: x[x > 0],
    "back": lambda x: x.cpu(),
    "there": lambda x: torch.ones(3).to(x),
    "into": lambda x: x.copy_(torch.ones(3)),
    "an inverse": lambda x: torch.linalg.inv(x.diag()),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", WAITS)
def test_waiting_is_noticed(name: str, device: str) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True), Watch(device) as watch, suppress(DynamicOutputShapeException):
        WAITS[name](torch.rand(3, device=device))
    assert watch.waits.total() or (device == "meta" and name in ("there", "into"))


def test_a_tensor_on_the_wrong_device_is_noticed() -> None:
    def make_on_cpu(network: SRFlowNet) -> Tensor:
        return torch.zeros(3)

    def mix(network: SRFlowNet) -> Tensor:
        return next(network.parameters()).flatten()[:3] + torch.rand(3, generator=torch.Generator())

    def invert(network: SRFlowNet) -> Tensor:
        inverse: Tensor = torch.linalg.inv(torch.ones(3, 3, device="meta"))
        return inverse

    for fault in (make_on_cpu, mix, invert):
        network = small_network()
        with pytest.raises((AssertionError, RuntimeError)), pretended(network, "meta", lacks_float64=True) as watch:
            torch.ones(3, device="meta")
            fault(network)
        assert watch.right > 0


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["none", "uniform", "gaussian", "conditional"])
@pytest.mark.parametrize("seeds", [None, [3, 4]])
def test_training(noise: str, seeds: list[int] | None) -> None:
    network = small_network(noise=noise).train()
    with pretended(network, "meta") as watch:
        gt, lq = fake_pair(network, "meta")
        network.initialize(gt, lq, noise_seeds=seeds)
        watch.waits.clear()
        terms = network(gt, lq, terms=True, with_image=True, noise_seeds=seeds)
        (terms.nll.mean() + terms.image.mean()).backward()
        torch.optim.Adam(network.parameters()).step()
        assert {parameter.grad.device.type for parameter in network.parameters() if parameter.grad is not None} == {
            "meta"
        }
        assert not watch.waits


def whole(network: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    return network.sample(lq, 0.8, 2)


def seeded(network: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    return network.sample(lq, 0.8, 2, seed=0)


def in_tiles(network: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    return network.sample(lq, 0.8, 2, seed=0, tile=4)


def as_memory_allows(network: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    return network.sample(lq, 0.8, seed=0, tile="auto")


def drawn_again(network: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    return network.sample(lq, 0.8, 2, seed=0, resample=0.5)


def with_features(network: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    return network.sample(lq, 0.8, features=network.features(lq))


def there_and_back(network: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    latents, logdet = network.encode(gt, lq)
    return network.decode(latents, lq) + logdet[0]


def measured(network: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    lengths = network.code_length(gt, lq)
    return lengths + network.likelihood(gt[:, :, :-4, :-4], lq[:, :, :-1, :-1]).nll() if network.scale == 4 else lengths


def mapped(network: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    return nll_map(network, gt, lq) + code_length_map(network, gt, lq) + sample_std(network, lq, num_samples=2, seed=0)


def edited(network: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    changed = interpolate(network, gt, gt.flip(2), lq, steps=3)[1]
    return changed + transfer_content(network, gt, lq, lq.flip(2)) + restore(network, gt, lq)


def resized(network: SRFlowNet, gt: Tensor, lq: Tensor) -> Tensor:
    return bicubic_upscale(differentiable_downscale(gt, network.scale), network.scale)


USES = [
    *(whole, seeded, in_tiles, as_memory_allows, drawn_again, with_features),
    *(there_and_back, measured, mapped, edited, resized),
]
# They must know whether anything exploded, and make their weights on the CPU.
WAITING_USES = {"cuda": (drawn_again, resized), "meta": (drawn_again,)}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("use", USES)
def test_use(use: Callable[..., Tensor], device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explosions, "boxes", lambda mask: [(slice(2, 6), slice(2, 6))])  # which reads numbers
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**33, 2**33))
    monkeypatch.setattr(torch, "Generator", lambda device=None, cpu=torch.Generator: cpu())  # without a driver
    network = small_network()
    with pretended(network, device) as watch, torch.no_grad():
        assert use(network, *fake_pair(network, device)).device.type == device
    assert bool(watch.waits) == (use in WAITING_USES[device]), watch.waits


class Places(TorchDispatchMode):
    """Mode that notes the devices of all tensors that operations are given or make."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.places: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, result))
        self.places |= {leaf.device.type for leaf in leaves if isinstance(leaf, Tensor)}
        return result


@pytest.mark.parametrize("device", DEVICES)
def test_decoding_has_nothing_on_the_cpu_that_a_graph_could_not_hold(device: str) -> None:
    network = small_network()
    latents = [torch.zeros(2, *shape) for shape in network.latent_shapes(SIDE, SIDE)]
    with pretended(network, device), torch.no_grad():
        there = [latent.to(device) for latent in latents]
        lq = fake_pair(network, device)[1][:1]
        with Places() as noted:
            network.decode(there, lq)
    assert noted.places == {device}


@pytest.mark.parametrize("device", DEVICES[1:])
@pytest.mark.parametrize("seed, place", [(None, "cuda"), (0, "cpu")])
def test_a_gpu_draws_latents_that_no_seed_asks_for(
    device: str, seed: int | None, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: set[str] = set()

    def randn(*arguments: Any, real: Callable[..., Tensor] = torch.randn, **options: Any) -> Tensor:
        drawn = real(*arguments, **options)
        places.add(drawn.device.type)
        return drawn

    network = small_network()
    monkeypatch.setattr(torch, "randn", randn)
    monkeypatch.setattr(torch, "Generator", lambda device=None, cpu=torch.Generator: cpu())
    with pretended(network, device):
        network.sample(fake_pair(network, device)[1], seed=seed)
    assert places == {place}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network(name: str) -> None:
    network = small_network(**NETWORKS[name])
    with pretended(network, "meta"):
        network(*fake_pair(network, "meta")).sum().backward()
        for use in (in_tiles, there_and_back, measured):
            use(network.requires_grad_(False), *fake_pair(network, "meta"))


@pytest.mark.parametrize("device", DEVICES[1:])
def test_bfloat16(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    network = small_network(precision="bfloat16")
    with pretended(network, device), torch.no_grad():
        for use in (seeded, in_tiles, measured):
            use(network, *fake_pair(network, device))


@pytest.mark.parametrize("use", USES)
def test_a_device_without_float64_and_linear_algebra(
    use: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explosions, "boxes", lambda mask: [(slice(2, 6), slice(2, 6))])
    monkeypatch.setattr(precision, "COMPLETE", ("cpu",))
    network = small_network()
    for name, value in network.settings.named_buffers():
        setattr(network.settings, name, value.float() if value.is_floating_point() else value)
    with pretended(network, "meta", lacks_float64=True), torch.no_grad():
        assert use(network, *fake_pair(network, "meta")).device.type == "meta"


def test_validation_and_a_step_of_training(tiny_options: Section, monkeypatch: pytest.MonkeyPatch) -> None:
    def blank(image: Tensor) -> np.ndarray:
        assert image.device.type == "meta"
        return np.zeros((*image.shape[1:], 3), np.uint8)

    monkeypatch.setattr(validation, "to_pixels", blank)
    tiny_options["val"].update(resample=0.5)
    tiny_options["val"]["metrics"]["nll"] = {"type": "calculate_nll"}
    monkeypatch.setattr(explosions, "boxes", lambda mask: [(slice(2, 6), slice(2, 6))])
    model = build_model(tiny_options)
    model.device = torch.device("meta")
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.net_g_ema.to("meta")
        with pretended(model.net_g, "meta") as watch:
            model.setup_optimizers()
            gt, lq = fake_pair(model.net_g, "meta")
            model.feed_data({"gt": gt, "lq": lq, "gt_path": ["a", "b"], "draw": np.array([1, 2])})
            model.optimize_parameters(1)
            watch.waits.clear()
            model.optimize_parameters(2)
            assert watch.waits == {"aten._local_scalar_dense.default": len(model.log_dict)}, (
                "more than the log's numbers"
            )
            model.feed_data({"gt": gt[:1], "lq": lq[:1]})
            pictures, values = model._measure()
            assert model._grid(pictures).ndim == 3 and values["samples"] == 3


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this PyTorch has no fake GPU tensors")
def test_compiled_programs_are_whole_and_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every program of blocks and steps is traced without a break, and no tensor of one is elsewhere."""
    places: list[set[str]] = []

    def note(program: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        values = [node.meta.get("example_value") for node in program.graph.nodes]
        places.append({str(value.device) for value in values if isinstance(value, Tensor)})
        return program.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend=note, fullgraph=True))
    compiled._program.cache_clear()
    network = small_network(scale_floor=0.3)
    network.encoder.compiled = network.flow.compiled = True
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to("cuda")
        gt, lq = fake_pair(network, "cuda")
        latents = [torch.rand(2, *shape, device="cuda") for shape in network.latent_shapes(SIDE, SIDE)]
        with torch.no_grad():
            assert network.decode(latents, lq).device.type == "cuda"
        assert network(gt, lq).device.type == "cuda"  # its backward pass asks for a driver
    assert len(places) >= 3 * 3 + 1 and all(place == {"cuda:0"} for place in places)
    compiled._program.cache_clear()
    torch.compiler.reset()
