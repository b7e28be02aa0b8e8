"""What a kind of cluster is: where the workers come from, and who is asked for them."""

from __future__ import annotations

import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from phbatch.clusters.beside import Jobs
from phbatch.clusters.profiles import write_profile
from phbatch.clusters.settings import ClusterSettings
from phbatch.places.place import LocalPlace, Place


@dataclass(frozen=True)
class Submission:
    """A run that is to be computed on a cluster.

    Attributes
    ----------
    kind : str
        Of the cluster, as `phbatch.clusters.kinds.KINDS` names it.
    input : str
        As it was given, absolute where it is on a disk.
    output : Place
        Where it goes.
    options : mapping
        Of the run, as a person wrote them; without those that the cluster decides.
    cluster : ClusterSettings
        What is asked of it.
    verify : bool
        Whether the output is checked once it is complete.
    report : bool
        Whether jobs that go on without the call that submits write the report at the end.
    command : str
        What was typed, which is recorded wherever the run is begun.
    """

    kind: str
    input: str
    output: Place
    options: Mapping[str, Any]
    cluster: ClusterSettings
    verify: bool = False
    report: bool = True
    command: str = ""

    @property
    def name(self) -> str:
        """Of its jobs, and of no other output's."""
        stem = re.sub(r"[^\w.-]", "_", self.output.name.removesuffix(".zarr"))
        return f"phbatch-{stem}-{zlib.crc32(self.output.path.encode()):08x}"

    @property
    def logs(self) -> Path:
        """Folder for the jobs' scripts and logs, on a disk that they see."""
        if self.cluster.logs is not None:
            return Path(self.cluster.logs).expanduser().absolute()
        place = self.jobs.place
        return place.folder if isinstance(place, LocalPlace) else Path.cwd() / place.name

    def profile(self) -> str:
        """The text of a profile that repeats it, without credentials."""
        shown = {name: value for name, value in self.options.items() if name != "storage_options"}
        return write_profile(self.kind, self.cluster, shown)

    @property
    def jobs(self) -> Jobs:
        """What lies beside the output."""
        return Jobs(self.output)


class Opened(Protocol):
    """A Dask cluster that a kind has opened."""

    @property
    def address(self) -> str:
        """Of its scheduler."""

    def workers(self) -> int:
        """How many are there."""

    def tend(self) -> str:
        """Look after them, now and then; says what hinders them from coming, and else nothing."""


class Kind(ABC):
    """A kind of cluster.

    Attributes
    ----------
    extra : str
        The extra that its library comes with.
    detaches : bool
        Whether it always goes on without the call that submits.
    """

    extra = ""
    detaches = False

    @abstractmethod
    def render(self, submission: Submission, *, detach: bool) -> dict[str, str]:
        """The scripts or manifests that would be submitted, by the names of their files."""

    def check(self, submission: Submission) -> None:  # noqa: B027
        """Refuse what the cluster refuses, before anything is written.

        Raises
        ------
        UsageError
            What the cluster says.
        """

    def open(self, submission: Submission) -> AbstractContextManager[Opened]:
        """A Dask cluster of the workers that are asked for, while inside; those that are lost are replaced."""
        raise NotImplementedError

    @abstractmethod
    def launch(self, submission: Submission) -> dict[str, Any]:
        """Have it computed without this call; returns what `Jobs.submit` records: ``job`` and what `cancel` needs."""

    def is_over(self, submission: Submission) -> bool:
        """Whether this process is a job whose time is over, or nearly so; not one that somebody cancelled."""
        return False

    def again(self) -> None:
        """Have the job that this process is begin once more; it may be ended at once."""
        raise NotImplementedError

    def here(self) -> str:
        """Number of the job that this process is; empty where it is none."""
        return ""

    def cancel(self, record: Mapping[str, Any]) -> bool:
        """End the jobs of a submission from here; returns whether this machine can."""
        return False
