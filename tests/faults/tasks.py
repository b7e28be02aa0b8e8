"""Tasks of an array as processes of their own, killed at random moments and started again."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import phbatch
from phbatch.computing.tasks import Job
from phbatch.outputs.image import MEASURED, POOLED
from phbatch.outputs.ledger import FOLDER, Ledger
from phbatch.places.lock import read_array
from phbatch.places.own import PRIVATE
from phbatch.places.place import Place
from phbatch.planning.unit import Unit
from phbatch.running import commit
from phbatch.words.settings import parse_settings
from tests.faults.faults import small_units
from tests.faults.inputs import LAYOUTS, files, make_input, output_options, units_of
from tests.faults.stores import Bucket, local_bytes, remote_bytes, upload
from tests.forks import fork

FRAMES = 9
UNIT_S = 0.05
"""A unit of a process takes so long at least, for a task to be met at work."""

OPTIONS: dict[str, Any] = {"model": "none", "workers": 1}


class Tasks:
    """Arrays over one input.

    Parameters
    ----------
    folder : Path
        Where everything is put.
    layout : str
        A name in `LAYOUTS`.
    bucket : Bucket, optional
        Where input and outputs lie, in place of the folder.
    **options
        Of the run.
    """

    def __init__(self, folder: Path, layout: str = "zarr 3", bucket: Bucket | None = None, **options: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.source = make_input(folder / "in.zarr", (FRAMES, 96, 80), (1, 48, 80), **LAYOUTS[layout])
        self.options = OPTIONS | output_options(layout, 20_000) | options
        with small_units():
            plain = phbatch.run(self.source, folder / "plain.zarr", command="same", **self.options)
        self.expected, self.units = files(plain.output), units_of(plain.output)
        self.passes = 1
        self._count, self.bucket = 0, bucket
        self.store: dict[str, Any] = {}
        self.input = str(self.source)
        if bucket is not None:
            self.store = {"storage_options": bucket.options()}
            self.input = upload(self.source, bucket, "in.zarr")
            self.expected = local_bytes(plain.output)

    def begin(self, parts: int) -> str:
        """A new output for so many tasks."""
        self._count += 1
        name = f"out{self._count}.zarr"
        output = self.bucket.url(name) if self.bucket else str(self.folder / name)
        with small_units():
            begun = phbatch.begin_parts(self.input, output, parts=parts, command="same", **self.options, **self.store)
        self.passes = begun.passes
        return output

    def place(self, output: str) -> Place:
        """Of an output."""
        return Place.at(output, parse_settings(self.store).storage_options)

    def run(self, output: str) -> phbatch.RunResult:
        """The plain run on an output."""
        with small_units():
            return phbatch.run(self.input, output, command="same", **self.options, **self.store)

    def start(self, output: str, part: int) -> Any:
        """A task in a process of its own."""
        return fork(run_task, (output, part, self.store))

    def do(self, output: str, part: int) -> phbatch.PartResult:
        """A task in this process."""
        with small_units():
            return phbatch.run_part(output, part, workers=1, **self.store)

    def stop_at_random(self, draw: Random, stops: int = 1) -> int:
        """Start all tasks, stop some at any moment in any way, start what died again; raises where anything is lost.

        Returns
        -------
        int
            How many tasks were stopped before their end.
        """
        parts = draw.randint(1, 5)
        output, stopped = self.begin(parts), 0
        running = {part: self.start(output, part) for part in draw.sample(range(1, parts + 1), parts)}
        for _ in range(stops):
            moment = draw.randrange(self.passes * len(self.units))
            while self._records(output) < moment and any(process.is_alive() for process in running.values()):
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 2 * UNIT_S))
            part = draw.choice([*running])
            with suppress(ProcessLookupError):  # it ended of itself
                os.kill(running[part].pid, draw.choice([signal.SIGKILL, signal.SIGTERM]))
            running[part].join()
            stopped += running[part].exitcode != 0
            running[part] = self.start(output, part)
        self._await(running)
        for _ in range(self.passes - 1):  # statistics are known by now, but those that ended before were not restored
            self._await({part: self.start(output, part) for part in running})
        if read_array(self.place(output)) is not None:  # the last one alive was stopped before it came to that
            assert self.run(output).units_done == 0, "a task left units undone"
        self.require_whole(output)
        if not self.bucket:
            shutil.rmtree(output)
        return stopped

    def _records(self, output: str) -> int:
        """How many units are measured, pooled or committed."""
        place = self.place(output)
        return sum(sum(1 for _ in Ledger(place, folder)) for folder in (FOLDER, MEASURED, POOLED)) - 1  # of metadata

    def _await(self, running: Mapping[int, Any]) -> None:
        """Let tasks end; one that has measured all it could may have to wait for others."""
        for part, process in running.items():
            process.join(timeout=120)
            assert process.exitcode in ((0, 4) if self.passes > 1 else (0,)), (part, process.exitcode)

    def require_whole(self, output: str) -> None:
        """Raise unless an output is that of the plain run, to the byte."""
        place = self.place(output)
        found = remote_bytes(output, self.store["storage_options"]) if self.bucket else files(output)
        assert found == self.expected, "the output is another one"
        with small_units():
            report = phbatch.verify(output, **self.store)
        assert (report.units, report.finished) == (len(self.units), len(self.units))
        assert report.complete
        assert report.damages == ()
        allowed = {"lock", "ledger", "log", "parts", "zarr.json", ".zgroup", ".zattrs"}
        assert set(place.names(PRIVATE)) <= allowed


def run_task(output: str, part: int, store: dict[str, Any]) -> None:
    """What a process does; SIGTERM kills it where it stands, as a scheduler's last signal does."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    original = commit.restore_unit

    def restore_unit(job: Job, unit: Unit) -> dict[str, Any]:
        time.sleep(UNIT_S)
        return original(job, unit)

    commit.restore_unit = restore_unit
    with small_units():
        raise SystemExit(phbatch.run_part(output, part, workers=1, **store).exit_code)
