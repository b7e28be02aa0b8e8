"""Single faults from a table: each is injected into a run of its own, which must end equal to one without a fault."""

from __future__ import annotations

import errno
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import phbatch
from phbatch.computing.tasks import Job
from phbatch.frames.light import PreparedFrame
from phbatch.inputs.image import Source
from phbatch.network.predictor import Predictor
from phbatch.outputs.ledger import Ledger
from phbatch.places import durable
from phbatch.places.place import Place
from phbatch.planning import chunks
from phbatch.planning import units as planning
from phbatch.planning.unit import Unit
from phbatch.running import commit
from phbatch.words.events import UnitFinished
from tests.faults.inputs import LAYOUTS, files, make_input, output_options, units_of
from tests.handmade import write_model

UNITS = 6
BENCHES = ("zarr 2", "zarr 3", "zarr 3, sharded output")
"""Of `LAYOUTS`."""

_SHARD_FRAMES, _SHARD_BYTES = 2, 16_000


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes
    ----------
    kind : str
        Row of the campaign's table.
    place : str
        Stage of a unit, or object of the output.
    unit : int
        Which unit, or which object of its kind.
    attempts : int
        Attempts of the unit that fail, from the first one on.
    error : str
        A name in `ERRORS`, or a way to damage an object.
    """

    kind: str
    place: str
    unit: int
    attempts: int = 1
    error: str = ""


ERRORS: dict[str, Callable[[], Exception]] = {
    "disk": lambda: OSError(errno.EIO, "Input/output error"),
    "network": lambda: ConnectionResetError("connection reset by peer"),
    "time": lambda: TimeoutError("timed out"),
    "value": lambda: ValueError("not the right value"),
    "memory": lambda: MemoryError("out of memory"),
    "full": lambda: OSError(errno.ENOSPC, "No space left on device"),
}

STAGES: dict[str, tuple[Any, str]] = {
    "read": (Source, "_read_noting"),
    "statistics": (PreparedFrame, "measure"),
    "predict": (Predictor, "restore"),
    "write": (durable, "synchronize_together"),
}


def damage(path: Path, how: str) -> None:
    """Flip one bit, tear, empty or delete a file."""
    data = bytearray(path.read_bytes())
    if how == "delete" or (how == "flip" and not data):
        path.unlink()
        return
    if how == "flip":
        data[len(data) // 2] ^= 4
    path.write_bytes(data[: {"tear": len(data) // 2, "empty": 0}.get(how, len(data))])


class Bench:
    """A small run with a model, and what it gives without a fault.

    Parameters
    ----------
    folder : Path
        Where everything is put.
    layout : str
        One of `BENCHES`.
    """

    def __init__(self, folder: Path, layout: str) -> None:
        self.folder = folder
        self._options = output_options(layout, _SHARD_BYTES)
        frames = UNITS * (_SHARD_FRAMES if self._options else 1)
        self.source = make_input(folder / "in.zarr", (frames, 48, 40), (1, 24, 40), **LAYOUTS[layout])
        write_model(folder / "model")
        self._count = 0
        self.whole = self.new_output()
        assert self.run(self.whole).exit_code == 0
        self.expected = files(self.whole)
        self.units = units_of(self.whole)
        assert len(self.units) == UNITS

    def new_output(self) -> Path:
        self._count += 1
        return self.folder / f"out{self._count}.zarr"

    def run(self, output: Path, **options: Any) -> phbatch.RunResult:
        return phbatch.run(
            self.source,
            output,
            **({"model": self.folder / "model", "command": "same", "workers": 1} | self._options | options),
        )

    @property
    def objects(self) -> dict[str, list[str]]:
        """Keys of the output by kind."""
        pixels = [key for key in self.expected if key.rpartition("/")[2].isdecimal() and key.startswith("0/")]
        return {"pixels": pixels, "metadata": [key for key in self.expected if key not in pixels]}

    def survive(self, fault: Fault) -> None:
        """Run with a fault, go on as the message says, and compare; raises where anything is lost."""
        output = self.new_output()
        if fault.kind == "exception":
            self._survive_exception(fault, output)
        elif fault.kind == "object":
            shutil.copytree(self.whole, output)
            damage(output / self.objects[fault.place][fault.unit], fault.error)
            assert phbatch.verify(output).exit_code == 3
            assert phbatch.repair(output).exit_code == 0
        elif fault.kind == "ledger":
            self._survive_truncated_ledger(fault, output)
        else:
            self._survive_second_run(output, fault.unit)
        assert files(output) == self.expected, fault
        assert phbatch.verify(output).damages == (), fault
        shutil.rmtree(output)

    def _survive_exception(self, fault: Fault, output: Path) -> None:
        passing = fault.error in ("disk", "network", "time") and fault.attempts <= 3
        passing |= (fault.place, fault.error) == ("write", "value")  # a codec or a client may raise anything
        key = self.units[fault.unit]
        with inject(fault, key):
            if fault.place == "commit" or fault.error == "full":
                with pytest.raises(phbatch.OutputError, match="call the same command again"):
                    self.run(output)
            else:
                result = self.run(output)
                assert list(result.failed) == ([] if passing else [key]), fault
        if passing and fault.place != "commit":
            assert Ledger(Place.at(output)).records()[key]["attempt"] == fault.attempts + 1, fault
        else:
            done = units_of(output)
            result = self.run(output)
            assert result.exit_code == 0
            assert result.units_done == UNITS - len(done)

    def _survive_truncated_ledger(self, fault: Fault, output: Path) -> None:
        shutil.copytree(self.whole, output)
        ledgers = sorted(output.glob(".phbatch/ledger/*.jsonl"))
        text = b"".join(path.read_bytes() for path in ledgers)
        for path in ledgers[1:]:
            path.unlink()
        ledgers[0].write_bytes(text[: random.Random(fault.unit).randrange(len(text))])
        left = len(units_of(output))
        assert (self.run(output) if fault.unit % 2 else phbatch.repair(output)).units_done == UNITS - left

    def _survive_second_run(self, output: Path, at: int) -> None:
        """A second run at every unit of the first, with and without --overwrite."""
        refused = []

        def try_second(event: Any) -> None:
            if isinstance(event, UnitFinished) and event.unit == self.units[at % UNITS]:
                with pytest.raises(phbatch.OutputError, match="is being written by another run"):
                    self.run(output, overwrite=at % 2 == 0)
                refused.append(event.unit)

        first = threading.Thread(target=self.run, args=(output,), kwargs={"listener": try_second})
        first.start()
        first.join(timeout=60)
        assert refused
        assert not first.is_alive()


@contextmanager
def inject(fault: Fault, key: str) -> Iterator[None]:
    """While inside, a stage of a unit fails as the fault says."""
    patch = pytest.MonkeyPatch()
    attempts: Counter[str] = Counter()
    here = threading.local()  # several units are under way, each in a thread
    original_unit, original_append = commit.restore_unit, Ledger._append

    def restore(job: Job, unit: Unit) -> dict[str, Any]:
        here.unit = unit.key
        attempts[unit.key] += 1
        try:
            return original_unit(job, unit)
        finally:
            del here.unit

    def fails() -> bool:
        return getattr(here, "unit", "") == key and attempts[key] <= fault.attempts

    def append(self: Ledger, line: bytes) -> None:
        if f'"unit": "{key}"'.encode() in line:
            if fault.attempts > 1:  # torn: half of the line is on the disk
                original_append(self, line[: len(line) // 2])
            raise ERRORS[fault.error]()
        original_append(self, line)

    patch.setattr(commit, "restore_unit", restore)
    if fault.place == "commit":
        patch.setattr(Ledger, "_append", append)
    else:
        owner, name = STAGES[fault.place]
        original = getattr(owner, name)

        def stage(*arguments: Any, **options: Any) -> Any:
            if fails():
                raise ERRORS[fault.error]()
            return original(*arguments, **options)

        patch.setattr(owner, name, stage)
    try:
        yield
    finally:
        patch.undo()


def table(objects: dict[str, list[str]], *, ledgers: int = 60, runs: int = 24) -> list[Fault]:
    """Every single fault of the campaign."""
    found = [
        Fault("exception", place, unit, attempts, error)
        for place in STAGES
        for unit in range(UNITS)
        for error in ERRORS
        for attempts in ((1, 2, 3, 4) if error in ("disk", "network", "time") else (1,))
        if error != "full" or place == "write"
    ]
    found += [
        Fault("exception", "commit", unit, attempts, error)
        for unit in range(UNITS)
        for attempts in (1, 2)
        for error in ("disk", "full")
    ]
    found += [
        Fault("object", place, index, error=error)
        for place, keys in objects.items()
        for index in range(len(keys))
        for error in ("flip", "tear", "empty", "delete")
    ]
    found += [Fault("ledger", "ledger", index) for index in range(ledgers)]
    found += [Fault("second run", "lock", index) for index in range(runs)]
    return found


@contextmanager
def small_units() -> Iterator[None]:
    """While inside, every frame is a unit of its own, however small."""
    patch = pytest.MonkeyPatch()
    patch.setattr(planning, "_UNIT_PIXELS", 1)
    try:
        yield
    finally:
        patch.undo()


SMALL = """
from phbatch.planning import chunks, units
from phbatch.shell.commands import main
units._UNIT_PIXELS, chunks._CHUNK_LENGTH, chunks._COARSEST = 1, 64, 64
main()
"""
"""The command line with `small_frames`."""


@contextmanager
def small_frames(unit_pixels: int = 1) -> Iterator[None]:
    """While inside, frames of 64 to 128 pixels a side are what those of 1024 to 2048 are: units of several chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "_UNIT_PIXELS", unit_pixels)
        patch.setattr(chunks, "_CHUNK_LENGTH", 64)
        patch.setattr(chunks, "_COARSEST", 64)
        yield
