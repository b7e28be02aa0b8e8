"""What to ask a cluster for: workers, memory, walltime, cost, from units that were measured. Arithmetic alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

from phbatch.planning.memory import format_bytes
from phbatch.words.durations import format_duration
from phbatch.words.errors import UsageError

MARGIN = 1.5
"""Of a walltime over the time that is expected: nodes differ, and workers share their storage."""

MEMORY_MARGIN = 1.25
"""Of a worker's memory over what is planned: Dask pauses a worker at 0.8 of its limit."""

HEADROOM_S = 300.0
"""Of a walltime, for what is no work: the job starts, imports, and closes."""

WALLTIME_S = 4 * 3600.0
"""That is asked for where nothing is said of walltime and workers."""

_ROUND_S, _ROUND_BYTES = 300, 10**9


@dataclass(frozen=True)
class Probe:
    """What was measured of units where they will run, as many at once as a worker takes.

    Attributes
    ----------
    units : int
        That were measured.
    seconds : float
        That one worker took for them.
    start_s : float
        Before the first: the network is loaded, compiled and checked.
    read_bytes, written_bytes : int
        Of a unit: its pixels in the input, and encoded for the output.
    memory_bytes : int
        Planned peak of a worker.
    gpus : int
        That a worker computes on.
    at_once : int
        Units that a worker computes at once.
    measuring : float
        What earlier passes over the input take, as a part of the last one; 0 where there is none.
    where : str
        What was measured on.
    """

    units: int
    seconds: float
    start_s: float
    read_bytes: int
    written_bytes: int
    memory_bytes: int
    gpus: int = 0
    at_once: int = 1
    measuring: float = 0.0
    where: str = "this machine"

    @property
    def unit_s(self) -> float:
        """Seconds that one worker takes for a unit, with all passes.

        Examples
        --------
        >>> Probe(40, seconds=10.0, start_s=20.0, read_bytes=6, written_bytes=9, memory_bytes=5, measuring=0.2).unit_s
        0.3
        """
        return (1 + self.measuring) * self.seconds / self.units

    @property
    def fixed_s(self) -> float:
        """Seconds that no number of workers shortens: the start, and the last unit of a worker."""
        return self.start_s + self.at_once * self.unit_s


@dataclass(frozen=True)
class ClusterRequest:
    """What to ask for, and how it follows.

    Attributes
    ----------
    workers : int
        Processes, each a job of its own, or a pod.
    memory_bytes, gpus_per_worker, cores_per_worker : int
        Of each; it computes as many units at once as it has cores.
    run_s : float
        Expected, from the start of the workers to the last unit.
    walltime_s : int
        Of the job of each worker.
    jobs_per_worker : int
        Jobs that follow each other, where the walltime is shorter than the run.
    worker_hours : float
        Of all workers together, as expected.
    cost : float or None
        Of these, in the money of the price; None where no price was given.
    read_bytes_per_s, written_bytes_per_s : float
        That the storage must take of all workers together.
    arithmetic : tuple of str
        A line for each of these numbers.
    """

    workers: int
    memory_bytes: int
    gpus_per_worker: int
    cores_per_worker: int
    run_s: float
    walltime_s: int
    jobs_per_worker: int
    worker_hours: float
    cost: float | None
    read_bytes_per_s: float
    written_bytes_per_s: float
    arithmetic: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def expected_seconds(probe: Probe, units: int, workers: int) -> float:
    """From the start of the workers to the last unit, where no storage limits them.

    Examples
    --------
    >>> probe = Probe(40, seconds=10.0, start_s=20.0, read_bytes=6, written_bytes=9, memory_bytes=5)
    >>> [expected_seconds(probe, 1000, workers) for workers in (1, 10, 100)]
    [270.25, 45.25, 22.75]
    """
    return probe.fixed_s + units * probe.unit_s / workers


def round_walltime(seconds: float) -> int:
    """Of a job that is expected to take so long, in whole five minutes.

    Examples
    --------
    >>> round_walltime(10), round_walltime(3600)
    (600, 5700)
    """
    return ceil((MARGIN * seconds + HEADROOM_S) / _ROUND_S) * _ROUND_S


def round_memory(planned: int) -> int:
    """Of a worker whose plan is this, in whole GB.

    Examples
    --------
    >>> round_memory(3_100_000_000), round_memory(1)
    (4000000000, 1000000000)
    """
    return ceil(MEMORY_MARGIN * planned / _ROUND_BYTES) * _ROUND_BYTES


def fewest_workers(probe: Probe, units: int, walltime_s: float) -> int:
    """The fewest workers that are done within one job each.

    Raises
    ------
    UsageError
        No number of workers is.

    Examples
    --------
    >>> probe = Probe(40, seconds=10.0, start_s=20.0, read_bytes=6, written_bytes=9, memory_bytes=5)
    >>> fewest_workers(probe, 1_000_000, 4 * 3600), fewest_workers(probe, 10, 4 * 3600)
    (27, 1)
    >>> fewest_workers(probe, 10, 60)
    Traceback (most recent call last):
    phbatch.words.errors.UsageError: a walltime of 1 min is too short for a unit: 1.5 x 20 s to start and for a unit,\
 and 5 min before and after; give walltime='10m' or more.
    """
    share_s = (walltime_s - HEADROOM_S) / MARGIN - probe.fixed_s
    if share_s <= 0:
        least = round_walltime(probe.fixed_s + probe.unit_s)
        raise UsageError(
            f"a walltime of {format_duration(walltime_s)} is too short for a unit: {MARGIN:g} x"
            f" {format_duration(probe.fixed_s)} to start and for a unit, and {format_duration(HEADROOM_S)} before and"
            f" after; give --walltime {least // 60}m or more."
        )
    return max(1, min(ceil(units * probe.unit_s / share_s), units))


