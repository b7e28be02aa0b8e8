"""Running units: the same task in a plain loop, in threads, or on the workers of a Dask scheduler.

Tasks get a job and a unit, both small; pixels are read and written by whoever runs the task and never travel.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter
from types import FrameType
from typing import Any, Generic, TypeVar

import numpy as np
from distributed import Client, as_completed
from distributed.threadpoolexecutor import ThreadPoolExecutor

from phbatch.care.predictor import Predictor, get_predictor, limit_network_threads
from phbatch.config import Backend, NanPolicy, StorageOptions
from phbatch.errors import InputError, InterruptedRunError, UsageError
from phbatch.kernels.illumination import Correction
from phbatch.kernels.intensity import make_affine
from phbatch.kernels.stats import FrameStatistics, State, merge
from phbatch.memory import CORRECTIONS_AT_ONCE
from phbatch.planning import Unit
from phbatch.retry import call_with_retries
from phbatch.stages.preparation import Corrections, Preparation, Profile, prepare_frame
from phbatch.stages.restoration import FrameIndex, Recipe, RestoredBlock, restore_block
from phbatch.stages.statistics import measure_block
from phbatch.stages.table import StatisticsRow
from phbatch.stages.timing import StageClock
from phbatch.storage.lock import new_token
from phbatch.storage.profile import read_profile
from phbatch.storage.sink import Sink
from phbatch.storage.source import Source, open_source
from phbatch.storage.store import limit_threads

Result = TypeVar("Result")

IMAGE = "0"
UNCERTAINTY = "uncertainty/0"

GRACE_S = 6.0
"""What is in flight when a run is asked to stop may take this long; then it is dropped, and redone by the next call."""


@dataclass(frozen=True)
class Job:
    """What a task must know besides its unit; the same for all units of a run.

    Attributes
    ----------
    source, axes : str
        Path of the input, and its axes where the user named them.
    recipe : Recipe
        What the pixels go through.
    nan : {"refuse", "skip"}
        What a frame with NaN or infinity does.
    output, output_axes : str
        Path of the output, and the axes of its arrays; empty where nothing is written.
    profile : str
        Path of the profile of uneven light; empty where there is none.
    model : (Path, str) or None
        Model folder and sha256 of its weights.
    backend : {"tensorflow", "jax"}
        Of Keras.
    retries : int
        Attempts after the first one, where an error may pass.
    threads : int or None
        Of codecs, and of TensorFlow on a CPU, in every process; None leaves them as they are.
    token : str
        Of this run: the one that holds its output, and under which workers keep stores open.
    storage_options : SecretStr or None
        Credentials and endpoint of object stores, for whoever runs the tasks; not shown where a job is printed.
    """

    source: str
    axes: str | None
    recipe: Recipe
    nan: NanPolicy = "refuse"
    output: str = ""
    output_axes: str = ""
    profile: str = ""
    model: tuple[Path, str] | None = None
    backend: Backend = "tensorflow"
    retries: int = 0
    threads: int | None = None
    token: str = field(default_factory=new_token)
    storage_options: StorageOptions = field(default=None, repr=False)


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of a unit: a result or an error, and after how many attempts."""

    unit: Unit
    result: Result | None = None
    error: BaseException | None = None
    attempts: int = 1


# By token, too: a worker that serves run after run must not see an earlier run's metadata of a place.
@lru_cache(maxsize=8)
def _open_source(path: str, axes: str | None, options: StorageOptions, token: str) -> Source:
    return open_source(path, axes, options)


@lru_cache(maxsize=8)
def _open_sink(path: str, options: StorageOptions, token: str) -> Sink:
    return Sink(path, options, token=token)


@lru_cache(maxsize=2)
def _open_profile(path: str, options: StorageOptions, token: str) -> Profile:
    return Profile(*read_profile(path, options))


@lru_cache(maxsize=CORRECTIONS_AT_ONCE)
def _open_correction(
    path: str, options: StorageOptions, token: str, preparation: Preparation, c: int, z: int
) -> Correction:
    return _open_profile(path, options, token).correction(preparation, c, z)


def forget_open_stores() -> None:
    """Close what this process holds open, so that a store that was replaced is opened anew."""
    for opened in (_open_source, _open_sink, _open_profile, _open_correction):
        opened.cache_clear()


def corrections_of(job: Job, unit: Unit) -> Corrections | None:
    """The maps of the job's profile for the channels and planes of a unit."""
    if not job.profile:
        return None

    def find(c: int, z: int) -> Correction:
        key = unit.frame_key(0, c, z)
        return _open_correction(job.profile, job.storage_options, job.token, job.recipe.preparation, key.c, key.z or 0)

    return find


