"""kill -9 at random moments of a run with a model: resumed, it ends equal to the byte and repeats no finished work."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import phbatch
from phbatch.computing.tasks import Job
from phbatch.network.backend import start_sparingly
from phbatch.planning.unit import Unit
from phbatch.running import commit
from tests.faults.faults import small_units
from tests.faults.inputs import LAYOUTS, files, make_input, output_options, units_of
from tests.forks import fork
from tests.handmade import write_model

WORKERS = 2
FRAMES = 8
SHARD_BYTES = 2_400_000
"""Two frames in a shard, and in a unit."""


@dataclass(frozen=True)
class Killed:
    """What became of a run that was killed once or more.

    Attributes
    ----------
    at_s : float
        When the first kill came.
    kills : int
        How often it was killed.
    committed : int
        Units that were in the ledger at the last kill.
    repeated : int
        Units that were started before the last kill and started again: the work that was lost.
    """

    at_s: float
    kills: int
    committed: int
    repeated: int


class Victims:
    """Runs of one input in processes of their own.

    Parameters
    ----------
    folder : Path
        Where everything is put.
    layout : str
        A name in `LAYOUTS`.
    """

    def __init__(self, folder: Path, layout: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.source = make_input(folder / "in.zarr", (FRAMES, 1040, 260), (1, 520, 260), **LAYOUTS[layout])
        self.options = output_options(layout, SHARD_BYTES)
        self.model = write_model(folder / "model")
        self.whole = folder / "whole.zarr"
        started = time.monotonic()
        assert self._finish(self._start(self.whole)) == 0
        self.duration_s = time.monotonic() - started
        self.expected = files(self.whole)
        self.units = units_of(self.whole)
        self._count = 0

    def kill(self, draw: random.Random) -> Killed:
        """Kill a run once, and a third of them again while they resume; then let it end and compare."""
        self._count += 1
        output = self.folder / f"out{self._count}.zarr"
        at_s = draw.uniform(0, self.duration_s)
        kills = 1 if draw.random() < 2 / 3 else 2
        for number in range(kills):
            process = self._start(output)
            time.sleep(at_s if number == 0 else draw.uniform(0, self.duration_s))
            if process.is_alive():
                os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        committed = set(units_of(output))
        before = set(self._started(output))
        self._log(output).unlink(missing_ok=True)
        assert self._finish(self._start(output)) == 0
        again = self._started(output)
        assert sorted(again) == sorted(set(self.units) - committed), "finished work was repeated"
        assert files(output) == self.expected, "the output is another one"
        with small_units():
            assert phbatch.verify(output).damages == ()
        shutil.rmtree(output)
        self._log(output).unlink(missing_ok=True)
        return Killed(at_s, kills, len(committed), len(before & set(again)))

    def _start(self, output: Path) -> Any:
        return fork(restore, (self.source, output, self.model, self._log(output), self.options))

    def _finish(self, process: Any) -> int:
        process.join(timeout=120)
        assert process.exitcode is not None, "the run hangs"
        return int(process.exitcode)

    def _log(self, output: Path) -> Path:
        return output.with_suffix(".started")

    def _started(self, output: Path) -> list[str]:
        log = self._log(output)
        return log.read_text(encoding="utf-8").split() if log.exists() else []


def restore(source: Path, output: Path, model: Path, log: Path, options: dict[str, Any]) -> None:
    """A run as that of the command, whose networks are kept, that notes every unit that it starts."""
    original = commit.restore_unit

    def restore_unit(job: Job, unit: Unit) -> dict[str, Any]:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{unit.key}\n")
        return original(job, unit)

    commit.restore_unit = restore_unit
    start_sparingly()
    with small_units():
        result = phbatch.run(source, output, model=model, tile=512, workers=WORKERS, command="same", **options)
    raise SystemExit(result.exit_code)
