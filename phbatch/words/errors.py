"""The one error tree: what went wrong, in one sentence with the value, the rule and the remedy.

::

    PhbatchError                 exit code 1
    ├── UsageError               2   options that contradict each other or the documentation
    │   └── ClusterError         3   a Dask cluster has no workers, or none that may be used
    ├── InputError               3   the input cannot be processed
    ├── ModelError               3   the model folder cannot be used
    ├── OutputError              3   the output place cannot be used
    ├── MemoryLimitError         3   the plan does not fit the memory allowed
    ├── DeviceError              1   a GPU failed, which is nothing that a unit did
    └── InterruptedRunError      130 stopped before its end; the run can be continued
        └── WorkersGoneError     3   all workers of a Dask cluster went and none came; it is a ClusterError, too

Exit code 4, some units failed, is no error: the result of the run names them.
"""

from __future__ import annotations

from typing import ClassVar

from phbatch.words.wording import say


class PhbatchError(Exception):
    """Base of every error that phbatch raises on purpose.

    Parameters
    ----------
    message : str
        One sentence: the value, the rule, the remedy. Options are named as on the command line, ``--bad-frames=skip``;
        in Python the error reads ``bad_frames='skip'``.
    frame : str, optional
        Key of the frame that the error is about, such as ``"t3/c0"``.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, frame: str | None = None) -> None:
        super().__init__(message)
        self.frame = frame

    def __str__(self) -> str:
        return say(super().__str__())


class UsageError(PhbatchError):
    """Options that contradict each other, or a value outside its documented range."""

    exit_code = 2


class ClusterError(UsageError):
    """A Dask cluster has no workers, or none of them can do the work."""

    exit_code = 3


class InputError(PhbatchError):
    """The input cannot be processed: not a Zarr, unknown axes, a frame with NaN, and so on."""

    exit_code = 3


class ModelError(PhbatchError):
    """The model folder is incomplete, of another kind, or does not fit the input."""

    exit_code = 3


class OutputError(PhbatchError):
    """The output cannot be written there, or holds something else."""

    exit_code = 3


class MemoryLimitError(PhbatchError):
    """The plan needs more memory than is allowed."""

    exit_code = 3


class DeviceError(PhbatchError):
    """A GPU, its driver or its libraries failed: what was to be computed there is to be computed elsewhere."""


class InterruptedRunError(PhbatchError):
    """The run was stopped before its end; calling it again continues it."""

    exit_code = 130


class WorkersGoneError(InterruptedRunError, ClusterError):
    """All workers of a Dask cluster went in the middle of a run, and no others came in time; it can be continued."""

    exit_code = 3


def first_line(error: BaseException | None) -> str:
    """What an error says, in one line; the name of its class where it says nothing."""
    text = str(error).strip() if error is not None else ""
    return text.splitlines()[0] if text else type(error).__name__
