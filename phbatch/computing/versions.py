"""Versions of what computes: of this process, and of the workers of a Dask cluster."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from phbatch.computing.cluster import ask, connect, identify, name_workers
from phbatch.computing.crew import PATIENCE_S, Crew
from phbatch.computing.tasks import Job
from phbatch.words.events import Listener, Notice, Stop
from phbatch.words.settings import RunSettings

if TYPE_CHECKING:
    from distributed import Client

REPORTED_PACKAGES = ("phbatch", "numpy", "scipy", "zarr", "zarrs", "dask", "keras", "tensorflow", "jax")

Versions = dict[str, str]


def versions_here() -> Versions:
    """Of Python and of packages that change what is computed, as far as they are installed."""
    return dict(_versions_of_this_process())


@cache
def _versions_of_this_process() -> Versions:
    found = {"python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def await_workers(settings: RunSettings, stop: Stop, listener: Listener) -> bool:
    """Wait for the first worker of a Dask cluster that has none; returns whether it had none.

    Raises
    ------
    ClusterError
        None came.
    """
    scheduler = settings.scheduler
    if scheduler is None or identify(scheduler, stop)["workers"]:
        return False
    with connect(scheduler, stop) as client:
        Crew(client, scheduler, None, listener, settings.wait_workers).wait(stop)
    return True


def meet_workers(scheduler: str, job: Job, stop: Stop, listener: Listener) -> dict[str, Versions]:
    """Versions of every worker that may be given units, by its address.

    Parameters
    ----------
    scheduler : str
        Address of a Dask scheduler.
    job : Job
        What they are to do.
    stop : callable
        Asked while nobody answers.
    listener : callable
        Called with notices: that workers are awaited, or left out.

    Raises
    ------
    UsageError
        Nothing answers there; as `ClusterError`, there is no worker that may be used.
    """
    with connect(scheduler, stop) as client:
        crew = Crew(client, scheduler, job, listener, job.wait_s)
        crew.wait(stop)
        return ask(partial(_versions_there, client, list(crew.threads)), PATIENCE_S, stop)


def _versions_there(client: Client, workers: list[str]) -> dict[str, Versions]:
    found: dict[str, Versions] = {address: {} for address in workers}
    for name in ("python", *REPORTED_PACKAGES):
        question = platform.python_version if name == "python" else partial(version, name)
        for address, answer in client.run(question, workers=workers, on_error="return").items():
            if isinstance(answer, str):
                found[address][name] = answer
    return found


def count_versions(workers: Mapping[str, Versions]) -> dict[str, dict[str, int]]:
    """How many workers have which version of each package.

    Examples
    --------
    >>> count_versions({"tcp://a:1": {"numpy": "2.0"}, "tcp://b:1": {"numpy": "2.1"}, "tcp://c:1": {"numpy": "2.1"}})
    {'numpy': {'2.0': 1, '2.1': 2}}
    """
    names = dict.fromkeys(name for versions in workers.values() for name in versions)
    return {
        name: dict(sorted(Counter(versions[name] for versions in workers.values() if name in versions).items()))
        for name in names
    }


def differing_versions(workers: Mapping[str, Versions], here: Versions) -> list[Notice]:
    """A warning for every package of which workers have another version than this process.

    Examples
    --------
    >>> differing_versions({"tcp://a:1": {"numpy": "2.0"}}, {"numpy": "2.1"})[0].text
    'numpy is 2.0 on worker tcp://a:1 and 2.1 here; pixels may differ in their last digits.'
    """
    notices = []
    for name in dict.fromkeys([*here, *count_versions(workers)]):
        others = {address: versions.get(name, "missing") for address, versions in workers.items()}
        there = {
            other: name_workers(address for address in others if others[address] == other)
            for other in sorted(set(others.values()) - {here.get(name, "missing")})
        }
        if there:
            said = ", ".join(f"{other} on {named}" for other, named in there.items())
            text = f"{name} is {said} and {here.get(name, 'missing')} here; pixels may differ in their last digits."
            notices.append(Notice(text, warning=True))
    return notices
