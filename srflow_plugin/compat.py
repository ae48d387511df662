"""What today's libraries need before BasicSR 1.4.2 (2022) works, item by item with its reason.

:func:`apply` runs once, before the first import of BasicSR. The other functions stand in for BasicSR's own of the same
name where those cannot do the job. Each item does nothing, or the same, where BasicSR is already fine.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed

# Modules that BasicSR imports and that have moved: old name -> where the same functions are now.
MOVED_MODULES = {
    # Removed in torchvision 0.17; basicsr.data.degradations imports from it, and `import basicsr` imports that.
    "torchvision.transforms.functional_tensor": "torchvision.transforms.functional",
    # Deprecated, to be removed in SciPy 2.0; basicsr.metrics.niqe imports convolve from it.
    "scipy.ndimage.filters": "scipy.ndimage",
}


def alias_if_missing(old: str, new: str) -> None:
    """Make ``import old`` give the module ``new`` where ``old`` does not exist."""
    if old not in sys.modules and importlib.util.find_spec(old) is None:
        sys.modules[old] = importlib.import_module(new)


def apply() -> None:
    """Make BasicSR importable."""
    for old, new in MOVED_MODULES.items():
        alias_if_missing(old, new)


def init_dist(launcher: str, backend: str | None = None, port: int | None = None) -> None:
    """Join the process group of torchrun ("pytorch") or of a Slurm job ("slurm").

    BasicSR's own divides by the number of GPUs, which is 0 on a CPU, takes RANK for LOCAL_RANK, which is wrong on a
    second node, and knows NCCL only. Here the backend is NCCL where there are GPUs, else Gloo.
    """
    if launcher == "slurm":
        from subprocess import check_output

        nodes = check_output(["scontrol", "show", "hostnames", os.environ["SLURM_NODELIST"]], text=True)
        os.environ["MASTER_ADDR"] = nodes.split()[0]
        os.environ["MASTER_PORT"] = str(port or os.environ.get("MASTER_PORT", "29500"))
        os.environ["WORLD_SIZE"] = os.environ["SLURM_NTASKS"]
        os.environ["RANK"] = os.environ["SLURM_PROCID"]
        os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    torch.distributed.init_process_group(backend or ("nccl" if has_gpu else "gloo"))


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Training state to resume from, or None: the newest of the experiment with --auto_resume, else the option's.

    BasicSR's own asks for a CUDA device, loads with pickle on older torch, and looks for states in the current folder
    instead of the experiment's.
    """
    from basicsr.utils import check_resume

    if opt["auto_resume"]:
        states = sorted(Path(opt["path"]["training_states"]).glob("*.state"), key=lambda path: int(path.stem))
        if states:
            opt["path"]["resume_state"] = str(states[-1])
    path = opt["path"].get("resume_state")
    if not path:
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    check_resume(opt, state["iter"])
    return state
