"""A rehearsal of benchmarks/gpu.py on a processor: rows come, and those of a part whose time is over stay."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from phbatch.network.device import describe_device
from tests.forks import Forked

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PART = "import sys; sys.path.insert(0, sys.argv.pop(1)); from gpu_parts import main; main()"


def test_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    def call_part(part: str, values: Any, seconds: float, record: Any, environment: dict[str, str]) -> None:
        forked = Forked(PART, [str(BENCHMARKS), part, json.dumps(values)], environment=environment)
        for line in forked.communicate(120)[0].splitlines():
            record.add(part, json.loads(line))

    # What is asked of a new Python; the test below starts one for a part.
    monkeypatch.setattr(gpu, "measure", lambda _, backend: describe_device(backend))
    monkeypatch.setattr(gpu, "call_part", call_part)
    rows = tmp_path / "rows.jsonl"
    words = ["--rehearse", "--parts", "alone", "--folder", str(tmp_path), "--rows", str(rows)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    gpu.main()
    shown = capsys.readouterr().out
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert not [row for row in found if "failed" in row]
    alone = {(row["form"], row["precision"]): row for row in found if row["part"] == "alone"}
    assert len(alone) == 16  # four forms, four precisions
    assert all(row["error_median"] < 1e-5 for (_, precision), row in alone.items() if precision == "float32")
    assert all(row["error_median"] > 1e-4 for (_, precision), row in alone.items() if precision == "bfloat16")
    assert "| compute alone |" in shown
    assert list(tmp_path.iterdir()) == [rows]


def test_what_a_part_had_stays_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    parts = tmp_path / "gpu_parts.py"
    parts.write_text('import time; print(\'{"name": "first", "mpx_per_s": 1}\', flush=True); time.sleep(60)')
    monkeypatch.setattr(gpu, "__file__", str(tmp_path / "gpu.py"))
    record = gpu.Record(tmp_path / "rows.jsonl")
    gpu.call_part("alone", {}, 1.5, record, {})
    assert [row["name"] for row in record.rows] == ["first", "part alone"]
    assert record.of("alone") == [{"part": "alone", "name": "first", "mpx_per_s": 1}]
    assert "ended after" in capsys.readouterr().out
