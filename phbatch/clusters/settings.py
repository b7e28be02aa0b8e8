"""What is asked of a cluster: one frozen record, whose rows make the options of `phbatch submit` and the profiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize, ValidationError

from phbatch.words.durations import parse_duration
from phbatch.words.errors import UsageError
from phbatch.words.given import first_problem
from phbatch.words.normalization import Frozen
from phbatch.words.rows import Row, describe, read_rows, setting

KIND_NAMES = ("slurm", "slurm-array", "kubernetes")
"""What a cluster is of; each has a `phbatch.clusters.base.Kind`."""

TYPED = "PHBATCH_COMMAND"
"""Names the environment variable that says to a job what was typed."""

DECIDED = ("scheduler", "workers", "devices")
"""Settings of a run that its cluster decides: `workers` are those of the cluster."""


def _parse_duration(value: Any) -> Any:
    try:
        return round(parse_duration(value, "")) if isinstance(value, str) else value
    except UsageError as error:
        raise ValueError("a time is written as 4h, 1h30m, 10m or 04:00:00") from error


def _parse_lines(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Duration = Annotated[int, BeforeValidator(_parse_duration)]
"""Seconds; ``4h`` and the like may be given."""

Lines = Annotated[tuple[str, ...], BeforeValidator(_parse_lines)]


def _row(metavar: str = "", *, unset: str = "", given: str = "", repeated: bool = False) -> Row:
    return Row("cluster", "place", metavar=metavar, unset=unset, given=given, repeated=repeated)


class ClusterSettings(Frozen):
    """What is asked of a cluster.

    The names are those of the options of ``phbatch submit`` and of the keys of a profile.
    """

    workers: int = setting(
        1, "Worker processes, each a job of its own; those that are lost are replaced.", _row("N"), ge=1
    )
    gpus_per_worker: int = setting(0, "GPUs of each worker.", _row("N"), ge=0)
    cores_per_worker: int = setting(1, "Cores of each worker, which computes as many units at once.", _row("N"), ge=1)
    memory_per_worker: ByteSize = setting(
        ByteSize(4_000_000_000), "Memory of each worker.", _row("SIZE", unset="4GB", given="int | str")
    )
    walltime: Duration = setting(3600, "How long a job may take.", _row("TIME", unset="1h", given="int | str"), ge=60)
    drain: Duration = setting(
        120,
        "A worker takes nothing new this long before its walltime, and the controller starts anew.",
        _row("TIME", unset="2m", given="int | str"),
        ge=0,
    )
    partition: str | None = setting(None, "Queue of the jobs.", _row("NAME", unset="the site's"))
    account: str | None = setting(None, "Whom the time is charged to.", _row("NAME", unset="yours"))
    directive: Lines = setting(
        (),
        "A further line of the workers' heads, such as --constraint=a100.",
        _row("TEXT", unset="none", repeated=True),
    )
    controller_directive: Lines = setting(
        (), "The same for the controller's job, such as --partition=cpu.", _row("TEXT", unset="none", repeated=True)
    )
    setup: Lines = setting(
        (),
        "A line of shell that each job begins with, such as 'module load cuda'.",
        _row("TEXT", unset="none", repeated=True),
    )
    python: str | None = setting(None, "Python of the jobs.", _row("PATH", unset="this one"))
    interface: str | None = setting(
        None, "Network that workers and scheduler meet on, such as ib0.", _row("NAME", unset="the default")
    )
    host: str | None = setting(
        None,
        "Address that the scheduler listens on, where an interface does not say it.",
        _row("ADDRESS", unset="the interface's"),
    )
    tls: bool = setting(
        False,
        "Scheduler and workers meet by TLS, with the certificates of Dask's configuration or, where it names none, ones"
        " that are made for this run.",
        _row(),
    )
    scratch: str | None = setting(
        None, "Folder of the nodes for what Dask spills.", _row("FOLDER", unset="their temporary one")
    )
    image: str | None = setting(
        None, "Image of the pods, where the cluster is a Kubernetes.", _row("NAME", unset="phbatch:<this version>")
    )
    namespace: str | None = setting(None, "Namespace of the pods.", _row("NAME", unset="that of your configuration"))
    min_workers: int | None = setting(
        None,
        "Workers that stay where little is to do, in a Kubernetes; it scales from these to --workers.",
        _row("N", unset="--workers"),
        ge=0,
    )
    spot: bool = setting(False, "Workers may be pods on spot machines.", _row())
    node_label: Lines = setting(
        (),
        "Label of the nodes for workers, such as nvidia.com/gpu.product=A100.",
        _row("KEY=VALUE", unset="any", repeated=True),
    )
    toleration: Lines = setting(
        (),
        "Taint of nodes that workers may run on all the same.",
        _row("KEY=VALUE:EFFECT", unset="none", repeated=True),
    )
    secret: Lines = setting(
        (),
        "Secret whose entries are variables of workers and controller, such as keys of a store.",
        _row("NAME", unset="none", repeated=True),
    )
    volume: Lines = setting(
        (),
        "Volume claim that all pods see, and where, such as plates:/data.",
        _row("CLAIM:PATH", unset="none", repeated=True),
    )
    logs: str | None = setting(
        None, "Folder for the jobs' logs and scripts.", _row("FOLDER", unset="<stem>.jobs beside the output")
    )


CLUSTER = read_rows(ClusterSettings)
"""The table of what is asked of a cluster, by name."""

ClusterSettings.__doc__ = (ClusterSettings.__doc__ or "") + describe(CLUSTER)


def parse_cluster(options: Mapping[str, Any]) -> ClusterSettings:
    """What is asked of a cluster, from options as a person wrote them; None and missing are the same.

    Raises
    ------
    UsageError
        One sentence on the first option that is wrong.

    Examples
    --------
    >>> parse_cluster({"workers": 8, "walltime": "4h", "partition": None}).walltime
    14400
    """
    try:
        return ClusterSettings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        raise UsageError(first_problem(error).replace("phbatch run", "phbatch submit")) from error
