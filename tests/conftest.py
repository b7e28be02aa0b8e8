"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from phbatch.places import lock, retry
from tests.browser import Page, browser
from tests.handmade import CommandLine

# How long an example takes says something of the machine alone; CI draws the same examples every time.
settings.register_profile(
    "phbatch",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("phbatch")


gc.disable()  # until all tests are collected: a third of the time of that was its

FIRST = (
    ("tests/kernels/",),  # compiles most of what Numba does, which all others then read from its cache
    ("tests/cluster/test_slurm.py", "tests/cluster/test_array.py", "tests/cluster/test_deploy.py"),  # wait for minutes
    ("tests/test_options.py", "tests/test_layers.py", "tests/cluster/test_kubernetes.py"),
    ("tests/network/", "tests/test_backends.py"),
)
"""What the first, the second and further processes begin with; none but the first needs many kernels."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where there are several processes, each is given one part of the items, one after the other."""
    count = getattr(config, "workerinput", {}).get("workercount", 1)
    if count == 1:
        return
    groups: list[list[pytest.Item]] = [[] for _ in range(count)]
    others = []
    for item in items:
        begun = (index for index, names in enumerate(FIRST[:count]) if item.nodeid.startswith(names))
        (others if (index := next(begun, None)) is None else groups[index]).append(item)
    share = -(-len(items) // count)
    items.clear()
    for group in groups:
        room = max(0, share - len(group))
        items += group + others[:room]
        del others[:room]
    items += others


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """No doctests are looked for in tests, which have none: it takes as long as to find all tests."""
    return [found for found in (yield) if type(found) is pytest.Module]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Modules of tests are imported as if there were no JAX, which TensorFlow imports in each process where it is."""
    spared = isinstance(collector, pytest.Module) and "jax" not in sys.modules
    if spared:
        sys.modules["jax"] = None  # type: ignore[assignment]
    try:
        return (yield)
    finally:
        if spared:
            del sys.modules["jax"]


def pytest_collection_finish() -> None:
    """What is imported by now stays: the collector of garbage need not look through it again and again."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What this machine remembers of earlier runs is kept out of tests, those in processes of their own included."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def one_server_of_forks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of all processes of this run, where there are several: it imports for seconds."""
    if hasattr(request.config, "workerinput"):
        from tests import forks

        forks.share(tmp_path_factory.getbasetemp().parent / "forks")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture
def phbatch_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def frames() -> np.ndarray:
    """Three frames of 40 x 36 with background, noise and bright spots."""
    draw = np.random.default_rng(12)
    return (500 + 20 * draw.standard_normal((3, 40, 36)) + 200 * (draw.random((3, 40, 36)) > 0.97)).astype("uint16")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries and leases in this process do not wait for seconds."""
    monkeypatch.setattr(retry, "BACKOFF_S", 0.01)
    monkeypatch.setattr(lock, "BEAT_S", 0.3)
    monkeypatch.setattr(lock, "LEASE_S", 3.0)
    monkeypatch.setattr(lock, "SETTLE_S", 0.01)
