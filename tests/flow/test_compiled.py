"""Steps through PyTorch's compiler: the plan's numbers, few programs, a clear line where there is no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from srflow_plugin import SRFlowNet
from srflow_plugin.flow import compiled
from srflow_plugin.images.files import write_image
from tests.helpers import image_pair, small_network


def network_and_twin(compiled_too: bool = True) -> tuple[SRFlowNet, SRFlowNet]:
    network, twin = small_network(scale_floor=0.3), small_network(scale_floor=0.3)
    twin.load_state_dict(network.state_dict())
    twin.encoder.compiled = twin.flow.compiled = compiled_too
    return network, twin


def without_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace programs without making machine code of them, which takes a minute."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend="aot_eager"))
    compiled._program.cache_clear()


@pytest.fixture(autouse=True)
def own_programs() -> Iterator[None]:
    yield
    compiled._program.cache_clear()
    torch.compiler.reset()


def test_samples_and_gradients_are_the_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    without_code(monkeypatch)
    check_twin(*network_and_twin())


@pytest.mark.slow
def test_samples_and_gradients_of_machine_code() -> None:
    check_compiler_or_skip()
    check_twin(*network_and_twin())


def check_twin(network: SRFlowNet, twin: SRFlowNet) -> None:
    gt, lq = image_pair(4, 4, 6)
    torch.testing.assert_close(twin.sample(lq, 0.8, 3, seed=0), network.sample(lq, 0.8, 3, seed=0))
    losses, grads = [], []
    for net in (network, twin):
        loss = net(gt, lq).mean()
        loss.backward()
        losses.append(loss)
        grads.append([parameter.grad for parameter in net.parameters()])
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-4)


def test_other_sizes_need_no_other_program(monkeypatch: pytest.MonkeyPatch) -> None:
    without_code(monkeypatch)
    network, twin = network_and_twin()
    twin.sample(torch.rand(1, 3, 8, 10), num_samples=2, seed=0)
    twin.sample(torch.rand(1, 3, 12, 8), num_samples=3, seed=0)
    with torch.compiler.set_stance("fail_on_recompile"):
        for height, width, count in ((10, 14, 2), (16, 8, 5)):
            lq = torch.rand(1, 3, height, width)
            sample = twin.sample(lq, num_samples=count, seed=0)
            torch.testing.assert_close(sample, network.sample(lq, num_samples=count, seed=0))


def test_networks_of_several_sizes_have_their_own_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    without_code(monkeypatch)
    lq = torch.rand(1, 3, 6, 8)
    for hidden in range(8, 19):  # more than PyTorch makes of one function
        network = small_network(scale_floor=0.3, hidden_channels=hidden)
        expected = network.sample(lq, seed=0)
        network.flow.compiled = True
        torch.testing.assert_close(network.sample(lq, seed=0), expected)
    assert compiled._program.cache_info().currsize >= 11


def test_a_machine_without_a_compiler_is_told(tmp_path: Path) -> None:
    """By the real command, since PyTorch asks for the compiler's name when it is imported."""
    write_image(tmp_path / "lr.png", np.zeros((8, 8, 3), np.uint8))
    command = [
        sys.executable,
        "-m",
        "srflow_plugin",
        "upscale",
        "lr.png",
        "-o",
        "sr.png",
        "--compile",
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "PATH": "", "CXX": "no-such-compiler", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "compile needs a C++ compiler" in done.stderr and "apt-get install g++" in done.stderr
    assert "Traceback" not in done.stderr and [path.name for path in tmp_path.iterdir()] == ["lr.png"]


def check_compiler_or_skip() -> None:
    try:
        compiled.check_compiler()
    except ValueError as error:
        pytest.skip(str(error))


def test_tensors_of_weights() -> None:
    convolution = torch.nn.Conv2d(3, 4, 3)
    nested = (convolution, [torch.ones(2), None, (torch.ones(5),)], max)
    found: list[Tensor] = list(compiled._tensors(nested))
    assert [tuple(tensor.shape) for tensor in found] == [(4, 3, 3, 3), (4,), (2,), (5,)]
