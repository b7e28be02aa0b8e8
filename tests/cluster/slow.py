"""A Python whose units are slow until a file is there, so that faults come while a run is at it, however fast it is.

It is called as Python is: ``python -m tests.cluster.slow GATE -m MODULE ARGUMENTS``.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from functools import wraps
from pathlib import Path
from typing import Any

from phbatch.computing import tasks
from phbatch.planning.unit import Unit
from tests.cluster.relay import write_program

UNIT_S = float(os.environ.get("SLOW_UNIT_S", "2"))


def make_python(folder: Path) -> tuple[Path, Path]:
    """A program to be called in the place of Python, and the file that makes its units fast."""
    program, gate = folder / "slow-python", folder / "go"
    write_program(program, "tests.cluster.slow", gate)
    return program, gate


def main() -> None:
    """Slow units down, and be what was called."""
    gate, arguments = Path(sys.argv[1]), sys.argv[2:]
    restore = tasks.restore_unit

    @wraps(restore)  # it is known by its name elsewhere
    def restore_slowly(job: tasks.Job, unit: Unit) -> dict[str, Any]:
        if not gate.exists():
            time.sleep(UNIT_S)
        return restore(job, unit)

    tasks.restore_unit = restore_slowly
    if (loaded := sys.modules.get("phbatch.running.commit")) is not None:  # in what is forked
        vars(loaded)["restore_unit"] = restore_slowly
    sys.argv = arguments[1:]
    runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
