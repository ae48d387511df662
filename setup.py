"""Metadata, dependencies and commands; pyproject.toml holds the build requirements and the tools' settings."""

import runpy
import sysconfig
from importlib.metadata import Distribution, distributions
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# No bounds here: what an environment has already is left as it is.
CORE = ["torch", "numpy", "pillow", "safetensors"]


def basicsr() -> str:
    """Name of the BasicSR to depend on: the one that this Python has, which is never replaced, or else a wheel.

    BasicSR's own 1.4.2 is a source distribution that asks for torch at build time. docs/how-to/install.md has what was
    tried, and what was compared before trusting the wheel.
    """
    folders = [sysconfig.get_paths()[scheme] for scheme in ("purelib", "platlib")]
    for distribution in distributions(path=folders):
        if distribution.metadata["Name"] == "basicsr" or "basicsr" in packages(distribution):
            return distribution.metadata["Name"]
    is_linked = any((Path(folder) / "basicsr.egg-link").exists() for folder in folders)
    return "basicsr" if is_linked else "my-basicsr==1.4.2"


def packages(distribution: Distribution) -> set[str]:
    """Names that a distribution is imported by, as far as it says."""
    listed = {file.parts[0] for file in distribution.files or () if len(file.parts) > 1}
    return {*(distribution.read_text("top_level.txt") or "").split(), *listed}


TRAIN = [
    basicsr(),
    "torchvision",
    "mmcv-lite>=2.0",  # imports as mmcv; mmcv itself has no wheel that installs today
    "lmdb>=1.4",
    "lpips>=0.1.4",
    "matplotlib",
    "opencv-python>=4.8",
    "scikit-image>=0.22",  # the photographs of the embedded data set
    "scipy>=1.11",
    "pyyaml>=6.0",
    "tqdm>=4.60",
    # TensorBoard comes with BasicSR as tb-nightly. `tensorboard` beside it breaks the tensorboard command, and
    # tb-nightly needs pkg_resources, which setuptools 81 dropped.
    "setuptools>=77.0.3,<81",
]
DEMO = ["gradio>=6", "scikit-image>=0.22"]
# Imports the last two and lists neither.
STLPIPS = ["stlpips-pytorch==0.0.2", "torchsummary", "ipython"]
SPANDREL = ["spandrel>=0.4"]
ONNX = ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript"]  # the last by torch.onnx
HUB = ["huggingface-hub>=0.30"]
COMPLETION = ["shtab>=1.13"]
DOCS = ["sphinx>=8", "myst-parser>=4", "furo", "sphinx-copybutton", "sphinx-design"]

WEIGHTS = ["srflow_x4", "srflow_x4_real", "srflow_x8_face"]  # by name: whatever else lies there stays at home

setup(
    name="srflow_plugin",
    version=runpy.run_path(str(ROOT / "srflow_plugin" / "_version.py"))["__version__"],
    description="SRFlow for BasicSR: super-resolution with a conditional normalizing flow",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords="super-resolution normalizing-flow SRFlow BasicSR pytorch",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["srflow_plugin", "srflow_plugin.*"]),
    package_data={"srflow_plugin": ["py.typed", *(f"weights/{name}.safetensors" for name in WEIGHTS)]},
    install_requires=CORE,
    extras_require={
        "train": TRAIN,
        "demo": DEMO,
        "stlpips": [*TRAIN, *STLPIPS],
        "spandrel": SPANDREL,
        "onnx": ONNX,
        "hub": HUB,
        "completion": COMPLETION,
        "docs": [*TRAIN, *SPANDREL, *ONNX, *HUB, *DOCS],
        "test": [
            *TRAIN,
            *DEMO,
            *STLPIPS,
            *SPANDREL,
            *ONNX,
            *HUB,
            *COMPLETION,
            *DOCS,
            "torchmetrics>=1.4",
            "trackio",
            "wandb",
            "build",
            "twine",
            "playwright>=1.48",
            "jsonschema>=4.20",
            "pytest>=8",
            "pytest-cov>=5",
            "pytest-xdist>=3.5",
            "ruff>=0.14",
            "mypy>=1.18",
            "types-PyYAML",
            "types-jsonschema",
            "types-setuptools",
            "types-tqdm",
        ],
    },
    entry_points={
        "console_scripts": [
            "basicsr = srflow_plugin.cli.main:basicsr_command",
            "srflow = srflow_plugin.cli.main:srflow_command",
        ],
        "basicsr.plugins": ["srflow_plugin = srflow_plugin"],
    },
)
