"""Trying again what may work the next time: reads and writes, but not a frame that holds NaN."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

from phbatch.words.errors import PhbatchError

Result = TypeVar("Result")

BACKOFF_S = 0.5
"""Pause before the second attempt; it doubles from one attempt to the next."""

LONGEST_PAUSE_S = 8.0
"""No pause is longer."""

_NO_PLACE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def is_out_of_place(error: BaseException | None) -> bool:
    """Whether nothing more can be written: the disk or the quota is full, or the file system is read-only.

    Examples
    --------
    >>> is_out_of_place(OSError(errno.ENOSPC, "No space left on device"))
    True
    """
    return isinstance(error, OSError) and error.errno in _NO_PLACE


def may_pass(error: BaseException) -> bool:
    """Whether an error may be gone at the next attempt: that of a disk or a network, and no refusal.

    Examples
    --------
    >>> may_pass(ConnectionResetError()), may_pass(PermissionError(errno.EACCES, "")), may_pass(ValueError())
    (True, False, False)
    """
    if isinstance(error, PermissionError | PhbatchError):
        return False
    return isinstance(error, OSError) and error.errno not in _NO_PLACE


def pause_s(attempt: int) -> float:
    """Pause after an attempt that failed: doubling, bounded, and up to half as long again, so that writers part."""
    return float(min(LONGEST_PAUSE_S, BACKOFF_S * 2 ** (attempt - 1)) * random.uniform(1, 1.5))  # noqa: S311


def call_with_retries(task: Callable[[], Result], retries: int) -> tuple[Result | Exception, int]:
    """Call a task until it returns, fails for good, or was retried often enough.

    Parameters
    ----------
    task : callable
        Without arguments; it may be called again after it failed.
    retries : int
        Calls after the first one, at most.

    Returns
    -------
    result : object or Exception
        What the task returned, or the error of its last attempt.
    attempts : int
        How often it was called.
    """
    attempt = 1
    while True:
        try:
            return task(), attempt
        except Exception as error:
            if attempt > retries or not may_pass(error):
                return error, attempt
        time.sleep(pause_s(attempt))
        attempt += 1
