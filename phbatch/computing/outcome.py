"""What became of a piece of work, wherever it was done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from phbatch.computing.tasks import Job
from phbatch.places.retry import call_with_retries
from phbatch.planning.unit import Unit
from phbatch.words.errors import first_line

Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of a unit: a result or an error, after how many attempts, and on which workers it failed."""

    unit: Unit
    result: Result | None = None
    error: BaseException | None = None
    attempts: int = 1
    failed_on: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """What the error says, in one line, with the workers of a Dask cluster that met it."""
        return first_line(self.error) + (f" (on {' and '.join(self.failed_on)})" if self.failed_on else "")


def attempt(task: Callable[[Job, Unit], Result], job: Job, unit: Unit) -> Outcome[Result]:
    """Do a task; what may pass is tried again, and an error is an outcome and not raised."""
    found, attempts = call_with_retries(partial(task, job, unit), job.retries)
    if isinstance(found, Exception):
        return Outcome(unit, error=found, attempts=attempts)
    return Outcome(unit, result=found, attempts=attempts)
