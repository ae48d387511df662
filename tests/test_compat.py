"""BasicSR works with today's libraries once the package is imported, and its registries are filled, in any order."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import cv2
import pytest
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY

import srflow_plugin
from srflow_plugin import compat
from tests.helpers import ROOT, UNIX, run_python

REGISTERED = {
    "ARCH_REGISTRY": ("SRFlowNet", "RRDBNetX8"),
    "LOSS_REGISTRY": ("NLLLoss", "LPIPSLoss", "STLPIPSLoss"),
    "MODEL_REGISTRY": ("SRFlowModel", "SRFlowPriorModel"),
    "METRIC_REGISTRY": (
        "calculate_code_length",
        "calculate_coverage",
        "calculate_crps",
        "calculate_diversity",
        "calculate_energy_score",
        "calculate_lpips",
        "calculate_lr_psnr",
        "calculate_nll",
        "calculate_pixel_std",
        "calculate_stlpips",
    ),
}
ALL_THERE = f"""
from basicsr.utils import registry
for name, things in {REGISTERED}.items():
    for thing in things:
        assert thing in getattr(registry, name), (name, thing)
"""
BUILD = """
from basicsr.archs import build_network
network = build_network(dict(
    type='SRFlowNet', num_feat=4, num_grow_ch=4, num_block=1, feature_blocks=[0], num_steps=1, hidden_channels=4
))
assert type(network).__module__ == 'srflow_plugin.archs.srflow_arch'
"""
ALIASES = """
import sys, scipy.ndimage, torchvision.transforms.functional
sys.modules['torchvision.transforms.functional_tensor'] = torchvision.transforms.functional
sys.modules['scipy.ndimage.filters'] = scipy.ndimage
"""
# All that may import BasicSR or be imported by it, through the registries.
TRAINING_WING = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("data", "leaderboard", "losses", "metrics", "models", "options", "training")
    for path in (ROOT / "srflow_plugin" / folder).glob("[!_]*.py")
)
FORKS = f"""
import importlib, os, sys, traceback
import torch, torchvision.models, cv2, lmdb, scipy.ndimage, scipy.stats, matplotlib, mmcv, yaml, tqdm
for module in {["srflow_plugin.registry", *TRAINING_WING]}:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(module)
            import basicsr
            exec({ALL_THERE!r})
            exec({BUILD!r})
            os._exit(0)
        except BaseException:
            print(module, 'first:', traceback.format_exc(), file=sys.stderr, flush=True)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0, module
"""


def test_what_is_registered_is_ours() -> None:
    registries = {
        "ARCH_REGISTRY": ARCH_REGISTRY,
        "LOSS_REGISTRY": LOSS_REGISTRY,
        "MODEL_REGISTRY": MODEL_REGISTRY,
        "METRIC_REGISTRY": METRIC_REGISTRY,
    }
    for name, things in REGISTERED.items():
        for thing in things:
            assert registries[name].get(thing) is getattr(srflow_plugin, thing)
    ours = {name for name in srflow_plugin.__all__ if name[0].isupper() or name.startswith("calculate_")}
    assert ours == {thing for things in REGISTERED.values() for thing in things}


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import srflow_plugin",
        "import srflow_plugin, basicsr",
        "import srflow_plugin, basicsr.train",
        f"{ALIASES}import basicsr, srflow_plugin",
        f"{ALIASES}import basicsr\nimport srflow_plugin.archs.srflow_arch",
        "import srflow_plugin\nsrflow_plugin.SRFlowModel",
    ],
)
def test_registries_are_filled_whoever_imports_what_first(imports: str) -> None:
    done = run_python(imports + BUILD + ALL_THERE)
    assert done.returncode == 0, done.stderr


@UNIX
@pytest.mark.slow
def test_any_module_may_be_imported_first() -> None:
    done = run_python(FORKS)
    assert done.returncode == 0, done.stderr


def test_basicsr_is_neither_imported_nor_asked_for_by_the_package() -> None:
    done = run_python("import sys, srflow_plugin\nassert not {'basicsr', 'torch', 'numpy'} & sys.modules.keys()")
    assert done.returncode == 0, done.stderr


def test_without_basicsr_its_import_fails_as_ever() -> None:
    no_packages = "sys.path = [path for path in sys.path if 'packages' not in path]"
    done = run_python(f"import srflow_plugin, sys\n{no_packages}\nimport basicsr")
    assert done.returncode == 1 and "ModuleNotFoundError: No module named 'basicsr'" in done.stderr


def test_the_finder_is_there_once() -> None:
    compat.follow_basicsr()
    assert sum(isinstance(finder, compat.BasicSRFinder) for finder in sys.meta_path) == 1


def test_flow_needs_neither_basicsr_nor_options() -> None:
    for path in (ROOT / "srflow_plugin" / "flow").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.module is not None
                names = [node.module]
            allowed = ("torch", *sys.stdlib_module_names, "srflow_plugin.flow")
            assert [name for name in names if not name.startswith(allowed)] == [], path.name


def test_a_missing_module_gets_an_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "scipy.no_such_module", raising=False)
    compat.alias_if_missing("scipy.no_such_module", "scipy.ndimage")
    try:
        assert sys.modules["scipy.no_such_module"] is sys.modules["scipy.ndimage"]
    finally:
        del sys.modules["scipy.no_such_module"]


@pytest.mark.slow
def test_a_present_module_is_left_alone() -> None:
    # what a newer or patched BasicSR, or an older torchvision, needs
    done = run_python(
        "import sys, types\n"
        "old = 'torchvision.transforms.functional_tensor'\n"
        "import torchvision.transforms.functional as new\n"
        "sys.modules[old] = own = types.ModuleType(old)\n"
        "own.rgb_to_grayscale = new.rgb_to_grayscale\n"
        "import srflow_plugin, basicsr\n"
        "assert sys.modules[old] is own"
    )
    assert done.returncode == 0, done.stderr


def test_basicsr_metrics_work(shared_data: Path) -> None:
    image = cv2.imread(str(shared_data / "Set5" / "HR" / "baby.png"))
    same = {"img": image, "img2": image}
    assert calculate_metric(same, {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}) == float("inf")
    assert calculate_metric(same, {"type": "calculate_ssim", "crop_border": 4}) == pytest.approx(1)
    assert 0 < calculate_metric({"img": image}, {"type": "calculate_niqe", "crop_border": 0}) < 10
