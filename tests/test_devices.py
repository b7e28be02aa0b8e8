"""A device takes as many units as its worker has threads, and nothing is asked of workers that declare none."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from phbatch.computing.engine import call_there, execute
from phbatch.computing.tasks import NOWHERE, Job
from phbatch.frames.recipe import Recipe
from phbatch.network.model import open_model
from phbatch.planning.unit import Unit
from phbatch.planning.units import Geometry
from phbatch.words.errors import InterruptedRunError
from phbatch.words.events import Event
from phbatch.words.normalization import Normalization
from tests.clusters import open_cluster

MODEL = open_model("phase-2d")
NETWORK = Job(NOWHERE, None, Recipe(Normalization()), model=(MODEL.reference, MODEL.sha256))
UNITS = Geometry((12, 1, 1, 2048, 2048), (1, 1, 1, 2048, 2048), range(12), (0,)).units

LONG_S = 60.0

_running: set[str] = set()
_both = threading.Condition()


def compute(job: Job, unit: Unit) -> None:
    """Return once another one computes, too, or did."""
    with _both:
        _running.add(unit.key)
        _both.notify_all()
        assert _both.wait_for(lambda: len(_running) > 1, LONG_S), "one computes alone"


def test_a_device_takes_as_many_units_as_there_are_threads() -> None:
    _running.clear()
    with open_cluster(1, 4, resources={"GPU": 1}) as cluster:
        scheduler = cluster.scheduler_address
        found = list(execute(compute, NETWORK, UNITS, workers=4, scheduler=scheduler))
        assert [each.error for each in found] == [None] * len(UNITS)
        assert call_there(lambda job, value: value, scheduler, NETWORK, 7) == 7


@pytest.mark.parametrize("resources", [None, {"GPU": 0}, {"memory": 1}], ids=str)
def test_workers_that_declare_no_device_are_asked_for_none(resources: dict[str, float] | None) -> None:
    with open_cluster(1, 4, resources=resources) as cluster:
        scheduler = cluster.scheduler_address
        found = list(execute(compute, NETWORK, UNITS, workers=4, scheduler=scheduler))
    assert len(found) == len(UNITS)
    assert all(each.error is None for each in found)


def test_what_was_settled_on_a_device_is_computed_on_no_other_in_silence() -> None:
    heard: list[Event] = []
    with open_cluster(1) as cluster:
        scheduler, job = cluster.scheduler_address, replace(NETWORK, on_devices=True, wait_s=0.1)
        with pytest.raises(InterruptedRunError, match="all workers with a device of the Dask scheduler"):
            list(execute(compute, job, UNITS, workers=1, scheduler=scheduler, listener=heard.append))
    assert any("all workers with a device are gone; waiting" in event.text for event in heard)  # type: ignore[union-attr]
