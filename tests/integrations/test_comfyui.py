"""The node pack for ComfyUI: what it promises, the same pictures as `srflow upscale`, and in the real ComfyUI."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from srflow_plugin import load_network, upscale
from srflow_plugin.checkpoints.shipped import BY_NAME, SHIPPED
from tests.helpers import ROOT, noise_image, small_network

pytest.importorskip("spandrel", reason="spandrel is not installed")
PACK = ROOT / "integrations" / "comfyui"
EXAMPLES = PACK / "example_workflows"
START_SECONDS = 120.0


class StoppedError(Exception):
    pass


class Comfy:
    """What the pack uses of ComfyUI."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done = self.total = 0
        self.steps_before_interruption = 10**9

    def modules(self) -> dict[str, ModuleType]:
        outer = self

        class ProgressBar:
            def __init__(self, total: int) -> None:
                outer.done, outer.total = 0, total

            def update(self, value: int) -> None:
                outer.done += value

        def interrupt() -> None:
            self.steps_before_interruption -= 1
            if self.steps_before_interruption < 0:
                raise StoppedError

        contents: dict[str, dict[str, Any]] = {
            "folder_paths": {
                "get_filename_list": lambda kind: sorted(path.name for path in (self.folder / kind).iterdir()),
                "get_full_path_or_raise": lambda kind, name: str(self.folder / kind / name),
            },
            "comfy": {},
            "comfy.utils": {"ProgressBar": ProgressBar},
            "comfy.model_management": {
                "get_torch_device": lambda: torch.device("cpu"),
                "module_size": lambda module: 1,
                "free_memory": lambda needed, device: [],
                "throw_exception_if_processing_interrupted": interrupt,
            },
        }
        modules = {name: ModuleType(name) for name in contents}
        for name, values in contents.items():
            vars(modules[name]).update(values)
        vars(modules["comfy"]).update(model_management=modules["comfy.model_management"])
        return modules


@pytest.fixture
def comfy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Comfy:
    (tmp_path / "upscale_models").mkdir()
    made = Comfy(tmp_path)
    for name, module in made.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.fixture
