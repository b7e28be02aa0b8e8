"""Submitting a run: what a run would refuse is refused here and now, and not after hours in a queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from phbatch.clusters.base import Submission
from phbatch.clusters.controller import control
from phbatch.clusters.kinds import kind_named
from phbatch.clusters.profiles import Profile, read_profile
from phbatch.clusters.settings import CLUSTER, DECIDED, parse_cluster
from phbatch.clusters.status import speaks
from phbatch.outputs.image import default_output
from phbatch.places.place import LocalPlace, Place
from phbatch.running.run import plan
from phbatch.words.errors import OutputError, UsageError
from phbatch.words.events import Listener, Stop, ignore, never
from phbatch.words.given import as_typed
from phbatch.words.results import RunResult, VerifyReport
from phbatch.words.settings import parse_settings


@dataclass(frozen=True)
class SubmitResult:
    """What became of a submission.

    Attributes
    ----------
    output : str
        Where the run goes.
    kind : str
        Of the cluster.
    job : str
        Of the controller, or of the array; empty where this call was the controller.
    logs : str
        Folder of the jobs' logs and scripts.
    scripts : dict of str to str
        What is submitted, by the names of the files.
    result : RunResult or None
        Of the run, where this call was the controller.
    verification : VerifyReport or None
        Of the output, where it was asked for.
    """

    output: str
    kind: str
    job: str = ""
    logs: str = ""
    scripts: dict[str, str] = field(default_factory=dict)
    result: RunResult | None = None
    verification: VerifyReport | None = None

    @property
    def exit_code(self) -> int:
        """As of the run, or of what was verified; 0 where it goes on elsewhere."""
        found = (self.result, self.verification)
        return max((each.exit_code for each in found if each is not None), default=0)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        found = {"result": self.result, "verification": self.verification}
        return vars(self) | {name: each.as_dict() if each else None for name, each in found.items()}


def submit(
    input: str | Path,
    output: str | Path | None = None,
    *,
    cluster: str | None = None,
    profile: str | None = None,
    detach: bool = False,
    dry_run: bool = False,
    verify: bool = False,
    report: bool = True,
    listener: Listener = ignore,
    command: str = "",
    stop: Stop = never,
    as_job: bool = False,
    **options: Any,
) -> SubmitResult:
    """Have a run computed on a cluster: SLURM, Kubernetes, or whatever a profile names.

    Parameters
    ----------
    input, output : str or Path
        As for `run`; both must be seen by this process and by the workers.
    cluster : str, optional
        ``"slurm"``, ``"slurm-array"``, ``"kubernetes"``, or the path of a profile, which ends in ``.toml``.
    profile : str, optional
        Name of a site's profile: ``NAME.toml`` here, in the user's configuration folder or in that of the machine.
    detach : bool
        Make the controller a job, too, and return.
    dry_run : bool
        Return the scripts or manifests, and submit nothing.
    verify : bool
        Check the output once it is complete, as `verify` does, on the controller's machine.
    report : bool
        Whether jobs that go on without this call write the report of a local output at its end; a call that does the
        run itself leaves that to `write_report`.
    listener, command, stop
        As for `run`.
    as_job : bool
        Whether this call is the controller that `detach` submitted: where its time is over, it submits itself again.
    **options
        Those of `phbatch.clusters.settings.ClusterSettings`, where `workers` are those of the cluster, and all others
        of `run`. They win over what a profile says.

    Returns
    -------
    SubmitResult

    Raises
    ------
    UsageError, InputError, ModelError, OutputError, MemoryLimitError
        What `run` would refuse, and what the cluster's own commands refuse.
    """
    submission = replace(prepare_submission(input, output, cluster, profile, options), verify=verify, report=report)
    command = command or _in_python(
        input, output, {"cluster": cluster, "profile": profile, "detach": detach, **options}
    )
    submission = replace(submission, command=command.replace(" --dry-run", ""))
    kind = kind_named(submission.kind)
    done = SubmitResult(submission.output.path, submission.kind, logs=str(submission.logs))
    if dry_run:
        return SubmitResult(**vars(done) | {"scripts": kind.render(submission, detach=detach)})
    if not as_job:
        _require_run(submission)
        _require_alone(submission)
        kind.check(submission)
    if detach or kind.detaches:
        if not kind.detaches:  # such a kind knows how to hide them
            _require_no_credentials(submission)
        record = kind.launch(submission)
        submission.jobs.submit({"kind": submission.kind, "logs": done.logs, **record})
        return SubmitResult(**vars(done) | {"job": str(record["job"])})
    if not as_job:
        submission.jobs.submit({"kind": submission.kind, "logs": done.logs, "name": submission.name, "job": ""})
    result, found = control(submission, kind, listener, stop, command, as_job=as_job)
    return SubmitResult(**vars(done) | {"result": result, "verification": found})


def prepare_submission(
    input: str | Path, output: str | Path | None, cluster: str | None, profile: str | None, options: Mapping[str, Any]
) -> Submission:
    """What is asked for, from a profile and what was given beside it, which wins.

    Raises
    ------
    UsageError
        One sentence on the first thing that is wrong.
    """
    found = read_profile(profile) if profile is not None else Profile()
    if cluster is not None and cluster.endswith(".toml"):
        found |= read_profile(cluster, "--cluster")
    elif cluster is not None:
        found |= Profile(kind=cluster)
    kind_named(found.kind)
    given = {name: value for name, value in options.items() if value is not None}
    asked = parse_cluster(found.cluster | {name: value for name, value in given.items() if name in CLUSTER})
    run = found.run | {name: value for name, value in given.items() if name not in CLUSTER}
    for name in DECIDED:
        if name in run:
            raise UsageError(f"--{name} {as_typed(run[name])} is what the cluster decides; leave it out.")
    settings = parse_settings(run)
    store = settings.storage_options
    place = Place.at(output, store) if output is not None else default_output(str(input), store)
    return Submission(str(found.kind), _absolute(str(input)), place, run, asked)


def _in_python(input: str | Path, output: str | Path | None, options: Mapping[str, Any]) -> str:
    """The call that submits."""
    given = {name: value for name, value in options.items() if value not in (None, False) and name != "storage_options"}
    places = [repr(str(place)) for place in (input, output) if place is not None]
    return f"phbatch.submit({', '.join([*places, *(f'{name}={value!r}' for name, value in given.items())])})"


def _absolute(path: str) -> str:
    place = Place.at(path)
    return place.path if isinstance(place, LocalPlace) else path


def _require_run(submission: Submission) -> None:
    """Refuse what `run` would refuse, with the memory of a worker where none is said."""
    memory = submission.options.get("memory") or int(submission.cluster.memory_per_worker)
    plan(submission.input, submission.output.path, **dict(submission.options) | {"memory": memory})


def _require_alone(submission: Submission) -> None:
    """Refuse an output that somebody who was submitted says to be at."""
    for who, state in submission.jobs.states():
        if speaks(state):
            raise OutputError(
                f"{submission.output} is being computed by what was submitted before ({who}: process"
                f" {state.get('process')} on {state.get('host')}); wait, or `phbatch cancel` it, and submit again."
            )


def _require_no_credentials(submission: Submission) -> None:
    """Refuse to write them into a script, which others may read."""
    if submission.options.get("storage_options") is not None:
        raise UsageError(
            "--storage-options of a run that goes on without this call would be written into a script; let the jobs"
            " find them in their environment, such as AWS_ACCESS_KEY_ID, by --setup, or leave --detach out."
        )
