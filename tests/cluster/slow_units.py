"""phbatch of which every frame is a unit of its own, each of which takes a while: ``SLOW_S`` seconds, asleep."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from phbatch.computing import tasks
from phbatch.computing.tasks import Job
from phbatch.planning import units
from phbatch.planning.unit import Unit
from phbatch.running import commit
from phbatch.shell.commands import main

_restore_unit = commit.restore_unit


def restore_unit(job: Job, unit: Unit) -> dict[str, Any]:
    """Restore a unit, but not at once."""
    time.sleep(float(os.environ["SLOW_S"]))
    return _restore_unit(job, unit)


if __name__ == "__main__":
    units._UNIT_PIXELS = 1
    commit.restore_unit = tasks.restore_unit = restore_unit
    del sys.argv[1:3]  # -m phbatch
    main()
