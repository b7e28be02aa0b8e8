"""SLURM itself on this machine, all on loopback and in one folder: munged, slurmctld and one slurmd per virtual node.

It needs root and Debian's ``slurm-wlm`` and ``munge``; nothing is installed here.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "slurmctld", "slurmd", "munged")

_CONFIGURATION = """\
ClusterName=phbatch
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
# a credential that expires late delays a requeue by two minutes
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmdSpoolDir={folder}/spool/%n
SlurmdParameters=config_overrides
# with linuxproc a child that ignores TERM outlives scancel
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=100000
ReturnToService=2
KillWait=10
OverTimeLimit=0
MinJobAge=600
JobRequeue=1
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobs.txt
GresTypes=gpu
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus} RealMemory=12000 \
State=UNKNOWN Gres=gpu:{gpus}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefMemPerCPU=100 LLN=YES State=UP
"""


def why_not() -> str:
    """Why SLURM cannot be started here; empty where it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{missing[0]} is missing: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "SLURM's daemons on virtual nodes need root"


class SlurmCluster:
    """A cluster that runs; its commands find it by ``SLURM_CONF`` in the environment.

    Parameters
    ----------
    folder : Path
        Holds all of it.
    nodes, cpus, gpus : int
        Virtual nodes ``n1``, ``n2`` and so on, and what each has; SLURM believes it.
    """

    def __init__(self, folder: Path, nodes: int = 3, cpus: int = 4, gpus: int = 2) -> None:
        self.folder, self.nodes, self.cpus, self.gpus = folder, nodes, cpus, gpus
        self.configuration = folder / "slurm.conf"

    def start(self) -> None:
        """Start all daemons, and wait for the nodes."""
        for name in ("state", "spool", "log", "run", "munge", "dev"):
            (self.folder / name).mkdir(parents=True, mode=0o755)
        (self.folder / "munge").chmod(0o700)
        (self.folder / "munge" / "key").write_bytes(os.urandom(128))
        (self.folder / "munge" / "key").chmod(0o400)
        first = _free_ports(self.nodes + 1)
        names = {"folder": self.folder, "host": socket.gethostname().partition(".")[0], "port": first}
        names |= {"nodes": self.nodes, "first": first + 1, "last": first + self.nodes}
        names |= {"cpus": self.cpus, "gpus": self.gpus}
        self.configuration.write_text(_CONFIGURATION.format(**names))
        for gpu in range(self.gpus):  # SLURM takes nothing but devices
            subprocess.run(["mknod", self.folder / "dev" / f"gpu{gpu}", "c", "1", "3"], check=True)
        files = f"{self.folder}/dev/gpu[0-{self.gpus - 1}]" if self.gpus > 1 else f"{self.folder}/dev/gpu0"
        (self.folder / "gres.conf").write_text(f"Name=gpu File={files}\n")
        self._start_munge()
        self.command("slurmctld", "-c")
        for node in range(1, self.nodes + 1):
            self.start_node(node)
        self.wait(lambda: self.count_idle() == self.nodes, 60, "its nodes are idle")

    def _start_munge(self) -> None:
        at = self.folder
        files = {"key-file": at / "munge/key", "socket": at / "run/munge.socket", "pid-file": at / "run/munged.pid"}
        files |= {"log-file": at / "munge/munged.log", "seed-file": at / "munge/seed"}
        self.command("munged", "--force", *(f"--{name}={path}" for name, path in files.items()))

    def start_node(self, node: int) -> None:
        """Start the daemon of a node."""
        (self.folder / "spool" / f"n{node}").mkdir(exist_ok=True)
        self.command("slurmd", "-N", f"n{node}")

    def stop_node(self, node: int) -> None:
        """End a node as a loss of power does: its daemon and the processes of its jobs, without a word."""
        kill(self.folder / "run" / f"slurmd-n{node}.pid", signal.SIGKILL)

    def stop(self) -> None:
        """Cancel all jobs and end all daemons, by their process ids."""
        with suppress(subprocess.CalledProcessError):
            if jobs := self.jobs():
                self.command("scancel", *jobs)
            with suppress(TimeoutError):
                self.wait(lambda: not self.jobs(), 30, "its jobs are gone")
        run = self.folder / "run"
        for file in (*run.glob("slurmd-*.pid"), run / "slurmctld.pid", run / "munged.pid"):
            kill(file, signal.SIGTERM)

    def command(self, *arguments: object) -> str:
        """What one of SLURM's commands prints."""
        done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, env=self.environment, check=False)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        """Of processes that should see it."""
        return os.environ | {"SLURM_CONF": str(self.configuration)}

    def count_idle(self) -> int:
        """Nodes without a job."""
        return len(self.command("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split())

    def jobs(self, *states: str, name: str = "") -> list[str]:
        """Numbers of the jobs in the queue."""
        options = [*(["-t", ",".join(states)] if states else []), *(["-n", name] if name else [])]
        return self.command("squeue", "-h", "-o", "%A", *options).split()

    def state(self, job: str) -> str:
        """Of a job, such as RUNNING or TIMEOUT; it is known for ten minutes after its end."""
        return self.field(job, "JobState")

    def field(self, job: str, name: str) -> str:
        """What SLURM says of a job."""
        words = self.command("scontrol", "show", "job", "-o", job).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{name}="))

    def wait(self, until: Callable[[], bool], seconds: float, what: str) -> None:
        """Return as soon as something is so."""
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline:
                log = self.folder / "log" / "slurmctld.log"
                last = log.read_text(errors="replace")[-2000:] if log.exists() else ""
                raise TimeoutError(f"not within {seconds:g} s: {what}\n{last}")
            time.sleep(0.5)  # looking starts a process, and what is waited for takes seconds


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[SlurmCluster]:
    """A cluster, while inside."""
    cluster = SlurmCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def kill(pid_file: Path, number: signal.Signals) -> None:
    """End the process of a file, and wait for its end."""
    try:
        process = int(pid_file.read_text())
    except (OSError, ValueError):
        return
    with suppress(ProcessLookupError):
        os.kill(process, number)
        for _ in range(100):
            os.kill(process, 0)
            time.sleep(0.1)
        os.kill(process, signal.SIGKILL)


def _free_ports(count: int) -> int:
    """The first of so many neighbouring ports that nobody listens on."""
    for first in range(17000 + os.getpid() % 1000 * 8, 32000, 8):
        with suppress(OSError):
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
    raise OSError("no free ports")