def pack(comfy: Comfy, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Import the pack as ComfyUI does: a package by the path of its folder."""
    import spandrel

    before = spandrel.MAIN_REGISTRY.copy()
    name = "custom_nodes_srflow"
    spec = importlib.util.spec_from_file_location(name, PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop(f"{name}.nodes")
    vars(spandrel.MAIN_REGISTRY).update(vars(before))


def call(pack: ModuleType, node: str, **inputs: Any) -> tuple[Any, ...]:
    """Call a node as ComfyUI's executor does."""
    cls = pack.NODE_CLASS_MAPPINGS[node]
    outputs: tuple[Any, ...] = getattr(cls(), cls.FUNCTION)(**inputs)
    assert len(outputs) == len(cls.RETURN_TYPES)
    return outputs


def tiny_model(pack: ModuleType, comfy: Comfy) -> Any:
    torch.save(
        {"params": small_network(log_scale_bound=0.1).state_dict()}, comfy.folder / "upscale_models" / "tiny.pth"
    )
    return call(pack, "LoadSRFlow", model_name="tiny.pth", precision="auto")[0]


def as_comfy(*images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(images).astype(np.float32) / 255)


@pytest.mark.parametrize("node", ["LoadSRFlow", "SampleSRFlow"])
def test_what_is_promised_to_comfyui(pack: ModuleType, node: str) -> None:
    cls = pack.NODE_CLASS_MAPPINGS[node]
    assert callable(getattr(cls, cls.FUNCTION)) and isinstance(cls.CATEGORY, str) and cls.DESCRIPTION
    assert node in pack.NODE_DISPLAY_NAME_MAPPINGS and len(cls.RETURN_NAMES) == len(cls.RETURN_TYPES)
    for inputs in cls.INPUT_TYPES().values():
        for kind, *options in inputs.values():
            assert isinstance(kind, list) or kind in ("SRFLOW_MODEL", "IMAGE", "FLOAT", "INT")
            assert kind not in ("FLOAT", "INT") or {"default", "min", "max"} <= options[0].keys()


def test_the_list_has_the_package_and_the_folder(pack: ModuleType, comfy: Comfy) -> None:
    tiny_model(pack, comfy)
    cls = pack.NODE_CLASS_MAPPINGS["LoadSRFlow"]
    names, _ = cls.INPUT_TYPES()["required"]["model_name"]
    assert names == [*sorted(BY_NAME), "tiny.pth"]
    before = cls.IS_CHANGED("tiny.pth", "auto")
    os.utime(comfy.folder / "upscale_models" / "tiny.pth", ns=(1, 1))
    assert cls.IS_CHANGED("tiny.pth", "auto") != before


@pytest.mark.parametrize("tile", [0, pytest.param(8, marks=pytest.mark.slow)])
def test_pictures_are_those_of_upscale(pack: ModuleType, comfy: Comfy, tile: int) -> None:
    model = tiny_model(pack, comfy)
    images = [noise_image(9, 10, seed) for seed in (0, 1)]
    samples, spread = call(
        pack, "SampleSRFlow", srflow_model=model, image=as_comfy(*images), temperature=0.4, num_samples=2, seed=5,
        tile=tile,
    )  # fmt: skip
    assert samples.dtype == torch.float32 and samples.shape == (4, 36, 40, 3)
    path = comfy.folder / "upscale_models" / "tiny.pth"
    for number, image in enumerate(images):
        wanted = upscale(image, 0.4, 2, seed=5, checkpoint=path, tile=tile or "auto", device="cpu")
        given = (255 * samples[2 * number : 2 * number + 2]).round().to(torch.uint8).numpy()
        assert np.array_equal(given, wanted)
    assert spread.shape[0] == 2 and spread.shape[2:] == (40, 3) and spread.min() >= 0 and spread.max() <= 1
    assert (comfy.done, comfy.total) == (18, 18)


def test_one_sample_has_a_blank_map(pack: ModuleType, comfy: Comfy) -> None:
    _, spread = call(
        pack, "SampleSRFlow", srflow_model=tiny_model(pack, comfy), image=torch.rand(1, 5, 6, 4), temperature=0.0,
        num_samples=1, seed=0,
    )  # fmt: skip
    assert (spread[:, :20] == 1).all()  # of 20 rows, above the scale


def test_it_can_be_interrupted_between_rows_of_tiles(pack: ModuleType, comfy: Comfy) -> None:
    model, comfy.steps_before_interruption = tiny_model(pack, comfy), 4
    with pytest.raises(StoppedError):
        call(
            pack, "SampleSRFlow", srflow_model=model, image=torch.rand(1, 40, 8, 3), temperature=0.5, num_samples=1,
            seed=0, tile=8,
        )  # fmt: skip
    assert 0 < comfy.total - comfy.done < 40
    assert next(model.network.parameters()).device.type == "cpu"


def test_importing_the_pack_opens_files_for_comfyuis_own_node(pack: ModuleType) -> None:
    import spandrel

    lq = torch.rand(1, 3, 8, 8)
    model = spandrel.ModelLoader().load_from_file(SHIPPED["photo"].path)
    assert torch.equal(model(lq), load_network("srflow_x4").sample(lq, 0, resample=0.8)[0].clamp(0, 1))


def api_workflow() -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads((PACK / "srflow_api.json").read_text(encoding="utf-8"))
    return workflow


def test_the_example_names_what_is_there(pack: ModuleType) -> None:
    page = json.loads((EXAMPLES / "srflow_samples.json").read_text(encoding="utf-8"))
    for kind in [node["class_type"] for node in api_workflow().values()], [node["type"] for node in page["nodes"]]:
        assert {"LoadSRFlow", "SampleSRFlow", "LoadImage", "SaveImage"} == {*kind}
    for node in api_workflow().values():
        if node["class_type"] in pack.NODE_CLASS_MAPPINGS:
            inputs = pack.NODE_CLASS_MAPPINGS[node["class_type"]].INPUT_TYPES()
            assert node["inputs"].keys() == {*inputs["required"], *inputs.get("optional", {})}


def test_the_pack_can_be_published() -> None:
    about = (PACK / "pyproject.toml").read_text(encoding="utf-8")
    assert all(line in about for line in ('name = "srflow"', "[tool.comfy]", "PublisherId", 'license = "Apache-2.0"'))
    requirements = (PACK / "requirements.txt").read_text(encoding="utf-8").split()
    assert all(f'"{name}"' in about for name in requirements) and (PACK / "README.md").is_file()


class Server:
    """ComfyUI with the pack, in a process of its own."""

    def __init__(self, clone: Path, folder: Path) -> None:
        for name in ("custom_nodes", "models/upscale_models", "input"):
            (folder / name).mkdir(parents=True)
        (folder / "custom_nodes" / "srflow").symlink_to(PACK)
        for one in SHIPPED.values():
            (folder / "models" / "upscale_models" / one.path.name).symlink_to(one.path)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        python = os.environ.get("COMFYUI_PYTHON", sys.executable)
        command = [python, str(clone / "main.py"), "--cpu", "--port", self.url.rpartition(":")[2]]
        command += ["--base-directory", str(folder), "--database-url", "sqlite:///:memory:"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.folder = folder
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=clone, env=environment, stdout=log, stderr=log)

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data)) as answer:
            return json.load(answer)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def wait(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < end:
            try:
                self.ask("/system_stats")
                return
            except urllib.error.URLError:
                time.sleep(0.5)
        pytest.fail(self.log())

    def pictures(self, workflow: dict[str, Any], node: str) -> list[np.ndarray]:
        """Run a workflow; return what a SaveImage node of it wrote."""
        number = self.ask("/prompt", {"prompt": workflow})["prompt_id"]
        while number not in (history := self.ask(f"/history/{number}")):
            assert self.process.poll() is None, self.log()
            time.sleep(0.2)
        outputs = history[number]["outputs"]
        assert node in outputs, self.log()
        return [np.asarray(Image.open(self.folder / "output" / one["filename"])) for one in outputs[node]["images"]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    clone = os.environ.get("COMFYUI")
    if not clone:
        pytest.skip("COMFYUI names no clone of ComfyUI (COMFYUI_PYTHON: the Python that has what it needs)")
    running = Server(Path(clone), tmp_path / "comfy")
    yield running
    running.process.terminate()
    running.process.wait()


def api_with(network: str) -> dict[str, Any]:
    workflow = api_workflow()
    workflow["2"]["inputs"]["model_name"] = network
    return workflow


def own_nodes(file: str) -> dict[str, Any]:
    """Make a workflow of ComfyUI's own nodes."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
        "2": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": file}},
        "3": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["2", 0], "image": ["1", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "own"}},
    }


@pytest.mark.slow
def test_the_real_comfyui(server: Server) -> None:
    image = np.asarray(Image.fromarray(noise_image(4, 4)).resize((20, 20), Image.Resampling.BICUBIC))
    Image.fromarray(image).save(server.folder / "input" / "example.png")
    server.wait()
    for name, scale, _ in SHIPPED.values():
        # ComfyUI cuts the fraction of a grey level off where `srflow upscale` rounds.
        drawn = np.stack(server.pictures(api_with(name), "4")).astype(int)
        wanted = upscale(image, 0.8, 3, seed=0, checkpoint=name, device="cpu")
        assert drawn.shape == wanted.shape and np.abs(drawn - wanted).max() <= 1
        (most_likely,) = server.pictures(own_nodes(f"{name}.safetensors"), "4")
        (wanted,) = upscale(image, 0, checkpoint=name, device="cpu")
        assert wanted.shape == (20 * scale, 20 * scale, 3) and np.abs(most_likely.astype(int) - wanted).max() <= 1