def read_unit(job: Job, unit: Unit) -> tuple[np.ndarray[Any, Any], str]:
    """Selected frames of a unit as ``(t, c, z, y, x)``, and the digest of the objects that they were read from."""
    if job.threads is not None:
        limit_threads(job.threads)
    source = _open_source(job.source, job.axes, job.storage_options, job.token)
    block, digest = source.read_stamped(unit.source)
    if len(unit.keep_t) != block.shape[0]:
        block = block[list(unit.keep_t)]
    if len(unit.keep_c) != block.shape[1]:
        block = block[:, list(unit.keep_c)]
    return block, digest


def load_predictor(job: Job) -> Predictor | None:
    """The network of a job, compiled once per process; None where it only normalizes."""
    recipe = job.recipe
    if job.model is None or recipe.tiles is None:
        return None
    if job.threads is not None:
        limit_network_threads(job.backend, job.threads)
    return get_predictor(*job.model, recipe.tiles.tile, recipe.batch, job.backend, recipe.network, recipe.precision)


def compute_unit(
    job: Job, unit: Unit, clock: StageClock | None = None
) -> tuple[RestoredBlock, list[dict[str, Any]], str]:
    """Restored frames of a unit, the rows of their statistics, and the digest of what they were read from."""
    clock = clock or StageClock()
    with clock("read"):
        block, digest = read_unit(job, unit)
    predict, corrections = load_predictor(job), corrections_of(job, unit)
    restored = restore_block(block, job.recipe, predict, unit.measured, corrections, clock)
    rows = []
    for (t, c, z), statistics in restored.statistics.items():
        key = unit.frame_key(t, c, z)
        if "nonfinite" in statistics.flags and job.nan == "refuse":
            raise _nonfinite_error(str(key))
        affine = make_affine(statistics, job.recipe.rule)
        rows.append(
            StatisticsRow(key, statistics).as_dict()
            | {"offset": affine.offset if affine else None, "divisor": affine.divisor if affine else None}
        )
    return restored, rows, digest


def restore_unit(job: Job, unit: Unit) -> dict[str, Any]:
    """Restore a unit and write it; the returned record is what the ledger keeps."""
    started, clock = perf_counter(), StageClock()
    restored, rows, digest = compute_unit(job, unit, clock)
    sink = _open_sink(job.output, job.storage_options, job.token)
    with clock("write"):
        objects = sink.write(IMAGE, job.output_axes, unit.output, restored.image)
        if restored.uncertainty is not None:
            objects |= sink.write(UNCERTAINTY, job.output_axes, unit.output, restored.uncertainty)
    seconds = round(perf_counter() - started, 4)
    return {
        "unit": unit.key,
        "input": digest,
        "objects": objects,
        "statistics": rows,
        "clipped": restored.clipped,
        "seconds": seconds,
        "stages": {stage: round(spent, 4) for stage, spent in clock.seconds.items()},
    }


def measure_unit(job: Job, unit: Unit) -> dict[FrameIndex, FrameStatistics]:
    """Statistics of the frames of a unit, by their indices within it; nothing is written."""
    recipe = job.recipe
    return measure_block(
        read_unit(job, unit)[0],
        recipe.preparation,
        recipe.rule.sigma,
        recipe.all_percentiles,
        volumes=recipe.volumes,
        corrections=corrections_of(job, unit),
    )


def pool_unit(job: Job, unit: Unit) -> dict[tuple[int, int | None], State]:
    """Merged states of the good frames of a unit, by the pool that they belong to."""
    block, recipe, corrections = read_unit(job, unit)[0], job.recipe, corrections_of(job, unit)
    states: dict[tuple[int, int | None], State] = {}
    for index, statistics in (unit.measured or {}).items():
        if not statistics.flags:
            state = prepare_frame(block, index, recipe.preparation, corrections).state(recipe.rule.sigma)
            pool = recipe.pool_of(unit.frame_key(*index))
            states[pool] = merge(states[pool], state) if pool in states else state
    return states


def scan_unit(job: Job, unit: Unit) -> str | None:
    """Key of the first frame of a unit that holds NaN or infinity; None where all are finite."""
    block, _ = read_unit(job, unit)
    finite = np.isfinite(block).all(axis=(3, 4))
    if finite.all():
        return None
    t, c, z = np.argwhere(~finite)[0].tolist()
    return str(unit.frame_key(t, c, None if job.recipe.volumes else z))


def require_finite(
    job: Job, units: Sequence[Unit], *, workers: int, scheduler: str | None, stop: Callable[[], bool] = lambda: False
) -> None:
    """Read a float input once and refuse it where a frame holds NaN or infinity, before anything is written.

    A unit that cannot be read is passed over: the run sets it aside and reports it, and finishes the others.

    Raises
    ------
    InputError
        Names the first such frame.
    InterruptedRunError
        `stop` said so before all units were searched.
    """
    searched = 0
    for outcome in execute(scan_unit, job, units, workers=workers, scheduler=scheduler, stop=stop):
        searched += 1
        if outcome.result is not None:
            raise _nonfinite_error(outcome.result)
    if searched < len(units):
        raise InterruptedRunError(
            f"stopped after {searched} of {len(units)} units were searched for NaN, and nothing is written; call the"
            " same command again to start."
        )


