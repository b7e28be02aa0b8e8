"""SLURM without a live scheduler: a job array, each task of which does a part of one output."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from phbatch.clusters.base import Kind, Submission
from phbatch.clusters.slurm import ask_slurm, format_walltime, gpu_directives, make_logs, require_script
from phbatch.running.parts import begin_parts

SCRIPT = "array.sh"
LOG = "part-%a-%A.log"

MOST_REQUEUES = 100
"""A task whose time is over before it is done is queued again, but not for ever where it never finishes a unit."""

_BODY = """\
again= signal=
trap 'again=yes signal=yes; kill -TERM "$task"' USR1  # the time is over soon
trap 'signal=yes; kill -TERM "$task"' TERM  # cancelled: nothing is asked for again
{command} --part "$SLURM_ARRAY_TASK_ID" &
task=$!
wait "$task"
code=$?
while [ -n "$signal" ]; do  # a signal ends the wait, not the task
  signal=
  wait "$task"
  code=$?
done
if [ -n "$again" ] && [ "$code" -eq 130 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {most} ]; then
  exec scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"  # SLURM_JOB_ID may be that of all
fi
exit "$code"
"""


class SlurmArray(Kind):
    """Tasks are what each does of its part; the call that submits settles all, and no process must outlive it."""

    detaches = True

    def render(self, submission: Submission, *, detach: bool) -> dict[str, str]:  # noqa: D102
        return {SCRIPT: array_script(submission)}

    def launch(self, submission: Submission) -> dict[str, Any]:
        """Begin the output, and submit the array as often as all parts must be run, one after the end of the other."""
        begun = begin_parts(
            submission.input,
            submission.output.path,
            parts=submission.cluster.workers,
            command=submission.command,
            **run_options(submission),
        )
        if begun.complete:
            return {"job": "", "jobs": [], "name": submission.name}
        folder = make_logs(submission)
        (folder / SCRIPT).write_text(array_script(submission), encoding="utf-8")
        jobs: list[str] = []
        for _ in range(begun.passes):
            after = [f"--dependency=afterany:{jobs[-1]}"] if jobs else []
            jobs.append(ask_slurm("sbatch", "--parsable", *after, str(folder / SCRIPT)).partition(";")[0].strip())
        return {"job": jobs[0], "jobs": jobs, "name": submission.name}

    def check(self, submission: Submission) -> None:  # noqa: D102
        require_script(array_script(submission))

    def here(self) -> str:  # noqa: D102
        names = ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")
        return "_".join(os.environ[name] for name in names if name in os.environ)

    def cancel(self, record: Mapping[str, Any]) -> bool:  # noqa: D102
        if shutil.which("scancel") is None:
            return False
        if jobs := record.get("jobs"):
            ask_slurm("scancel", *map(str, jobs))
        return True


def run_options(submission: Submission) -> dict[str, Any]:
    """Options of the run, with what a task may use where that is not said."""
    cluster = submission.cluster
    machine = {"memory": int(cluster.memory_per_worker), "workers": cluster.cores_per_worker}
    return machine | dict(submission.options)


def array_script(submission: Submission) -> str:
    """The job of every task."""
    cluster, options = submission.cluster, run_options(submission)
    head = [
        f"--job-name={submission.name}",
        f"--array=1-{cluster.workers}",
        f"--output={submission.logs / LOG}",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{cluster.drain}",
        "--ntasks=1",
        f"--cpus-per-task={cluster.cores_per_worker}",
        f"--mem={int(cluster.memory_per_worker) >> 20}M",
        f"--time={format_walltime(cluster.walltime)}",
        *([f"--partition={cluster.partition}"] if cluster.partition else []),
        *([f"--account={cluster.account}"] if cluster.account else []),
        *gpu_directives(cluster),
        *cluster.directive,
    ]
    command = [cluster.python or sys.executable, "-m", "phbatch", "run-part", submission.output.path]
    for name in ("workers", "memory", "threads", "retries"):
        if options.get(name) is not None:
            command += [f"--{name}", str(options[name])]
    command += [] if submission.report else ["--no-report"]
    body = _BODY.format(command=shlex.join(command), most=MOST_REQUEUES)
    return "\n".join(["#!/usr/bin/env bash", *(f"#SBATCH {line}" for line in head), *cluster.setup, body])
