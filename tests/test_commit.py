"""What becomes of a unit that cannot be written: where every further one would fail alike, the run ends at once."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.computing.tasks import Job
from phbatch.outputs.ledger import METADATA, Ledger
from phbatch.places.place import Place
from phbatch.planning.unit import Unit
from phbatch.running import commit
from phbatch.words.errors import OutputError
from tests.faults.faults import small_units


@pytest.fixture
def source(tmp_path: Path, frames: np.ndarray) -> Path:
    zarr.create_array(tmp_path / "in.zarr", data=np.concatenate([frames, frames]), chunks=(1, 40, 36))
    return tmp_path / "in.zarr"


def fail(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[str]:
    """Every unit but the first two fails with an error; the keys of those that were tried."""
    tried, original = list[str](), commit.restore_unit

    def restore_unit(job: Job, unit: Unit) -> dict[str, Any]:
        tried.append(unit.key)
        if len(tried) > 2:
            raise error
        return original(job, unit)

    monkeypatch.setattr(commit, "restore_unit", restore_unit)
    return tried


@pytest.mark.parametrize(
    "error",
    [OutputError("held by another run"), OSError(errno.ENOSPC, "No space left on device")],
    ids=["held", "full"],
)
def test_where_nothing_more_can_be_written_the_run_ends_and_is_continued(
    source: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with small_units():
        fail(monkeypatch, error)
        with pytest.raises(OutputError):
            phbatch.run(source, model="none", workers=1, retries=0)
        monkeypatch.undo()
        assert phbatch.run(source, model="none").units_skipped == 2


def test_a_unit_that_fails_alone_is_named_and_not_committed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_units():
        fail(monkeypatch, ValueError("a codec fails"))
        result = phbatch.run(source, model="none", workers=1, retries=0)
        assert (result.units_done, len(result.failed)) == (2, 4)
        assert set(Ledger(Place.at(result.output)).records()) - {METADATA} == {"t0/c0", "t1/c0"}
        monkeypatch.undo()
        assert phbatch.run(source, model="none").units_skipped == 2


def test_a_stop_that_comes_when_everything_was_tried_is_none(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_units():
        tried = fail(monkeypatch, ValueError("a codec fails"))
        result = phbatch.run(source, model="none", workers=1, retries=0, stop=lambda: len(tried) == 6)
    assert (result.units_done, len(result.failed), result.exit_code) == (2, 4, 4)


def test_a_record_says_how_often_a_unit_was_tried_and_how_long_it_took(source: Path) -> None:
    with small_units():
        result = phbatch.run(source, model="none", workers=1)
    records = Ledger(Place.at(result.output)).records()
    assert {records[f"t{t}/c0"]["attempt"] for t in range(6)} == {1}
    assert result.units_done == 6
