"""BasicSR works with today's libraries once the package is imported, and the registries are filled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY

from srflow_plugin import NLLLoss, SRFlowModel, SRFlowNet, compat


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_import_makes_basicsr_importable_and_registers() -> None:
    done = run_python(
        "import srflow_plugin, basicsr.train\n"
        "from basicsr.utils.registry import ARCH_REGISTRY as a, LOSS_REGISTRY as l, MODEL_REGISTRY as m\n"
        "assert 'SRFlowNet' in a and 'NLLLoss' in l and 'SRFlowModel' in m"
    )
    assert done.returncode == 0, done.stderr
    assert ARCH_REGISTRY.get("SRFlowNet") is SRFlowNet
    assert LOSS_REGISTRY.get("NLLLoss") is NLLLoss
    assert MODEL_REGISTRY.get("SRFlowModel") is SRFlowModel


def test_flow_needs_neither_basicsr_nor_options() -> None:
    for path in (Path(compat.__file__).parent / "flow").glob("*.py"):
        imports = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        allowed = ("torch", "math", "collections", "typing", "__future__", "srflow_plugin.flow")
        assert [line for line in imports if not line.split()[1].startswith(allowed)] == [], path.name


def test_a_missing_module_gets_an_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "scipy.no_such_module", raising=False)
    compat.alias_if_missing("scipy.no_such_module", "scipy.ndimage")
    try:
        assert sys.modules["scipy.no_such_module"] is sys.modules["scipy.ndimage"]
    finally:
        del sys.modules["scipy.no_such_module"]


def test_a_present_module_is_left_alone() -> None:
    # what a newer or patched BasicSR, or an older torchvision, needs
    done = run_python(
        "import sys, types\n"
        "old = 'torchvision.transforms.functional_tensor'\n"
        "import torchvision.transforms.functional as new\n"
        "sys.modules[old] = own = types.ModuleType(old)\n"
        "own.rgb_to_grayscale = new.rgb_to_grayscale\n"
        "import srflow_plugin\n"
        "assert sys.modules[old] is own"
    )
    assert done.returncode == 0, done.stderr


def test_basicsr_metrics_work(shared_data: Path) -> None:
    image = cv2.imread(str(shared_data / "Set5" / "HR" / "baby.png"))
    same = {"img": image, "img2": image}
    assert calculate_metric(same, {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}) == float("inf")
    assert calculate_metric(same, {"type": "calculate_ssim", "crop_border": 4}) == pytest.approx(1)
    assert 0 < calculate_metric({"img": image}, {"type": "calculate_niqe", "crop_border": 0}) < 10
