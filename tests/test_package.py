"""What a source distribution carries, what is depended on, who imports whom, and what is announced to others."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import entry_points, requires, version
from pathlib import Path
from typing import NamedTuple

import pytest

import srflow_plugin
from tests.helpers import CLONE, ROOT

pytestmark = CLONE
PACKAGE = ROOT / "srflow_plugin"
# What BasicSR or ST-LPIPS is the one to import: see setup.py.
NOT_IMPORTED = {"torchvision", "scipy", "setuptools", "torchsummary", "ipython", "onnxscript"}
IMPORT_NAMES = {
    "my-basicsr": "basicsr",
    "mmcv-lite": "mmcv",
    "opencv-python": "cv2",
    "scikit-image": "skimage",
    "stlpips-pytorch": "stlpips_pytorch",
    "huggingface-hub": "huggingface_hub",
    "pillow": "PIL",
    "pyyaml": "yaml",
}
COMES_WITH = {"gradio": {"gradio_client", "httpx", "starlette"}, "mmcv-lite": {"mmengine"}}
CORE = ("applications", "archs", "checkpoints", "flow", "images", "sampling")
CORE_MODULES = ("__init__", "_version", "compat", "devices", "errors", "files", "locks", "memory", "progress", "shares")
# What is used where it is there, by the modules that can do without.
OPTIONAL = {
    ("memory.py", "psutil"),
    ("images/rows.py", "cv2"),
    ("progress.py", "tqdm"),
    ("training/log.py", "wandb"),
    ("training/tracking.py", "trackio"),
}


class Import(NamedTuple):
    """An import, with what it takes from the module, if that is said.

    Attributes:
        module: full name.
        names: after ``from ... import``.
        is_late: inside a function.
    """

    module: str
    names: tuple[str, ...]
    is_late: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def imports_of(path: Path) -> Iterator[Import]:
    """Find all imports of a file that happen when it runs: not those for type checkers."""

    def visit(node: ast.AST, is_late: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, (), is_late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path}: {ast.unparse(node)}"
            yield Import(node.module, tuple(alias.name for alias in node.names), is_late)
        inside = is_late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(ast.parse(path.read_text()), False)


def declared(extra: str | None) -> set[str]:
    """List the distributions that an extra requires, without the base; None: the base."""
    lines = (line.partition(";") for line in requires("srflow_plugin") or [])
    return {
        re.split(r"[^\w.-]", requirement)[0].lower()
        for requirement, _, marker in lines
        if (f'extra == "{extra}"' in marker if extra else not marker)
    }


def modules_of(*extras: str) -> set[str]:
    """List the modules that the base and extras bring."""
    names = declared(None).union(*(declared(extra) for extra in extras))
    brought = {IMPORT_NAMES.get(name, name) for name in names}
    return brought.union(*(COMES_WITH.get(name, set()) for name in names))


def is_core(path: Path) -> bool:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] in CORE or (len(inside.parts) == 1 and inside.stem in CORE_MODULES)


def extras_of(path: Path) -> tuple[str, ...]:
    """Name the extras that a file may rely on."""
    folder = path.relative_to(ROOT).parts[0]
    if folder != "srflow_plugin":
        return ("test",)
    if is_core(path):
        return ()
    inside = path.relative_to(PACKAGE)
    if inside.parts[0] == "demo":
        return ("demo",)
    if inside.as_posix() == "cli/completion.py":
        return ("completion",)
    if inside.parts[0] == "integrations":
        return (inside.stem,) if inside.stem in ("spandrel", "onnx", "hub") else ("train",)
    return ("train", "stlpips") if inside.as_posix() == "metrics/published.py" else ("train",)


FILES = [
    path
    for folder in ("srflow_plugin", "tests", "benchmarks", "recipes")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def distribution(kind: str, root: Path, target: Path) -> set[str]:
    """Make a distribution of a copy of this project; return the names in it."""
    command = [sys.executable, "setup.py", "--quiet", kind, "--dist-dir", str(target)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = target.iterdir()
    if kind == "bdist_wheel":
        with zipfile.ZipFile(archive) as zipped:
            return set(zipped.namelist())
    with tarfile.open(archive) as tarred:
        return {member.name.partition("/")[2] for member in tarred if member.isfile()}


# What may lie about in a folder of work, and is nobody else's business.
STRAY = (
    *("docs/.cache/secret.txt", "docs/notes.swp", "docs/.draft.md", "docs/pictures/mine.jpeg", "docs/letter.pdf"),
    *("srflow_plugin/weights/mine.safetensors", "srflow_plugin/weights/net.pth", "srflow_plugin/.env", ".env"),
    *(
        "experiments/a/models/net_g_1.pth",
        "datasets/mine/a.png",
        "options/.secret.yml",
        "tests/core",
        "benchmarks/a.png",
    ),
    *("datasets/key.pem", "recipes/.netrc", "options/wandb.key", ".ci/venv/pyvenv.cfg", "results/x.md", "token.txt"),
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sdist", "bdist_wheel"])
def test_what_lies_about_stays_at_home(kind: str, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns(".git", ".ci", "__pycache__", "*.egg-info", "build", "experiments", ".*_cache")
    root = shutil.copytree(ROOT, tmp_path / "root", ignore=ignored)
    before = distribution(kind, root, tmp_path / "before")
    for name in STRAY:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("secret")
    shutil.rmtree(root / "build", ignore_errors=True)
    assert distribution(kind, root, tmp_path / "after") == before
    assert {"srflow_plugin/weights/srflow_x4.safetensors", "srflow_plugin/weights/srflow_x8_face.safetensors"} < before


def test_the_lock_has_a_hash_for_everything_that_is_depended_on() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "\n--only-binary :all:\n" in lock  # no code runs while it is installed
    entries = re.findall(r"^([a-z][a-z0-9._-]*)==\S+(.*?)(?=^[a-z]|\Z)", lock, flags=re.MULTILINE | re.DOTALL)
    assert len(entries) > 100 and all("--hash=sha256:" in rest for _, rest in entries)
    wanted = [re.split(r"[<>=!;\[ ]", line)[0].lower() for line in requires("srflow_plugin") or []]
    assert {*wanted} - {"basicsr"} <= {name for name, _ in entries}  # a BasicSR of one's own is not in it


@pytest.mark.slow
def test_options_and_data_set_pages_travel_in_the_source_distribution(tmp_path: Path) -> None:
    names = distribution("sdist", ROOT, tmp_path)
    for pattern in (
        "options/*.yml",
        "options/*.json",
        "datasets/*.md",
        "docs/**/*.md",
        "benchmarks/*.py",
        "recipes/*.py",
        "recipes/*.yml",
        "tests/*.py",
        "tests/*/*.py",
        "tests/*.yml",
        "srflow_plugin/weights/*.safetensors",
    ):
        expected = {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)}
        assert expected and expected <= names, pattern
    assert {"LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "requirements.lock"} <= names
    assert {"srflow_plugin/py.typed", "srflow_plugin/flow/layers.py"} <= names
    assert not [name for name in names if name.startswith("datasets/") and not name.endswith((".md", "datasets/"))]


def test_the_version_has_one_place() -> None:
    assert version("srflow_plugin") == srflow_plugin.__version__
    literal = re.compile(rf"""["']{re.escape(srflow_plugin.__version__)}["']""")
    others = [path for path in (*FILES, ROOT / "setup.py", ROOT / "pyproject.toml") if literal.search(path.read_text())]
    assert others == [PACKAGE / "_version.py"]


def test_the_base_asks_for_little_and_leaves_versions_alone() -> None:
    base = [line for line in requires("srflow_plugin") or [] if ";" not in line]
    assert sorted(base) == ["numpy", "pillow", "safetensors", "torch"]


def test_every_dependency_is_imported() -> None:
    imported = {one.top for path in FILES if PACKAGE in path.parents for one in imports_of(path)}
    for dependency in declared(None).union(*(declared(extra) for extra in ("train", "demo", "stlpips"))) - NOT_IMPORTED:
        assert IMPORT_NAMES.get(dependency, dependency) in imported, dependency


@pytest.mark.slow
def test_every_import_is_a_declared_dependency() -> None:
    for path in FILES:
        known = {*sys.stdlib_module_names, "srflow_plugin", *modules_of(*extras_of(path))}
        if PACKAGE not in path.parents:
            known |= {"tests", "benchmarks"}
        for one in imports_of(path):
            is_optional = PACKAGE in path.parents and (path.relative_to(PACKAGE).as_posix(), one.top) in OPTIONAL
            assert one.top in known or (is_optional and one.is_late), f"{one.module} in {path}"


def test_the_core_rests_on_itself() -> None:
    for path in filter(is_core, PACKAGE.rglob("*.py")):
        for one in imports_of(path):
            if one.module.startswith("srflow_plugin.") and not one.is_late:
                assert one.module.split(".")[1] in (*CORE, *CORE_MODULES), f"{one.module} in {path}"


def test_nobody_imports_by_way_of_the_package_itself() -> None:
    for path in PACKAGE.rglob("*.py"):
        for one in imports_of(path):
            if one.module == "srflow_plugin":
                assert path == PACKAGE / "__init__.py" and one.names == ("compat",), path


def test_nobody_imports_the_commands() -> None:
    for path in PACKAGE.rglob("*.py"):
        if PACKAGE / "cli" not in path.parents and path != PACKAGE / "__main__.py":
            assert not [one for one in imports_of(path) if one.module.startswith("srflow_plugin.cli")], path


def test_all_names_of_the_package_are_there_and_typed() -> None:
    assert {*srflow_plugin._HOMES, "__version__"} == {*srflow_plugin.__all__}
    for name, home in srflow_plugin._HOMES.items():
        assert getattr(srflow_plugin, name).__module__ == f"srflow_plugin.{home}"
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (for_checkers,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.name: node.module
        for node in for_checkers.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == {name: f"srflow_plugin.{home}" for name, home in srflow_plugin._HOMES.items()}
    assert {*srflow_plugin.__all__} <= {*dir(srflow_plugin)}
    with pytest.raises(AttributeError, match="module 'srflow_plugin' has no attribute 'no_such_name'"):
        srflow_plugin.no_such_name  # noqa: B018


def test_entry_points() -> None:
    assert {"srflow_plugin"} <= {point.name for point in entry_points(group="basicsr.plugins")}
    scripts = {point.name: point.value for point in entry_points(group="console_scripts")}
    assert scripts["basicsr"] == "srflow_plugin.cli.main:basicsr_command"
    assert scripts["srflow"] == "srflow_plugin.cli.main:srflow_command"
