"""Many processes: joining them, and the few things that they tell each other. All of it works in one process, too."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from srflow_plugin.errors import UserError

Result = TypeVar("Result")
LAUNCHERS_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
SLURMS_VARIABLES = ("SLURM_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
FIRST_PORT, PORTS = 20000, 10000  # below those that systems hand out
FOREVER = timedelta(days=365)

# For what may take longer than a collective's usual time-out, such as validation: all ranks by Gloo, which has no
# watchdog that ends a long wait, and sends what is not on a GPU. init_dist makes it.
_patient_group: dist.ProcessGroup | None = None


def init_dist(launcher: str, backend: str | None = None, port: int | None = None, use_gpu: bool = True) -> None:
    """Join the process group of torchrun ("pytorch") or of a Slurm job ("slurm").

    BasicSR's own divides by the number of GPUs, which is 0 on a CPU, takes RANK for LOCAL_RANK, which is wrong on a
    second node, and knows NCCL only. Here the backend is NCCL where there are GPUs and the run uses them, else Gloo.

    Raises:
        UserError: the processes were not started by that launcher.
    """
    if launcher == "slurm":
        _follow_slurm(port)
    missing = [name for name in LAUNCHERS_VARIABLES if name not in os.environ]
    if missing:
        raise UserError(
            f"--launcher {launcher}: {missing[0]} is not set, so that no launcher has started this process; start it "
            "with `torchrun --nproc_per_node=N -m srflow_plugin train ...`, or without --launcher"
        )
    has_gpu = use_gpu and torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    if not has_gpu and backend == "nccl":
        backend = None  # BasicSR's files name it; on the CPU it works for nobody
    dist.init_process_group(backend or ("nccl" if has_gpu else "gloo"))
    global _patient_group
    _patient_group = dist.new_group(backend="gloo", timeout=FOREVER)  # type: ignore[assignment]


def _follow_slurm(port: int | None) -> None:
    """Set the variables of torchrun from those of a Slurm step."""
    from subprocess import CalledProcessError, check_output

    if any(name not in os.environ for name in SLURMS_VARIABLES):
        raise UserError(
            "--launcher slurm: this process is not part of a Slurm step; start it with "
            "`srun python -m srflow_plugin train ... --launcher slurm`, or without --launcher"
        )
    of_step = os.environ.get("SLURM_STEP_NODELIST") or os.environ["SLURM_NODELIST"]
    try:
        nodes = check_output(["scontrol", "show", "hostnames", of_step], text=True).split()
    except (OSError, CalledProcessError) as error:
        raise UserError(f"--launcher slurm: scontrol does not list the nodes {of_step} ({error})") from None
    # Jobs that share a node must not share a port.
    own_port = FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", "0")) % PORTS
    os.environ.setdefault("MASTER_ADDR", nodes[0])
    os.environ["MASTER_PORT"] = str(os.environ.get("MASTER_PORT") or port or own_port)
    os.environ["WORLD_SIZE"] = os.environ["SLURM_NTASKS"]
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]


def leave() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        gc.collect()  # a DDP model that is freed after its process group can wait for Gloo's threads forever
        dist.destroy_process_group()


def mean_over_ranks(value: Tensor) -> Tensor:
    """Average every rank's ``value`` (any shape, the same on all), the same bits on every rank."""
    if not dist.is_initialized():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def any_rank(flag: bool) -> bool:
    """Say whether ``flag`` is true on some rank. Ranks may come hours apart."""
    if not dist.is_initialized():
        return flag
    votes = torch.tensor(int(flag))
    dist.all_reduce(votes, group=_patient_group)
    return bool(votes)


def gather(result: Result) -> list[Result]:
    """Collect every rank's ``result``, in the order of the ranks, on every rank. Ranks may come hours apart."""
    if not dist.is_initialized():
        return [result]
    results: list[Result] = [result] * dist.get_world_size()
    dist.all_gather_object(results, result, group=_patient_group)
    return results


def gather_work(work: Callable[[], Result]) -> list[Result]:
    """Collect what ``work`` returns on every rank, on every rank; what it raises on one is raised on all."""
    own: Result | Exception
    try:
        own = work()
    except Exception as error:
        own = error
    results = gather(own)
    if isinstance(own, Exception):
        raise own
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results  # type: ignore[return-value]


def own_share(count: int) -> range:
    """List the numbers of those of ``count`` images that this rank works on."""
    if not dist.is_initialized():
        return range(count)
    return range(dist.get_rank(), count, dist.get_world_size())
