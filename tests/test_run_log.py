"""The log beside the ledger: JSON lines, whole after a kill, bounded, and without secrets."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.places.place import Place
from phbatch.running import run_log
from phbatch.running.run_log import FOLDER, RunLog
from phbatch.words.events import Event, Notice, UnitFailed, UnitFinished
from phbatch.words.given import parse_storage_options


def lines_of(output: str | Path) -> list[dict[str, Any]]:
    """Of all logs of an output."""
    found = sorted((Path(output) / FOLDER).glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line) for path in found for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def source(tmp_path: Path, frames: np.ndarray) -> Path:
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 36))
    return tmp_path / "in.zarr"


def test_a_run_is_logged_as_it_goes_and_the_hosts_loggers_stay_as_they_are(source: Path, tmp_path: Path) -> None:
    root = logging.getLogger("phbatch")
    before = (root.level, list(root.handlers), root.propagate)
    seen: list[list[dict[str, Any]]] = []

    def listen(event: Event) -> None:
        if isinstance(event, UnitFinished):
            seen.append(lines_of(tmp_path / "out.zarr"))

    result = phbatch.run(source, tmp_path / "out.zarr", model="none", command="phbatch run in.zarr", listener=listen)
    assert (root.level, root.handlers, root.propagate) == before
    assert seen[0][0]["event"] == "started"  # what a kill now would leave
    first, *_, last = lines_of(result.output)
    assert (first["message"], last["event"], last["level"]) == ("phbatch run in.zarr", "ended", "INFO")
    assert (last["frames"], last["failed"]) == (result.frames, 0)
    assert last["stages"].keys() <= result.stages.keys()
    assert set(result.notices) <= {line["message"] for line in lines_of(result.output)}
    assert all(line["logger"].startswith("phbatch.") for line in lines_of(result.output))
    assert phbatch.verify(result.output).damages == ()


def test_how_a_run_ended_is_logged_and_the_next_call_has_its_own(source: Path, tmp_path: Path) -> None:
    def break_off(event: Event) -> None:
        if isinstance(event, UnitFinished):
            raise RuntimeError("the host has enough")

    with pytest.raises(RuntimeError):
        phbatch.run(source, tmp_path / "out.zarr", model="none", listener=break_off)
    last = lines_of(tmp_path / "out.zarr")[-1]
    assert (last["event"], last["level"], last["message"]) == ("ended", "WARNING", "RuntimeError: the host has enough")
    assert [path.suffix for path in phbatch.logs(tmp_path / "out.zarr")] == [".jsonl"]


@pytest.mark.parametrize("appends", [True, False], ids=["disk", "store"])
def test_a_log_is_bounded_and_holds_no_secret(appends: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "out.zarr").mkdir()
    place = Place.at(tmp_path / "out.zarr")
    monkeypatch.setattr(type(place), "appends", appends)
    monkeypatch.setattr(run_log, "MOST_BYTES", 4000)
    monkeypatch.setattr(run_log, "secrets_of", lambda _: ("hunter22",))
    monkeypatch.setattr(run_log, "MOST_FILES", 3)
    for number in range(5):
        monkeypatch.setattr(run_log, "strftime", lambda *_, number=number: f"2026{number}")
        log = RunLog(place, "phbatch run")
        for unit in range(100):
            log.hear(UnitFailed(f"t{unit}", "GET https://host/x?X-Amz-Signature=abcd1234: hunter22"))
        log.hear(Notice("late"))
        log.close(None)
    kept = sorted((tmp_path / "out.zarr" / FOLDER).iterdir())
    assert [path.name[:5] for path in kept] == ["20262", "20263", "20264"]
    for path in kept:
        text = path.read_text(encoding="utf-8")
        assert len(text) < 6000
        assert "hunter22" not in text
        assert "abcd1234" not in text
        assert [json.loads(line)["event"] for line in text.splitlines()[-2:]] == ["full", "ended"]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no room")

    place = Place.at(tmp_path / "out.zarr")
    monkeypatch.setattr(type(place), "append", refuse)
    log = RunLog(place, "")
    log.hear(Notice("lost"))
    log.close(None)


def test_secrets_of_a_store_are_those_whose_names_say_so() -> None:
    options = parse_storage_options(["aws_secret_access_key=abcdef", "region=eu-west-1", '{"token": "tttt"}'])
    assert set(run_log.secrets_of(options)) == {"abcdef", "tttt"}
