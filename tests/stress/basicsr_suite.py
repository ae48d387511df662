"""BasicSR's own tests on today's libraries and without CUDA: `python -m tests.stress.basicsr_suite CLONE`.

CLONE is a clone of BasicSR. Its tests run against the BasicSR that is installed, as this package makes it importable,
and with CUDA's names meaning the CPU where there is none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch

import srflow_plugin  # noqa: F401  (follows the import of BasicSR)
from srflow_plugin.training.cuda_names import OnCPU


class WithoutCuda:
    """Plugin of pytest that runs each test where CUDA's names mean the CPU."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        with nullcontext() if torch.cuda.is_available() else OnCPU():
            yield


def main() -> None:
    os.chdir(sys.argv[1])
    # Not the clone's own package: the installed one is tried.
    sys.path = [path for path in sys.path if path not in ("", sys.argv[1])]
    arguments = ["-q", "-n", "0", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", os.devnull, "tests"]
    sys.exit(pytest.main(arguments, plugins=[WithoutCuda()]))


if __name__ == "__main__":
    main()
