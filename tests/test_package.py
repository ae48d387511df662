"""What a source distribution carries, what is depended on, and what is announced to others."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from importlib.metadata import entry_points, requires
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What BasicSR is the one to import, and what only has to be there: see setup.py.
NOT_IMPORTED = {"torchvision", "lmdb", "scipy", "setuptools"}
IMPORT_NAMES = {
    "my-basicsr": "basicsr",
    "mmcv-lite": "mmcv",
    "opencv-python": "cv2",
    "scikit-image": "skimage",
    "pillow": "PIL",
    "pyyaml": "yaml",
}


def test_options_and_data_set_pages_travel_in_the_source_distribution(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    for pattern in ("options/*.yml", "datasets/*.md", "docs/*.md", "benchmarks/*.py", "tests/*.py", "tests/*.yml"):
        expected = {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)}
        assert expected and expected <= names, pattern
    assert {"LICENSE", "README.md", "CHANGELOG.md", "srflow_plugin/py.typed", "srflow_plugin/flow/layers.py"} <= names
    assert not [name for name in names if name.startswith("datasets/") and not name.endswith((".md", "datasets/"))]


def test_every_dependency_is_imported() -> None:
    dependencies = {re.split(r"[^\w-]", line)[0] for line in requires("srflow_plugin") or [] if "extra" not in line}
    source = "\n".join(path.read_text() for path in (ROOT / "srflow_plugin").rglob("*.py"))
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", source, re.MULTILINE))
    for dependency in dependencies - NOT_IMPORTED:
        assert IMPORT_NAMES.get(dependency, dependency) in imported, dependency


def test_entry_points() -> None:
    assert {"srflow_plugin"} <= {point.name for point in entry_points(group="basicsr.plugins")}
    scripts = {point.name: point.value for point in entry_points(group="console_scripts")}
    assert scripts["basicsr"] == "srflow_plugin.cli.main:basicsr_command"
    assert scripts["srflow"] == "srflow_plugin.cli.main:srflow_command"
