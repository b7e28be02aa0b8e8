"""Workers that declare a GPU compute the network, others measure; one that fails is taken out, and none idles.

No GPU is needed: what a worker declares is what counts.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from distributed import get_worker

import phbatch
from phbatch.computing import measuring, tasks
from phbatch.network import predictor
from phbatch.network.steps import Windows
from phbatch.outputs.writer import Sink
from phbatch.running import settle
from phbatch.words.events import Event, Notice
from tests.cluster import FRAMES
from tests.clusters import open_mixed
from tests.faults.inputs import files

GPU: dict[str, Any] = {"resources": {"GPU": 1}}
LONG_S = 60.0


@pytest.fixture(scope="module")
def loop(plain: tuple[Path, dict[str, Any]]) -> dict[str, bytes]:
    """Every file of the output of a plain loop."""
    source, options = plain
    return files(phbatch.run(source, source.parent / "loop.zarr", workers=1, **options).output)


class Diary:
    """Who did what, in order."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self.entries: list[tuple[str, str]] = []

    def note(self, what: str) -> int:
        """How often it was done."""
        with suppress(ValueError), self._lock:  # in no worker
            self.entries.append((what, str(get_worker().name)))
            self._lock.notify_all()
            return self.count(what)
        return 0

    def count(self, what: str) -> int:
        return [entry for entry, _ in self.entries].count(what)

    def wait_for(self, what: str, count: int) -> bool:
        with self._lock:
            return self._lock.wait_for(lambda: self.count(what) >= count, LONG_S)

    def of(self) -> dict[str, set[str]]:
        found = defaultdict(set)
        for what, who in self.entries:
            found[what].add(who)
        return dict(found)


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> Diary:
    """Notes when workers of this process measure, choose and begin to predict."""
    diary = Diary()

    def noting(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            diary.note(what)
            return function(*arguments, **options)

        return noted

    monkeypatch.setattr(measuring, "measure_block", noting("measure", measuring.measure_block))
    monkeypatch.setattr(settle, "choose_precision", noting("choose", settle.choose_precision))
    monkeypatch.setattr(tasks, "restore_block", noting("restore", tasks.restore_block))
    return diary


def test_the_kind_of_a_worker_says_what_it_does(
    plain: tuple[Path, dict[str, Any]], diary: Diary, tmp_path: Path
) -> None:
    source, options = plain
    options = options | {"scope": "series"}
    whole = files(phbatch.run(source, tmp_path / "loop.zarr", workers=1, **options).output)
    with open_mixed(gpu_0=GPU, gpu_1={"resources": {"GPU": 2}, "nthreads": 2}, cpu_0={}, cpu_1={}) as cluster:
        result = phbatch.run(source, tmp_path / "out.zarr", scheduler=cluster.scheduler_address, **options)
    assert files(result.output) == whole
    did = diary.of()
    assert did["measure"] <= {"cpu_0", "cpu_1"}
    assert did["restore"] <= {"gpu_0", "gpu_1"}
    assert did["choose"] <= {"gpu_0", "gpu_1"}, "the precision was not settled where it will be used"
    assert (diary.count("measure"), diary.count("restore")) == (FRAMES, FRAMES)


def slow_store(diary: Diary, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """A store that takes a unit only once as many units as were written, and one more, began to compute."""
    place = Sink.place

    def wait_and_place(sink: Sink, *encoded: Any) -> Any:
        begun = min(diary.note("write") + 1, last)
        assert diary.wait_for("restore", begun), "nothing computes while a unit is written"
        return place(sink, *encoded)

    monkeypatch.setattr(Sink, "place", wait_and_place)
    monkeypatch.setattr("phbatch.computing.dispatch.bundle_size", lambda *_: 1)  # units of one call follow each other


@pytest.mark.parametrize("worker", [GPU, {"resources": {"GPU": 2}}, GPU | {"nthreads": 2}], ids=["1", "2", "threads"])
def test_one_unit_computes_while_another_is_written(
    plain: tuple[Path, dict[str, Any]],
    loop: dict[str, bytes],
    worker: dict[str, Any],
    diary: Diary,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    source, options = plain
    slow_store(diary, monkeypatch, FRAMES)
    with open_mixed(gpu=worker) as cluster:
        result = phbatch.run(source, tmp_path / "out.zarr", scheduler=cluster.scheduler_address, **options)
    assert files(result.output) == loop
    assert diary.count("write") == FRAMES


Breaks = Callable[[Callable[[str, Windows], Exception | None]], None]


@pytest.fixture
def breaking(diary: Diary, monkeypatch: pytest.MonkeyPatch) -> Iterator[Breaks]:
    """Let devices fail: given a function of a worker's name and what it is to predict, the error or None."""

    def breaks(failing: Callable[[str, Windows], Exception | None]) -> None:
        compile_network = predictor.compile_network

        def compile_failing(*arguments: Any) -> Any:
            compiled = compile_network(*arguments)

            def fail_or_call(windows: Windows) -> Any:
                error = failing(str(get_worker().name), windows)
                diary.note("predict" if error is None else "fail")
                if error is not None:
                    raise error
                return compiled.call(windows)

            return replace(compiled, call=fail_or_call)

        monkeypatch.setattr(predictor, "compile_network", compile_failing)
        predictor._load_predictor.cache_clear()

    yield breaks
    predictor._load_predictor.cache_clear()


def broken_device() -> Exception:
    """What TensorFlow raises where a GPU is broken."""
    return tf.errors.InternalError(None, None, "CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error\nat ...")


def device_notices(heard: list[Event]) -> list[str]:
    return [event.text for event in heard if isinstance(event, Notice) and "device failed" in event.text]


def test_a_device_that_fails_is_taken_out_and_its_units_move(
    plain: tuple[Path, dict[str, Any]], loop: dict[str, bytes], diary: Diary, breaking: Breaks, tmp_path: Path
) -> None:
    source, options = plain
    breaking(lambda worker, _: broken_device() if worker == "gpu_0" else None)
    heard: list[Event] = []
    with open_mixed(gpu_0=GPU, gpu_1=GPU, gpu_2=GPU, cpu={}) as cluster:
        address = cluster.workers["gpu_0"].address
        options = options | {"scheduler": cluster.scheduler_address}
        result = phbatch.run(source, tmp_path / "out.zarr", listener=heard.append, **options)
    assert files(result.output) == loop
    assert (result.failed, result.units_done) == ({}, FRAMES)
    assert device_notices(heard) == [
        f"worker {address} left out: its device failed (InternalError: CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC"
        " error), and its units move to others."
    ]
    assert diary.of()["restore"] <= {"gpu_0", "gpu_1", "gpu_2"}


def test_where_the_last_device_fails_the_run_stops_and_the_same_command_continues_it(
    plain: tuple[Path, dict[str, Any]],
    loop: dict[str, bytes],
    diary: Diary,
    breaking: Breaks,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    source, options = plain
    breaking(lambda worker, _: broken_device() if diary.count("predict") >= 3 else None)
    with open_mixed(gpu_0=GPU, gpu_1=GPU, cpu={}) as cluster:
        options = options | {"scheduler": cluster.scheduler_address}
        with pytest.raises(
            phbatch.InterruptedRunError, match="uncorrectable ECC error, 3 times in a row, and no other"
        ):
            phbatch.run(source, tmp_path / "out.zarr", **options)
        assert diary.of()["restore"] <= {"gpu_0", "gpu_1"}, "what was settled on a device was computed elsewhere"
        monkeypatch.undo()
        predictor._load_predictor.cache_clear()
        result = phbatch.run(source, tmp_path / "out.zarr", **options)
    assert files(result.output) == loop
    assert result.units_done <= FRAMES


def test_a_unit_that_fails_on_two_devices_is_to_blame_itself(
    plain: tuple[Path, dict[str, Any]], diary: Diary, breaking: Breaks, tmp_path: Path
) -> None:
    source, options = plain
    poison: list[float] = []

    def failing(_: str, windows: Windows) -> Exception | None:
        total = float(windows.pixels.sum(dtype=float))
        if not poison:
            poison.append(total)
        return broken_device() if total == poison[0] else None

    breaking(failing)
    heard: list[Event] = []
    with open_mixed(gpu_0=GPU, gpu_1=GPU, gpu_2=GPU) as cluster:
        options = options | {"scheduler": cluster.scheduler_address}
        result = phbatch.run(source, tmp_path / "out.zarr", listener=heard.append, **options)
    assert (len(result.failed), result.units_done) == (1, FRAMES - 1)
    assert diary.count("fail") == 2
    assert len(device_notices(heard)) == 1


@pytest.mark.parametrize(
    ("error", "of_device"),
    [
        (broken_device(), True),
        (tf.errors.UnknownError(None, None, "CUDNN_STATUS_EXECUTION_FAILED"), True),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), False),
        (tf.errors.InternalError(None, None, "RESOURCE_EXHAUSTED: out of memory"), False),
        (tf.errors.InvalidArgumentError(None, None, "shapes do not fit"), False),
        (OSError("INTERNAL: none of a framework"), False),
    ],
    ids=str,
)
def test_failures_of_a_device_are_told_from_those_of_a_unit(error: Exception, of_device: bool) -> None:
    assert predictor._is_of_device(error) == of_device


@pytest.mark.parametrize(
    ("said", "of_device"),
    [
        ("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS", True),
        ("RESOURCE_EXHAUSTED: out of memory", False),
        ("INVALID_ARGUMENT: shapes do not fit", False),
    ],
    ids=str,
)
def test_failures_of_a_device_are_told_on_jax(said: str, of_device: bool) -> None:
    from jax.errors import JaxRuntimeError

    assert predictor._is_of_device(JaxRuntimeError(said)) == of_device
