"""A rehearsal of benchmarks/cluster.py, of the arithmetic of limits, and calls that are spread evenly."""

from __future__ import annotations

import doctest
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phbatch.computing.teams import TEAM, Teams
from tests.forks import Forked

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PATH = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def start_forked(command: list[str], *, cwd: str, env: dict[str, str], **_: object) -> Forked:
    """In place of a Python of its own, which the test of units of no work starts."""
    option, what, *arguments = command[1:]
    code = what if option == "-c" else f"import runpy; runpy.run_module({what!r}, run_name='__main__')"
    return Forked(PATH + code, arguments, environment=env, folder=Path(cwd))


def measure_forked(code: str, *arguments: str, **environment: str) -> Any:
    said, errors = (forked := Forked(PATH + code, arguments, environment=environment)).communicate(300)
    assert forked.returncode == 0, errors
    return json.loads(said.splitlines()[-1])


@pytest.mark.usefixtures("scaling")
def test_rehearsal_of_units_of_no_work() -> None:
    from cluster import measure_units

    found = measure_units(300, 2, 60)
    assert found["units"] == 300
    assert all(used > 0 for used in found["processor_ms_per_unit"])
    assert [row[0] for row in found["mb"]] == [30, 150, 300]
    assert found["mb"][0][2] < found["mb"][0][1]  # the scheduler loads nothing of ours


@pytest.mark.usefixtures("scaling")
def test_rehearsal_of_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    import cluster
    from cluster import measure_many, scheduler_share

    monkeypatch.setattr(cluster, "subprocess", SimpleNamespace(Popen=start_forked, DEVNULL=None))
    monkeypatch.setattr(cluster, "measure", measure_forked)
    row = measure_many(4, 2, 0.05, 1)
    assert row["workers"] == 4
    assert row["calls_per_s"] > 0
    assert row["share"]["scheduler"] > 0
    assert scheduler_share(1000, row) > scheduler_share(10, row)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=60), st.lists(st.integers(1, 20), max_size=10))
def test_calls_are_spread_over_all_workers(counts: list[int], graphs: list[int]) -> None:
    threads = {f"tcp://{index}": count for index, count in enumerate(counts)}
    teams, given_to = Teams(), Counter[frozenset[str]]()
    for graph in graphs:
        for team, keys in teams.share(map(str, range(graph)), list(threads), threads):
            assert 0 < len(team) <= TEAM
            given_to[frozenset(team)] += len(keys)
    assert sum(given_to.values()) == sum(graphs)
    if sum(graphs) >= len(counts):
        assert set().union(*given_to) == threads.keys()
    loads = [count / sum(threads[worker] for worker in team) for team, count in given_to.items()]
    assert not loads or max(loads) - min(loads) <= 1  # no team gets its next call before others had theirs


@pytest.mark.usefixtures("scaling")
def test_rehearsal_of_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import limits

    assert doctest.testmod(limits).failed == 0
    monkeypatch.setattr("sys.argv", ["limits.py", "--records", "3", "--fsync", str(tmp_path)])
    limits.main()
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith("| 1")]) == 6
