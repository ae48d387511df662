"""A Slurm of two nodes on one machine, in a folder of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# The first node's name becomes MASTER_ADDR, so it has to be an address: names would have to be added to /etc/hosts.
NODES = ("127.0.0.2", "127.0.0.3")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
PATIENCE = 30  # seconds for what Slurm does at once
CONFIGURATION = """
ClusterName=stress
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
SlurmdTimeout=5
ReturnToService=2
KillWait=2
JobRequeue=1
MinJobAge=3600
NodeName={node0} NodeHostname={host} NodeAddr={node0} Port={port0} CPUs=4
NodeName={node1} NodeHostname={host} NodeAddr={node1} Port={port1} CPUs=4
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class SlurmError(Exception):
    """Something that Slurm did not do, or not in time."""


def missing_programs() -> list[str]:
    """List what is not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait until something is so.

    Raises:
        SlurmError: if it is not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SlurmError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


class Cluster:
    """Slurm with its daemons, while the block lasts; nothing of it is left afterwards.

    Args:
        folder: an empty one, for its configuration, state and logs.
        variables: what is added to the environment of daemons, commands and jobs.
    """

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self.environment = {**os.environ, **variables, "SLURM_CONF": str(self.configuration)}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        try:
            self._configure()
            self._start_munge()
            self._start("slurmctld", "-D", "-c")
            for node in NODES:
                self.start_node(node)
            wait_until(lambda: self._node_states() == {"idle"}, "both nodes idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._kill(self._processes(f"SLURM_CONF={self.configuration}"))
        for daemon in self.daemons.values():
            daemon.kill()
            daemon.wait()

    def run(self, *command: str) -> str:
        """Run one of Slurm's commands; return what it printed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise SlurmError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        self._start("slurmd", "-D", "-N", node, name=node)

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon and every process of its jobs, as a power cut does."""
        self.daemons[node].kill()
        self._kill(self._processes(f"SLURMD_NODENAME={node}"))
        self.daemons[node].wait()

    def revive_node(self, node: str) -> None:
        """Start a node's daemon again and let jobs onto the node."""
        self.start_node(node)
        with contextlib.suppress(SlurmError):  # Slurm may have seen it come back by itself
            self.run("scontrol", "update", f"nodename={node}", "state=resume")
        wait_until(lambda: self._node_states() <= {"idle", "mixed"}, f"{node} in use again")

    def job(self, number: str) -> dict[str, str]:
        """Ask for a job's attributes by their names in `scontrol show job`."""
        words = self.run("scontrol", "show", "job", "-o", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def is_pending(self, number: str) -> bool:
        """Say whether a job waits to be started."""
        return self.job(number)["JobState"] == "PENDING"

    def has_ended(self, number: str) -> bool:
        """Say whether a job is over, well or not."""
        return self.job(number)["JobState"] in {"COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT"}

    def start_soon(self, number: str, seconds: int = 3) -> None:
        """Start a job that is being requeued in some seconds, not in the two minutes that Slurm lets it wait.

        What ends the first start, and comes late, would end one that begins at once.
        """
        wait_until(lambda: self.is_pending(number), f"job {number} requeued")
        self.run("scontrol", "update", f"jobid={number}", f"starttime=now+{seconds}")

    def _configure(self) -> None:
        (self.folder / "state").mkdir()
        controller_port, port0, port1 = free_ports(3)
        text = CONFIGURATION.format(
            host=socket.gethostname().split(".")[0],
            user=getpass.getuser(),
            folder=self.folder,
            controller_port=controller_port,
            port0=port0,
            port1=port1,
            node0=NODES[0],
            node1=NODES[1],
        )
        self.configuration.write_text(text)

    def _start_munge(self) -> None:
        key, socket_file = self.folder / "munge.key", self.folder / "munge.socket"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        files = {"key": key, "pid": self.folder / "munge.pid", "log": self.folder / "munge.log"}
        options = [f"--{name}-file={path}" for name, path in {**files, "seed": self.folder / "munge.seed"}.items()]
        self._start("munged", "--foreground", "--force", f"--socket={socket_file}", *options)
        wait_until(socket_file.exists, "munged ready")

    def _start(self, *command: str, name: str = "") -> None:
        """Start a daemon that Ctrl-C does not reach; its log has its name."""
        name = name or command[0]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )

    def _node_states(self) -> set[str]:
        """List the states that nodes are in; none where the controller does not answer yet."""
        try:
            return set(self.run("sinfo", "--noheader", "--Node", "--format=%T").split())
        except SlurmError:
            return set()

    def _processes(self, variable: str) -> list[int]:
        """Find this cluster's processes that were started with ``variable``, and the slurmstepds above them.

        A slurmstepd shows its title where other processes show their environment.
        """
        wanted = {variable.encode(), f"SLURM_CONF={self.configuration}".encode()}
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted <= set((path / "environ").read_bytes().split(b"\0")):
                    parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
                    if Path(f"/proc/{parent}/comm").read_text() == "slurmstepd\n":
                        found.append(int(parent))
                    found.append(int(path.name))
        return found

    @staticmethod
    def _kill(processes: list[int]) -> None:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def job_environment(root: Path) -> dict[str, str]:
    """Make what jobs need in their environment to run this Python and this project on the loopback device."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