def execute(
    task: Callable[[Job, Unit], Result],
    job: Job,
    units: Iterable[Unit],
    *,
    workers: int,
    scheduler: str | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Outcome[Result], None, None]:
    """Run a task on every unit, in any order, a bounded number at once.

    Parameters
    ----------
    task : callable
        Of a job and a unit.
    job : Job
        The same for all.
    units : iterable of Unit
        What is to be done; taken one by one, as they are started.
    workers : int
        Units at once; 1 without a scheduler is a plain loop.
    scheduler : str, optional
        Address of a Dask scheduler whose workers see the same files.
    stop : callable
        Asked before each unit is started; where it says so, what is running is finished and no more is started.

    Yields
    ------
    Outcome
        As units finish; an exception in a task is an outcome and not raised.
    """
    if workers == 1 and scheduler is None:
        for unit in units:
            if stop():
                return
            yield _attempt(task, job, unit)
        return
    opened = _open_threads(workers) if scheduler is None else _open_cluster(workers, scheduler)
    with opened as (start, next_finished, window):
        waiting = iter(units)
        running: dict[Any, Unit] = {}

        def start_next() -> None:
            unit = None if stop() else next(waiting, None)
            if unit is not None:
                running[start(_attempt, task, job, unit)] = unit

        for _ in range(window):
            start_next()
        while running:
            future = next_finished()
            unit = running.pop(future)
            error = future.exception()
            outcome = Outcome[Result](unit, error=error) if error is not None else future.result()
            start_next()
            yield outcome


_Pool = tuple[Callable[..., Any], Callable[[], Any], int]
"""Starts a call and gives its future; waits for the next future that is finished; calls that may run at once."""


@contextmanager
def _open_threads(workers: int) -> Iterator[_Pool]:
    """Threads of this process; a call costs a hundredth of one through a Dask scheduler (benchmarks/growth.py)."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="phbatch")
    finished: SimpleQueue[Any] = SimpleQueue()

    def start(function: Callable[..., Any], *arguments: Any) -> Any:
        future = pool.submit(function, *arguments)
        future.add_done_callback(finished.put)
        return future

    try:
        yield start, finished.get, workers
    finally:
        # Dask's threads are daemons: what is in flight when a run is dropped is not waited for.
        pool.shutdown(wait=False)


@contextmanager
def _open_cluster(workers: int, scheduler: str) -> Iterator[_Pool]:
    with _connect(scheduler) as client:
        finished = as_completed()

        def start(function: Callable[..., Any], *arguments: Any) -> Any:
            future = client.submit(function, *arguments, pure=False)
            finished.add(future)
            return future

        yield start, partial(next, finished), 2 * max(workers, sum(client.nthreads().values()))


def _attempt(task: Callable[[Job, Unit], Result], job: Job, unit: Unit) -> Outcome[Result]:
    """A unit that fails for good is set aside and reported; the others go on."""
    found, attempts = call_with_retries(partial(task, job, unit), job.retries)
    if isinstance(found, Exception):
        return Outcome(unit, error=found, attempts=attempts)
    return Outcome(unit, result=found, attempts=attempts)


def call_there(function: Callable[..., Result], scheduler: str | None, *arguments: Any) -> Result:
    """Call a function where units will run: in this process, or on one worker of a Dask cluster."""
    if scheduler is None:
        return function(*arguments)
    with _connect(scheduler) as client:
        result: Result = client.submit(function, *arguments, pure=False).result()
    return result


def require_scheduler(address: str) -> None:
    """Refuse an address where no Dask scheduler answers, before anything is written.

    Raises
    ------
    UsageError
        Nothing answers within ten seconds.
    """
    with _connect(address):
        pass


@contextmanager
def _connect(scheduler: str) -> Iterator[Client]:
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at {scheduler}; start one, or leave --scheduler out.") from error
    with client:
        yield client


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """While inside, the first SIGINT or SIGTERM asks to stop; a second SIGINT, or `GRACE_S`, interrupts at once."""
    asked = threading.Event()
    previous: dict[signal.Signals, Any] = {}

    def ask(number: int, _: FrameType | None) -> None:
        if number == signal.SIGALRM or (asked.is_set() and number == signal.SIGINT):
            raise KeyboardInterrupt
        if not asked.is_set():
            asked.set()
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            previous[number] = signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        if asked.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _nonfinite_error(frame: str) -> InputError:
    return InputError(
        f"frame {frame} holds NaN or infinity; repair it, or pass such frames through flagged with --nan skip.",
        frame=frame,
    )