def make_request(
    probe: Probe,
    units: int,
    *,
    workers: int | None = None,
    walltime_s: float | None = None,
    price: float | None = None,
) -> ClusterRequest:
    """What to ask a cluster for, so that units are done.

    Parameters
    ----------
    probe : Probe
        What was measured.
    units : int
        How many there are to do.
    workers : int, optional
        How many are wanted. Default: the fewest that are done within one walltime.
    walltime_s : float, optional
        That is wanted; where the workers take longer, their jobs are replaced. Default: as long as these workers take,
        with a margin, and without workers `WALLTIME_S`.
    price : float, optional
        Of a worker, per hour.

    Raises
    ------
    UsageError
        A walltime is too short for a unit.

    Examples
    --------
    >>> probe = Probe(40, seconds=10, start_s=20, read_bytes=8_000_000, written_bytes=6_000_000,
    ...               memory_bytes=3_100_000_000, gpus=1, where="one worker")
    >>> for line in make_request(probe, 1_000_000, walltime_s=4 * 3600, price=2.5).arithmetic:
    ...     print(line)
    unit      0.25 s of a worker: 40 units, 1 at once, took 10 s on one worker
    workers   27: the fewest that take at most (4 h - 5 min) / 1.5
    time      2 h 34 min: 20 s to start, 0.25 s for the last unit, 1,000,000 units x 0.25 s / 27 workers
    walltime  4 h: as asked for
    memory    4.0 GB a worker: 3.1 GB planned x 1.25, in whole GB
    GPUs      27: 1 a worker
    storage   read 864.0 MB/s, written 648.0 MB/s: 27 workers x 8.0 MB and 6.0 MB of a unit / 0.25 s
    cost      173.99: 69.6 worker hours x 2.5 an hour
    >>> make_request(probe, 1_000_000, workers=4, walltime_s=4 * 3600).jobs_per_worker
    7
    """
    usable = f"({{}} - {format_duration(HEADROOM_S)}) / {MARGIN:g}"
    if workers is None:
        walltime, why_walltime = ceil(walltime_s or WALLTIME_S), "as asked for" if walltime_s else "a usual limit"
        count, why = fewest_workers(probe, units, walltime), f"the fewest that take at most {usable}"
    else:
        count, why = min(workers, units), "as asked for" if workers <= units else "one for every unit"
        walltime = ceil(walltime_s or round_walltime(expected_seconds(probe, units, count)))
        why_walltime = "as asked for" if walltime_s else f"{MARGIN:g} x the time, and {format_duration(HEADROOM_S)}"
        fewest_workers(probe, units, walltime)  # refuses what no worker can keep
    seconds = expected_seconds(probe, units, count)
    jobs = ceil(MARGIN * seconds / (walltime - HEADROOM_S))
    hours = count * seconds / 3600
    request = ClusterRequest(
        workers=count,
        memory_bytes=round_memory(probe.memory_bytes),
        gpus_per_worker=probe.gpus,
        cores_per_worker=probe.at_once,
        run_s=seconds,
        walltime_s=walltime,
        jobs_per_worker=jobs,
        worker_hours=hours,
        cost=None if price is None else hours * price,
        read_bytes_per_s=count * probe.read_bytes * probe.units / probe.seconds,
        written_bytes_per_s=count * probe.written_bytes * probe.units / probe.seconds,
    )
    whys = why.format(format_duration(walltime)), why_walltime
    return replace(request, arithmetic=tuple(_explain(request, probe, units, whys, price)))


def _explain(
    request: ClusterRequest, probe: Probe, units: int, whys: tuple[str, str], price: float | None
) -> Iterator[str]:
    """The arithmetic of a request, a line for each number."""
    unit, restoring = format_duration(probe.unit_s), format_duration(probe.seconds / probe.units)
    count = f"{request.workers} worker{'s' if request.workers > 1 else ''}"
    before = f", and {probe.measuring:.0%} more for what is measured first" if probe.measuring else ""
    yield (
        f"unit      {unit} of a worker: {probe.units} units, {probe.at_once} at once, took"
        f" {format_duration(probe.seconds)} on {probe.where}{before}"
    )
    yield f"workers   {request.workers}: {whys[0]}"
    yield (
        f"time      {format_duration(request.run_s)}: {format_duration(probe.start_s)} to start,"
        f" {format_duration(probe.at_once * probe.unit_s)} for the last unit, {units:,} units x {unit} / {count}"
    )
    jobs = (
        f"; {request.jobs_per_worker} jobs of each worker, one after the other" if request.jobs_per_worker > 1 else ""
    )
    yield f"walltime  {format_duration(request.walltime_s)}: {whys[1]}{jobs}"
    yield (
        f"memory    {format_bytes(request.memory_bytes)} a worker: {format_bytes(probe.memory_bytes)} planned x"
        f" {MEMORY_MARGIN:g}, in whole GB"
    )
    yield f"GPUs      {request.workers * request.gpus_per_worker}: {request.gpus_per_worker} a worker"
    read, written = round(request.read_bytes_per_s), round(request.written_bytes_per_s)
    yield (
        f"storage   read {format_bytes(read)}/s, written {format_bytes(written)}/s: {count} x"
        f" {format_bytes(probe.read_bytes)} and {format_bytes(probe.written_bytes)} of a unit / {restoring}"
    )
    if request.cost is not None:
        yield f"cost      {request.cost:.2f}: {request.worker_hours:.4g} worker hours x {price:g} an hour"
