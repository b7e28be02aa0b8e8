"""A few seconds of a run, of which nothing is kept: what a unit takes, and what a cluster is to be asked for."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from math import inf
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Unpack

from phbatch.computing.engine import execute
from phbatch.computing.machine import going_to
from phbatch.computing.outcome import Outcome
from phbatch.computing.tasks import Job, PositionUnit, compute_unit, encode_unit, own_job
from phbatch.computing.versions import await_workers
from phbatch.frames.clock import StageClock
from phbatch.frames.light import Preparation
from phbatch.inputs.positions import find_positions
from phbatch.network.device import describe_device
from phbatch.outputs.image import OutputImage, create_image
from phbatch.outputs.writer import Sink
from phbatch.places.place import Place
from phbatch.planning.positions import split_key
from phbatch.planning.request import ClusterRequest, Probe, make_request
from phbatch.planning.unit import Unit, region_size
from phbatch.running.accept_positions import accept_positions, settle_positions
from phbatch.running.begin import AcceptedRun, accept_run, meet_cluster, must_scan, require_input, settle_network
from phbatch.running.opening import require_same_run
from phbatch.running.same_positions import require_same_positions
from phbatch.words.choices import ESTIMATED_BACKGROUNDS
from phbatch.words.durations import parse_duration
from phbatch.words.errors import InputError, InterruptedRunError, PhbatchError, UsageError
from phbatch.words.events import Listener, Stop, ignore, logging_notices, never
from phbatch.words.option_types import RunOptions
from phbatch.words.options import parse_options
from phbatch.words.settings import RunSettings

if TYPE_CHECKING:
    from distributed import Client

PROBE_S = 5.0
"""How long units are measured; what is begun is finished."""

_MOST_DIFFERENT = 64
_MEASURING = ("read", "measure")


@dataclass(frozen=True)
class ProbedUnit:
    """What one unit took, and where."""

    process: str
    device: str
    on_gpu: bool
    seconds: float
    stages: dict[str, float]
    written_bytes: int


def request_cluster(
    input: str | Path,
    output: str | Path | None = None,
    *,
    cluster_workers: int | None = None,
    walltime: str | float | None = None,
    price: float | None = None,
    seconds: float | None = None,
    listener: Listener = ignore,
    stop: Stop = never,
    client: Client | None = None,
    **options: Unpack[RunOptions],
) -> ClusterRequest:
    """What to ask a cluster for, from a few seconds of the run: units are restored and encoded, and nothing is written.

    They are measured where the run would be, with the same arguments: by this machine, or by a worker or more of a Dask
    cluster. What a GPU takes is known where there is one.

    Parameters
    ----------
    input, output, listener, stop, client, **options
        As for `phbatch.run`.
    cluster_workers : int, optional
        Of the cluster that is asked for; default: as few as are done within the walltime.
    walltime : str or float, optional
        Of a job of that cluster, such as ``"4h"``, or in seconds. Default: what the workers need, and 4 h without them.
    price : float, optional
        Of a worker, per hour.
    seconds : float
        How long units are measured; default: 5.

    Raises
    ------
    UsageError
        The walltime is too short for a unit.
    UsageError, InputError, ModelError, OutputError, MemoryLimitError
        As of `phbatch.run`, and where a unit cannot be restored.
    InterruptedRunError
        `stop` said so.

    Examples
    --------
    >>> import tempfile, numpy as np, zarr
    >>> path = tempfile.mkdtemp() + "/a.zarr"
    >>> frames = np.random.default_rng(0).normal(1000, 30, (2, 64, 64)).astype("uint16")
    >>> _ = zarr.create_array(path, data=frames)
    >>> request = request_cluster(path, model="none", walltime="1h", price=0.1, seconds=0.1)
    >>> request.workers, request.walltime_s, len(request.arithmetic)
    (1, 3600, 8)
    """
    if cluster_workers is not None and cluster_workers < 1:
        raise UsageError(f"--cluster-workers {cluster_workers} is less than 1; ask for 1 or more.")
    walltime_s = parse_duration(walltime, "--walltime") if isinstance(walltime, str) else walltime
    settings = parse_options("plan", options)
    listener = logging_notices(listener)
    with going_to(client, settings.scheduler, stop, listener) as scheduler:
        settings = settings.model_copy(update={"scheduler": scheduler})
        probed = _accept(str(input), output, settings, stop, listener)
        probe = _measure(probed, PROBE_S if seconds is None else seconds, stop, listener)
    return make_request(probe, probed.units, workers=cluster_workers, walltime_s=walltime_s, price=price)


@dataclass(frozen=True)
class _Probed:
    """A run of which some units are measured: of many images what `AcceptedPositions.whole` is, and units with jobs."""

    accepted: AcceptedRun
    units: int
    some: Sequence[Unit]
    images: Mapping[str, OutputImage]
    started: float


def _accept(input: str, output: str | Path | None, settings: RunSettings, stop: Stop, listener: Listener) -> _Probed:
    if (positions := find_positions(input, settings)) is not None:
        await_workers(settings, stop, listener)
        several = accept_positions(positions, output, settings, stop)
        require_same_positions(several)
        started = perf_counter()
        several = settle_positions(several, stop, listener)
        some: list[Unit] = []
        for unit in _spread(several.units):
            path, _ = split_key(unit.key)
            some.append(PositionUnit(**vars(unit), job=_without_profile(several.runs[path]), position=path))
        images = {path: several.runs[path].image for path in {split_key(unit.key)[0] for unit in some}}
        return _Probed(several.whole, len(several.units), some, images, started)
    accepted = accept_run(input, output, settings, stop)
    if await_workers(settings, stop, listener):
        accepted = accept_run(input, output, settings, stop)
    require_same_run(accepted)
    started = perf_counter()
    accepted = settle_network(meet_cluster(require_input(accepted), stop, listener))
    units = accepted.resolved.geometry.units
    return _Probed(accepted, len(units), _spread(units), {"": accepted.image}, started)


def _measure(probed: _Probed, seconds: float, stop: Stop, listener: Listener) -> Probe:
    """Units for so long, after one that is not counted, by as many workers as there are, each as busy as in a run."""
    accepted, units = probed.accepted, probed.some
    scheduler, at_once = accepted.settings.scheduler, accepted.resolved.workers
    task, job = partial(probe_unit, probed.images), _without_profile(accepted)

    def probe(some: Iterable[Unit], until: float) -> list[ProbedUnit]:
        began, found = perf_counter(), list[ProbedUnit]()

        def enough() -> bool:
            return stop() or (bool(found) and perf_counter() > began + until)

        for outcome in execute(task, job, some, workers=at_once, scheduler=scheduler, stop=enough, listener=listener):
            found.append(_result(outcome))
        if stop():
            raise InterruptedRunError("stopped while units were measured, and nothing is written.")
        return found

    probe(units[:1], inf)
    start_s = perf_counter() - probed.started
    found = probe(cycle(units), seconds)
    processes = {each.process for each in found}
    stages = {stage: sum(each.stages.get(stage, 0.0) for each in found) for stage in found[0].stages}
    total = sum(stages.values())
    earlier = accepted.resolved.recipe.passes - 1 if accepted.given is None else 0
    measuring = earlier * sum(stages.get(stage, 0.0) for stage in _MEASURING)
    measuring += must_scan(accepted) * stages.get("read", 0.0)
    device = found[0].device + (f" of {len(processes)} workers at {scheduler}" if scheduler else "")
    itemsize = accepted.source.dtype.itemsize
    return Probe(
        units=len(found),
        seconds=sum(each.seconds for each in found) / at_once,
        start_s=start_s,
        read_bytes=sum(region_size(unit.source) for unit in units) * itemsize // len(units),
        written_bytes=sum(each.written_bytes for each in found) // len(found),
        memory_bytes=accepted.resolved.memory.projected_mem,
        gpus=int(found[0].on_gpu),
        at_once=at_once,
        measuring=measuring / total,
        where=device,
    )


def _result(outcome: Outcome[ProbedUnit]) -> ProbedUnit:
    if outcome.result is not None:
        return outcome.result
    if isinstance(outcome.error, PhbatchError):
        raise outcome.error
    raise InputError(
        f"unit {outcome.unit.key} cannot be measured ({outcome.problem.removesuffix('.')}); mend that, or choose others"
        " with --frames."
    ) from outcome.error


def _spread(units: Sequence[Unit]) -> list[Unit]:
    """Some units, from all over."""
    step = -(-len(units) // _MOST_DIFFERENT)
    return [units[position] for position in range(0, len(units), step)]


def _without_profile(accepted: AcceptedRun) -> Job:
    """The job, but for a profile that is yet to be estimated: it is too even to change what a unit costs."""
    job, recipe = accepted.job, accepted.resolved.recipe
    if recipe.preparation.illumination not in ESTIMATED_BACKGROUNDS:
        return job
    return replace(job, profile=None, recipe=replace(recipe, preparation=Preparation(recipe.preparation.downscale)))


_opening, _sinks = Lock(), dict[str, Sink]()


def _open_sink(image: OutputImage, name: str) -> Sink:
    """An output in this process's memory, of which there are only metadata."""
    with _opening:
        if name not in _sinks:
            place = Place.at(f"memory://phbatch-probe-{name}")
            create_image(place, image, {})
            _sinks[name] = Sink(place)
        return _sinks[name]


def probe_unit(images: Mapping[str, OutputImage], job: Job, unit: Unit) -> ProbedUnit:
    """Restore and encode a unit, and forget it; of many images it brings its own job."""
    started, clock = perf_counter(), StageClock()
    job, position = own_job(job, unit)
    restored, _, _ = compute_unit(job, unit, clock)
    sink = _open_sink(images[position.rstrip("/")], f"{job.token}-{position.replace('/', '-')}".rstrip("-"))
    encoded = encode_unit(job, unit, restored, sink, clock)
    seconds = perf_counter() - started
    device, on_gpu = describe_device(job.backend) if job.model else (f"{os.cpu_count()} cores", False)
    written = sum(len(data) for part in encoded for data in part.objects.values())
    return ProbedUnit(f"{platform.node()}-{os.getpid()}", device, on_gpu, seconds, clock.seconds, written)
