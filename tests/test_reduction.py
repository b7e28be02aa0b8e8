"""Results merged where they are made: the same for both schedulers and any number of units, and nothing is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import zarr
from distributed import LocalCluster

import phbatch
from phbatch.computing import threads
from phbatch.computing.engine import reduce_units
from phbatch.computing.tasks import NOWHERE, Job
from phbatch.frames.recipe import Recipe
from phbatch.planning.unit import Unit
from phbatch.planning.units import Geometry
from phbatch.words.events import Event, Notice
from phbatch.words.normalization import Normalization
from tests.clusters import open_cluster

JOB = Job(NOWHERE, None, Recipe(Normalization()))
FOLDED: list[tuple[int, bool]] = []
"""Of every fold: how many it was of, and whether whoever asked did it."""


def make_units(count: int) -> Sequence[Unit]:
    return Geometry((count, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(count), (0,)).units


def number(job: Job, unit: Unit) -> frozenset[int]:
    t = unit.source[0].start
    if t == 1000:
        raise ValueError("t1000 is damaged")
    return frozenset([t])


def unite(found: Sequence[frozenset[int]]) -> frozenset[int]:
    FOLDED.append((len(found), threading.current_thread() is threading.main_thread()))
    assert sum(map(len, found)) == len(frozenset().union(*found)), "a unit was folded twice"
    return frozenset().union(*found)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with open_cluster(2) as found:
        yield found


@pytest.mark.parametrize("count", [1, 2, 3, 5, 17, 300])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_unit_is_folded_once_in_a_tree_of_tasks(count: int, workers: int) -> None:
    FOLDED.clear()
    part, failed = reduce_units(number, unite, JOB, make_units(count), workers=workers)
    assert failed is None
    assert (part.units, part.state) == (count, frozenset(range(count)))
    assert max(size for size, _ in FOLDED) <= threads.Threads.width
    assert not any(asker for _, asker in FOLDED)


@pytest.mark.parametrize("count", [1, 40])
def test_the_tree_is_on_the_workers_of_a_cluster(cluster: LocalCluster, count: int) -> None:
    FOLDED.clear()
    address = cluster.scheduler_address
    part, failed = reduce_units(number, unite, JOB, make_units(count), workers=1, scheduler=address)
    assert failed is None
    assert (part.units, part.state) == (count, frozenset(range(count)))
    assert not any(asker for _, asker in FOLDED)


LEAVING, GONE = threading.Event(), threading.Event()
"""The half is done, and who was to go has gone: nothing more is done before."""


async def wait_for(cluster: LocalCluster, count: int) -> None:
    while len(cluster.scheduler.workers) < count:
        await asyncio.sleep(0.01)


def number_slowly(job: Job, unit: Unit) -> frozenset[int]:
    if unit.source[0].start >= 30:
        LEAVING.set()
        assert GONE.wait(600)
    return number(job, unit)


def test_what_a_worker_kept_is_made_again_where_it_goes() -> None:
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
    ) as found:

        def leave() -> None:
            assert LEAVING.wait(600)
            found.sync(next(iter(found.workers.values())).close, executor_wait=False, nanny=False)
            GONE.set()

        going = threading.Thread(target=leave)
        going.start()
        part, failed = reduce_units(
            number_slowly, unite, JOB, make_units(60), workers=1, scheduler=found.scheduler_address
        )
        going.join(600)
    assert failed is None
    assert (part.units, part.state) == (60, frozenset(range(60)))


@pytest.mark.parametrize("before", [False, True])
def test_where_all_workers_go_with_what_they_kept_others_begin_anew(before: bool) -> None:
    """Whether others come after they went, or before."""
    LEAVING.clear()
    GONE.clear()
    said: list[str] = []

    def hear(event: Event) -> None:
        assert isinstance(event, Notice)
        said.append(event.text)

    with open_cluster(2) as found:
        going = list(found.workers.values())

        def change() -> None:
            assert LEAVING.wait(600)
            if before:
                found.scale(3)
                found.sync(wait_for, found, 3)
            for worker in going:
                found.sync(worker.close, executor_wait=False, nanny=False)
            GONE.set()
            found.scale(3)  # those that went count, too

        changing = threading.Thread(target=change)
        changing.start()
        address = found.scheduler_address
        part, failed = reduce_units(
            number_slowly, unite, JOB, make_units(60), workers=1, scheduler=address, listener=hear
        )
        changing.join(600)
    assert failed is None
    assert (part.units, part.state) == (60, frozenset(range(60)))
    assert any("it is merged from the start" in text for text in said), said


def test_nothing_and_what_was_stopped_have_no_state_of_all() -> None:
    part, failed = reduce_units(number, unite, JOB, [], workers=2)
    assert (part.units, part.state, failed) == (0, None, None)
    part, failed = reduce_units(number, unite, JOB, make_units(50), workers=2, stop=lambda: len(FOLDED) > 3)
    assert part.units < 50
    assert failed is None


def test_the_first_unit_that_fails_is_handed_back() -> None:
    _, failed = reduce_units(number, unite, JOB, make_units(1001)[990:], workers=2)
    assert failed is not None
    assert failed.problem == "t1000 is damaged"


@pytest.mark.parametrize("dtype", ["uint16", "uint8"])
def test_pooled_statistics_are_the_same_bits_wherever_they_are_merged(
    tmp_path: Path, cluster: LocalCluster, dtype: str
) -> None:
    image = np.random.default_rng(1).normal(90, 9, (21, 2, 40, 40)).astype(dtype)
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, 1, 40, 40))
    options = {"axes": "tcyx", "scope": "series"}
    first, *others = (
        list(phbatch.statistics(tmp_path / "in.zarr", **options, **where))
        for where in ({"workers": 1}, {"workers": 3}, {"scheduler": cluster.scheduler_address})
    )
    assert all(other == first for other in others)
    for c in (0, 1):
        assert first[c]["pooled_mean"] == pytest.approx(image[:, c].mean())
