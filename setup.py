"""Metadata, dependencies and commands; pyproject.toml holds the build requirements and the tools' settings."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# A wheel of BasicSR's master branch. BasicSR's own 1.4.2 is a source distribution that asks for torch at build time: it
# cannot be built on Python 3.13, nor by a fresh Python 3.10's pip. What was compared before trusting the wheel, and
# what to do with another BasicSR: docs/install.md.
BASICSR = "my-basicsr==1.4.2"

DEMO = ["gradio>=6"]

# Imports the last two and lists neither.
STLPIPS = ["stlpips-pytorch==0.0.2", "torchsummary", "ipython"]

setup(
    name="srflow_plugin",
    version="0.1.0",
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
    package_data={"srflow_plugin": ["py.typed", "weights/*.safetensors"]},
    install_requires=[
        "torch>=2.6",  # below, torch.load(weights_only=True) can be made to run code (CVE-2025-32434)
        "torchvision>=0.21",
        BASICSR,
        "mmcv-lite>=2.0",  # imports as mmcv; mmcv itself has no wheel that installs today
        "lmdb>=1.4",
        "lpips>=0.1.4",
        "numpy>=1.26",
        "pillow>=10",
        "opencv-python>=4.8",
        "scikit-image>=0.22",  # the photographs of the embedded data set
        "scipy>=1.11",
        "pyyaml>=6.0",
        "safetensors>=0.4",
        "tqdm>=4.60",
        # TensorBoard comes with BasicSR as tb-nightly. `tensorboard` beside it breaks the tensorboard command, and
        # tb-nightly needs pkg_resources, which setuptools 81 dropped.
        "setuptools>=77.0.3,<81",
    ],
    extras_require={
        "demo": DEMO,
        "stlpips": STLPIPS,
        "test": [
            *STLPIPS,
            *DEMO,
            "playwright>=1.48",
            "pytest>=8",
            "ruff>=0.14",
            "mypy>=1.18",
            "types-PyYAML",
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
