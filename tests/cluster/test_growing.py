"""Clusters that grow and shrink while a run goes on: everybody has something to do, and those that adapt see why."""

from __future__ import annotations

import threading
import time
from collections import Counter

from distributed import Client, get_worker

from phbatch.computing.cluster import connect
from phbatch.computing.crew import Crew
from phbatch.computing.engine import execute
from phbatch.computing.tasks import NOWHERE, Job
from phbatch.computing.teams import TEAM, Teams
from phbatch.computing.workers import Workers
from phbatch.frames.recipe import Recipe
from phbatch.planning.unit import Unit
from phbatch.planning.units import Geometry
from phbatch.words.events import ignore
from phbatch.words.normalization import Normalization
from tests.clusters import open_cluster

JOB = Job(NOWHERE, None, Recipe(Normalization()))
LONG_S = 240.0

_busy: set[str] = set()
_all = threading.Condition()
_calls: Counter[str] = Counter()


def make_units(count: int) -> tuple[Unit, ...]:
    return tuple(Geometry((count, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(count), (0,)).units)


def wait_for_all(job: Job, unit: Unit) -> str:
    """Return once eight workers compute at once, or did."""
    with _all:
        _busy.add(get_worker().address)
        _all.notify_all()
        assert _all.wait_for(lambda: len(_busy) >= 8, LONG_S), f"{len(_busy)} are busy"
    return unit.key


def test_a_cluster_that_grows_from_one_worker_to_eight_is_busy_altogether() -> None:
    _busy.clear()
    units = make_units(40)
    with open_cluster(1) as growing:

        def grow() -> None:
            with _all:
                _all.wait_for(lambda: _busy, LONG_S)
            growing.scale(8)

        thread = threading.Thread(target=grow)
        thread.start()
        found = list(execute(wait_for_all, JOB, units, workers=1, scheduler=growing.scheduler_address))
        thread.join(LONG_S)
    assert {outcome.result for outcome in found} == {unit.key for unit in units}
    assert len(_busy) == 8


def work(job: Job, unit: Unit) -> str:
    _calls[get_worker().address] += 1
    time.sleep(0.2)
    return unit.key


def test_a_cluster_that_adapts_sees_what_waits_and_nothing_of_it_stays() -> None:
    _calls.clear()
    units = make_units(60)
    with open_cluster(0) as adapting:
        adapting.adapt(minimum=1, maximum=3, interval="200ms")
        with Client(adapting, set_as_default=False) as host:
            found = list(execute(work, JOB, units, workers=1, scheduler=adapting.scheduler_address))
            assert {outcome.result for outcome in found} == {unit.key for unit in units}
            assert len(_calls) == 3
            deadline = time.monotonic() + LONG_S
            while host.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_hundreds_of_workers_get_calls_in_teams_that_are_as_busy_as_each_other() -> None:
    teams, workers = Teams(), [f"tcp://10.0.0.{index}" for index in range(100)]
    first = teams.share(map(str, range(300)), workers, dict.fromkeys(workers, 1))
    assert sorted(worker for team, _ in first for worker in team) == sorted(workers)
    assert max(len(team) for team, _ in first) == TEAM
    assert sorted(int(key) for _, keys in first for key in keys) == list(range(300))
    assert all(abs(len(keys) - 3 * len(team)) <= 1 for team, keys in first)
    ended, keys = first[0]
    for _ in keys:
        teams.ended(ended)
    grown = [*workers[20:], *(f"tcp://10.0.1.{index}" for index in range(20))]
    ((team, given),) = teams.share(["a", "b"], grown, {})
    assert given == ["a", "b"]
    assert len(team) <= TEAM


def test_calls_grow_towards_seconds_on_hundreds_of_workers() -> None:
    with open_cluster(1) as cluster, connect(cluster.scheduler_address) as client:
        crew = Crew(client, cluster.scheduler_address, None, ignore, 60)
        there = Workers(client, crew, 1)
        shares = []
        for count in (1, 10, 200, 1000):
            crew.threads = {f"tcp://10.0.0.{index}": 1 for index in range(count)}
            shares.append(there.share_s)
    assert shares == [0.1, 0.1, 2.0, 10.0]


def test_retired_workers_lose_at_most_what_is_in_flight() -> None:
    _calls.clear()
    units = make_units(40)
    with open_cluster(4) as shrinking, Client(shrinking, set_as_default=False) as host:
        retired = [worker.address for worker in shrinking.workers.values()][:2]
        found = []
        for outcome in execute(work, JOB, units, workers=1, scheduler=shrinking.scheduler_address):
            found.append(outcome)
            if len(found) == 4:
                host.retire_workers(retired)
    assert sorted(str(outcome.result) for outcome in found) == sorted(unit.key for unit in units)
    assert sum(_calls.values()) - len(units) <= 2 * len(retired)  # a unit in flight each, and one that was just done
