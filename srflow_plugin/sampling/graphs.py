"""CUDA graphs: decoding inputs of one size is recorded once, and replayed from then on.

Decoding a small image is some thousands of small operations, and a GPU waits for the host to ask for each of them. A
graph asks for all at once. It reads the weights where they lie, so that weights that change in place count at once.
Written for GPUs without one: what docs/gpu-todo.md runs there comes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from srflow_plugin.progress import tell

if TYPE_CHECKING:
    from srflow_plugin.sampling.field import Decoder

MAX_GRAPHS = 4  # of a network: each keeps the memory that decoding takes
_of_networks: WeakKeyDictionary[Any, Graphs] = WeakKeyDictionary()


def use_graphs(network: nn.Module, use: bool = True) -> None:
    """Let ``network.sample`` replay CUDA graphs from now on, or no longer; the pictures are the same.

    It is for many images, or tiles, of few sizes: the first of each size takes longer. The settings of PyTorch (TF32,
    deterministic algorithms, ...) are those of the first time.
    """
    _of_networks.pop(network, None)
    if use:
        _of_networks[network] = Graphs()


def decode(network: Decoder, latents: Sequence[Tensor], lq: Tensor) -> Tensor:
    """Decode as ``network.decode`` does, by its graphs if it has some."""
    graphs = _of_networks.get(network)
    return network.decode(latents, lq) if graphs is None else graphs.decode(network, latents, lq)


class Graphs:
    """Graphs of one network by the sizes of their inputs; of the sizes used last."""

    def __init__(self) -> None:
        self.recorded: OrderedDict[object, Recorded] = OrderedDict()
        self._places: list[int] = []  # of the weights
        self._lock = Lock()
        self._works = True

    def decode(self, network: Any, latents: Sequence[Tensor], lq: Tensor) -> Tensor:
        """Decode as ``network.decode`` does, which is called where nothing can be recorded."""
        if not self._works or not can_record(lq):
            image: Tensor = network.decode(latents, lq)
            return image
        inputs = [*latents, lq]
        with self._lock, torch.cuda.device(lq.device):
            places = [x.data_ptr() for x in (*network.parameters(), *network.buffers())]
            if places != self._places:
                self.recorded.clear()
                self._places = places
            key = tuple((x.shape, x.dtype, x.device) for x in inputs)
            try:
                if key not in self.recorded:
                    self.recorded[key] = Recorded(lambda *given: network.decode(given[:-1], given[-1]), inputs)
            except RuntimeError as error:
                self._works = False
                self.recorded.clear()
                tell(f"CUDA graphs are not used: {str(error).splitlines()[0]}")
                image = network.decode(latents, lq)
                return image
            self.recorded.move_to_end(key)
            while len(self.recorded) > MAX_GRAPHS:
                self.recorded.popitem(last=False)
            return self.recorded[key](inputs)


class Recorded:
    """Call of a function, recorded with copies of these inputs."""

    def __init__(self, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        self.inputs = [x.clone() for x in inputs]
        self.graph = torch.cuda.CUDAGraph()
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        with _recordable_linear_algebra():
            stream.wait_stream(current)
            with torch.cuda.stream(stream):  # a first time, in which libraries choose their ways
                function(*self.inputs)
            current.wait_stream(stream)
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.output = function(*self.inputs)

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        for kept, given in zip(self.inputs, inputs, strict=True):
            kept.copy_(given)
        self.graph.replay()
        return self.output.clone()  # the next replay writes there


def can_record(lq: Tensor) -> bool:
    """Say whether a call with this LR image can be recorded."""
    return lq.is_cuda and not torch.is_grad_enabled()


@contextmanager
def _recordable_linear_algebra() -> Iterator[None]:
    """Let inverses be computed by NVIDIA's libraries in this scope; MAGMA's wait for the device."""
    before = torch.backends.cuda.preferred_linalg_library()
    torch.backends.cuda.preferred_linalg_library("cusolver")
    try:
        yield
    finally:
        torch.backends.cuda.preferred_linalg_library(before)
