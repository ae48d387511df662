"""CUDA graphs on a machine without CUDA: what is recorded is a tape, which repeats the same operations in place."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.sampling import graphs
from srflow_plugin.sampling.graphs import use_graphs
from tests.helpers import image_pair, perturb, small_network


class Tape(TorchDispatchMode):
    """Record of operations; a replay does them again with the same tensors, as a graph does with the same memory."""

    made: list[Tape] = []

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0
        self.made.append(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, result in self.operations:
            for kept, new in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(kept, Tensor):
                    kept.copy_(new)


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tape]]:
    """All that has been recorded, in place of CUDA's graphs."""

    @contextmanager
    def recording(tape: Tape, capture_error_mode: str) -> Iterator[None]:
        with tape:
            yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, stand_in in {
        "CUDAGraph": Tape,
        "graph": recording,
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": nullcontext,
        "device": nullcontext,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.backends.cuda, "preferred_linalg_library", lambda name="default": name)
    monkeypatch.setattr(graphs, "can_record", lambda lq: not torch.is_grad_enabled())
    monkeypatch.setattr(Tape, "made", [])
    yield Tape.made


def samples(network: SRFlowNet, seed: int = 0, height: int = 4, count: int = 2) -> Tensor:
    return network.sample(image_pair(4, height, 6)[1] + seed / 10, 0.8, count, seed=seed, tile=16)


def test_a_replay_is_what_it_replays(tapes: list[Tape]) -> None:
    network = small_network()
    expected = [samples(network, seed) for seed in range(3)]
    use_graphs(network)
    replayed = [samples(network, seed) for seed in range(3)]
    assert len(tapes) == 1 and tapes[0].replays == 3
    for given, wanted in zip(replayed, expected, strict=True):
        assert torch.equal(given, wanted)
    use_graphs(network, False)
    assert torch.equal(samples(network, 1), expected[1]) and tapes[0].replays == 3


@pytest.mark.parametrize("changes", [{"height": 6}, {"count": 3}])
def test_each_size_has_a_graph(changes: dict[str, int], tapes: list[Tape]) -> None:
    network = small_network()
    expected = samples(network, **changes)
    use_graphs(network)
    for _ in range(2):
        samples(network)
        assert torch.equal(samples(network, **changes), expected)
    assert [tape.replays for tape in tapes] == [2, 2]


def test_each_type_has_a_graph(tapes: list[Tape]) -> None:
    network = small_network()
    use_graphs(network)
    samples(network)
    network.double()
    lq = image_pair(4, 4, 6)[1].double()
    assert network.sample(lq, 0.8, 2, seed=0).dtype == torch.float64 and len(tapes) == 2


def test_the_graphs_used_last_are_kept(tapes: list[Tape], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MAX_GRAPHS", 2)
    network = small_network()
    use_graphs(network)
    for height in (4, 6, 4, 8, 4, 6):
        samples(network, height=height)
    assert [tape.replays for tape in tapes] == [3, 1, 1, 1]


def test_weights_that_change_count_at_once(tapes: list[Tape]) -> None:
    network, other = small_network(), perturb(small_network(), seed=5)
    use_graphs(network)
    samples(network)
    network.load_state_dict(other.state_dict())  # in place: the graph reads them
    assert torch.equal(samples(network), samples(other)) and len(tapes) == 1
    again = perturb(small_network(), seed=6)
    network.load_state_dict(again.state_dict(), assign=True)  # at another place
    assert torch.equal(samples(network), samples(again)) and len(tapes) == 2


@torch.no_grad()
def test_an_image_outlives_the_next_replay(tapes: list[Tape]) -> None:
    network, lq = small_network(), image_pair(4, 4, 6)[1]
    use_graphs(network)
    latents = [torch.zeros(2, *shape) for shape in network.latent_shapes(4, 6)]
    first = graphs.decode(network, latents, lq)
    before = first.clone()
    assert not torch.equal(graphs.decode(network, latents, lq / 2), before) and torch.equal(first, before)


def test_gradients_are_recorded_by_nobody(tapes: list[Tape]) -> None:
    network = small_network()
    use_graphs(network)
    lq = image_pair(4, 4, 6)[1]
    latents = [torch.zeros(2, *shape) for shape in network.latent_shapes(4, 6)]
    assert graphs.decode(network, latents, lq).requires_grad and not tapes


def test_a_network_that_cannot_be_recorded_goes_on_without(
    tapes: list[Tape], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = small_network()
    expected = samples(network)
    real = network.decode_features

    def waiting(*arguments: Any) -> Tensor:
        image: Tensor = real(*arguments)
        assert float(image.sum()) < 1e9
        return image

    monkeypatch.setattr(network, "decode_features", waiting)
    use_graphs(network)
    for _ in range(2):
        assert torch.equal(samples(network), expected)
    assert capsys.readouterr().err.splitlines() == [
        "CUDA graphs are not used: operation not permitted when stream is capturing"
    ]
    assert len(tapes) == 1


def test_a_network_is_forgotten_with_its_graphs(tapes: list[Tape]) -> None:
    network = small_network()
    use_graphs(network)
    samples(network)
    gone = weakref.ref(network)
    tapes.clear()
    del network
    gc.collect()
    assert gone() is None and not graphs._of_networks


def test_the_cpu_records_nothing() -> None:
    network = small_network()
    expected = samples(network)
    use_graphs(network)
    assert torch.equal(samples(network), expected) and not graphs._of_networks[network].recorded
