"""SLURM: one job for each worker process, kept up by dask-jobqueue, and the controller as a job of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from phbatch.clusters.base import Kind, Opened, Submission
from phbatch.clusters.settings import TYPED, ClusterSettings
from phbatch.computing.certificates import TCP, TLS, certified, shown_security, wants_tls
from phbatch.computing.cluster import quiet
from phbatch.words.errors import OutputError, UsageError, first_line

USED = frozenset(
    {
        *("workers", "gpus_per_worker", "cores_per_worker", "memory_per_worker", "walltime", "drain", "partition"),
        *("account", "directive", "controller_directive", "setup", "python", "interface", "host", "scratch", "logs"),
        "tls",
    }
)
"""What may be asked of SLURM."""

SCHEDULER = "<scheduler>"
"""Stands in scripts that are shown for an address that is known once the scheduler listens."""

WORKER_LOG, CONTROLLER_LOG = "worker-%j.log", "controller-%j.log"

DRAIN = "DASK_PHBATCH__DRAIN__AFTER"
"""Says `phbatch.computing.drain` in a worker when its end is near."""

TEND_S = 10.0
"""How often it is asked whether the jobs of workers are still there."""

_EARLY_S = 120.0  # USR1 comes up to a minute before it is due
_DEAD_PER_WORKER = 3  # jobs that ended before a worker came, while none ever has
_ANSWER_S = 60.0  # a busy slurmctld


class Slurm(Kind):
    """Workers are jobs; the scheduler is in the controller."""

    extra = "slurm"

    def render(self, submission: Submission, *, detach: bool) -> dict[str, str]:  # noqa: D102
        security = shown_security() if wants_tls(asked=submission.cluster.tls) else None
        address = f"{TLS if security else TCP}{SCHEDULER}"
        arguments = worker_arguments(submission) | secured(security)
        job = _jobqueue().slurm.SLURMJob(address, "<number>", **arguments)
        scripts = {"worker.sh": str(job.job_script())}
        if detach:
            scripts |= {"submission.toml": submission.profile(), "controller.sh": controller_script(submission)}
        return scripts

    def launch(self, submission: Submission) -> dict[str, Any]:  # noqa: D102
        folder, scripts = require_worker(submission), self.render(submission, detach=True)
        for name in ("submission.toml", "controller.sh"):
            (folder / name).write_text(scripts[name], encoding="utf-8")
        return {"job": sbatch(folder / "controller.sh"), "name": submission.name}

    def check(self, submission: Submission) -> None:  # noqa: D102
        require_script(self.render(submission, detach=False)["worker.sh"])

    @contextmanager
    def open(self, submission: Submission) -> Iterator[Opened]:  # noqa: D102
        require_worker(submission)
        asked = submission.cluster
        scheduler = {"dashboard_address": "127.0.0.1:0", **({"host": asked.host} if asked.host else {})}
        arguments = worker_arguments(submission)
        with ExitStack() as stack:
            security = stack.enter_context(certified(asked=asked.tls))
            arguments |= secured(security) | {"shared_temp_directory": str(submission.logs)}
            cluster = _jobqueue().SLURMCluster(scheduler_options=scheduler, silence_logs="critical", **arguments)
            stack.enter_context(quiet(cluster))
            stack.enter_context(cluster)
            cluster.adapt(minimum=asked.workers, maximum=asked.workers)  # `scale` would not replace what is lost
            yield _Workers(cluster, submission)

    def cancel(self, record: Mapping[str, Any]) -> bool:  # noqa: D102
        if shutil.which("scancel") is None:
            return False
        ask_slurm("scancel", *([str(record["job"])] if record.get("job") else []), f"--name={record['name']}")
        return True

    def here(self) -> str:  # noqa: D102
        return os.environ.get("SLURM_JOB_ID", "")

    def is_over(self, submission: Submission) -> bool:  # noqa: D102
        job = ask_slurm("scontrol", "show", "job", "--oneliner", self.here())
        return _is_over(job, submission.cluster.drain + _EARLY_S)

    def again(self) -> None:  # noqa: D102
        ask_slurm("scontrol", "requeue", self.here())


class _Workers:
    """Jobs that dask-jobqueue keeps up. Of those that end before their worker has come, it never hears."""

    def __init__(self, cluster: Any, submission: Submission) -> None:
        self._cluster, self._submission = cluster, submission
        self._missed: set[Any] = set()
        self._looked, self._dead, self._ever = monotonic(), 0, False

    @property
    def address(self) -> str:
        return str(self._cluster.scheduler_address)

    def workers(self) -> int:
        return len(self._cluster.scheduler_info["workers"])

    def tend(self) -> str:
        self._ever = self._ever or self.workers() > 0
        if monotonic() - self._looked > TEND_S:
            self._replace_dead()
            self._looked = monotonic()
        often = self._dead >= _DEAD_PER_WORKER * self._submission.cluster.workers
        return f"{self._dead} jobs ended" if often and not self._ever else ""

    def _replace_dead(self) -> None:
        """Give up jobs that are twice not in the queue and whose worker is not here: others are asked for."""
        started = {name: str(job.job_id) for name, job in [*self._cluster.workers.items()] if job.job_id}
        queued = ask_slurm("squeue", "--noheader", "--format=%A", f"--name={self._submission.name}").split()
        here = {worker["name"] for worker in [*self._cluster.scheduler_info["workers"].values()]}
        missing = {name for name, job in started.items() if job not in queued and name not in here}
        if gone := missing & self._missed:
            self._cluster.sync(self._cluster.scale_down, gone)
            self._dead += len(gone)
        self._missed = missing - gone


def _is_over(job: str, near_s: float) -> bool:
    """Whether the time of a job is over, or nearly so, by what SLURM says of it: not whether somebody cancelled it.

    Examples
    --------
    >>> _is_over("JobId=7 JobState=TIMEOUT Reason=TimeLimit", 60), _is_over("JobId=7 JobState=CANCELLED", 60)
    (True, False)
    >>> _is_over("JobId=7 JobState=RUNNING RunTime=00:09:30 TimeLimit=00:10:00 EndTime=2026-01-01T00:00:00", 60)
    True
    """
    words = dict(word.partition("=")[::2] for word in job.split())
    if words.get("JobState") != "RUNNING":  # while it ends, its state is COMPLETING, whatever ends it
        return words.get("Reason") == "TimeLimit"
    try:
        end = datetime.fromisoformat(words["EndTime"])
    except (KeyError, ValueError):
        return False
    return (end - datetime.now()).total_seconds() < near_s  # both are local time


def worker_arguments(submission: Submission) -> dict[str, Any]:
    """What dask-jobqueue is told of the job of a worker."""
    cluster = submission.cluster
    for name in sorted(cluster.model_fields_set - USED):
        raise UsageError(f"--{name.replace('_', '-')} is not for --cluster {submission.kind}; leave it out.")
    workers = ["--no-dashboard", "--preload", "phbatch.computing.drain"]
    if cluster.gpus_per_worker:
        workers += ["--resources", f"GPU={cluster.gpus_per_worker}"]
    return {
        "cores": cluster.cores_per_worker,
        "processes": 1,
        "memory": f"{int(cluster.memory_per_worker)}B",
        "walltime": format_walltime(cluster.walltime),
        "queue": cluster.partition,
        "account": cluster.account,
        "job_name": submission.name,
        "python": cluster.python or sys.executable,
        "interface": cluster.interface,
        "local_directory": cluster.scratch,
        "death_timeout": 60,
        "nanny": False,  # a worker that dies is a job that ends, which is replaced
        "worker_extra_args": workers,
        "job_script_prologue": [*cluster.setup, f"export {DRAIN}={max(1, cluster.walltime - cluster.drain)}"],
        "job_extra_directives": [
            f"--output={submission.logs / WORKER_LOG}",
            "--no-requeue",  # it is replaced: once more, it would come twice
            *gpu_directives(cluster),
            *cluster.directive,
        ],
    }


def secured(security: Any) -> dict[str, Any]:
    """What dask-jobqueue is told of certificates."""
    return {"security": security, "protocol": TLS} if security is not None else {}


def gpu_directives(cluster: ClusterSettings) -> list[str]:
    """What asks for the GPUs of a job."""
    return [f"--gres=gpu:{cluster.gpus_per_worker}"] if cluster.gpus_per_worker else []


def controller_script(submission: Submission) -> str:
    """The job of the controller, which asks for itself once more as its time is over."""
    cluster = submission.cluster
    command = ["submit", submission.input, submission.output.path]
    head = [
        f"--job-name={submission.name}",
        f"--output={submission.logs / CONTROLLER_LOG}",
        "--open-mode=append",
        "--ntasks=1",
        f"--time={format_walltime(cluster.walltime)}",
        f"--signal=B:USR1@{cluster.drain}",
        "--requeue",
        *([f"--partition={cluster.partition}"] if cluster.partition else []),
        *([f"--account={cluster.account}"] if cluster.account else []),
        *cluster.controller_directive,
    ]
    run = [cluster.python or sys.executable, "-m", "phbatch", *command]
    run += ["--profile", str(submission.logs / "submission.toml"), "--as-job"]
    run += ["--verify"] if submission.verify else []
    run += [] if submission.report else ["--no-report"]
    lines = ["#!/usr/bin/env bash", *(f"#SBATCH {line}" for line in head), *cluster.setup]
    lines += [f"export {TYPED}={shlex.quote(submission.command)}", f"exec {shlex.join(run)}"]
    return "\n".join(lines) + "\n"


def require_worker(submission: Submission) -> Path:
    """Refuse what SLURM refuses of a worker's job, of which dask-jobqueue says nothing; returns the folder of logs.

    Raises
    ------
    UsageError
        What sbatch says.
    """
    script = Slurm().render(submission, detach=False)["worker.sh"]
    require_script(script)
    folder = make_logs(submission)
    (folder / "worker.sh").write_text(script, encoding="utf-8")
    return folder


def require_script(text: str) -> None:
    """Refuse a script that SLURM would; nothing is left of it.

    Raises
    ------
    UsageError
        What sbatch says.
    """
    with TemporaryDirectory(prefix="phbatch-") as folder:
        script = Path(folder) / "script.sh"
        script.write_text(text, encoding="utf-8")
        ask_slurm("sbatch", "--test-only", str(script))


def make_logs(submission: Submission) -> Path:
    """The folder of scripts and logs, which SLURM does not make."""
    try:
        submission.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{submission.logs} cannot be made ({first_line(error)}); give --logs FOLDER.") from error
    return submission.logs


def format_walltime(seconds: int) -> str:
    """As SLURM reads it.

    Examples
    --------
    >>> format_walltime(14400), format_walltime(100000)
    ('04:00:00', '27:46:40')
    """
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def sbatch(script: Path) -> str:
    """Submit a script; returns the number of its job."""
    return ask_slurm("sbatch", "--parsable", str(script)).partition(";")[0].strip()


def ask_slurm(command: str, *arguments: str) -> str:
    """What a command of SLURM prints.

    Raises
    ------
    UsageError
        It is not there, or refuses.
    """
    try:
        done = subprocess.run(  # noqa: S603
            [command, *arguments], capture_output=True, text=True, check=True, timeout=_ANSWER_S
        )
    except FileNotFoundError as error:
        raise UsageError(f"{command} is not on this machine; submit from one that SLURM's commands are on.") from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{command} does not answer within {_ANSWER_S:g} s; try again later.") from error
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split()) or f"exit code {error.returncode}"
        raise UsageError(f"{command} refuses: {said}; correct the cluster's options.") from error
    return done.stdout


def _jobqueue() -> Any:
    """dask-jobqueue, which takes the process's signals as it is imported: they are given back."""
    mine = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if mine else {}
    try:
        import dask_jobqueue.slurm
    except ImportError as error:
        raise UsageError("--cluster slurm needs dask-jobqueue; `pip install 'phbatch[slurm]'`.") from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return dask_jobqueue
