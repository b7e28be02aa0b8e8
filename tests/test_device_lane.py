"""A device has several batches at once, whatever the threads do; a stand-in takes given times for up, compute, down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.computing import engine
from phbatch.computing.slots import on_device
from phbatch.computing.tasks import NOWHERE, Job
from phbatch.frames.recipe import Recipe
from phbatch.frames.tiles import Batches, Lane, NetworkFrame
from phbatch.kernels.tiling import TilePlan
from phbatch.network.device import Device
from phbatch.network.predictor import Predictor
from phbatch.network.steps import Prediction, Windows
from phbatch.planning.memory import UNITS_AHEAD, MemoryPlan
from phbatch.running import begin as begin_module
from phbatch.words.normalization import Normalization
from tests.handmade import write_model

LONG_S = 60.0


class FakeDevice:
    """A queue of stages, each of which takes one batch at a time; `held` lets none come down before it is set."""

    def __init__(self, *seconds: float) -> None:
        self.held, self.most, self.busy_s = threading.Event(), 0, 0.0
        self.spans: list[tuple[float, float]] = []
        self._seconds, self._on, self._lock = seconds, 0, threading.Lock()
        self._queues = [SimpleQueue[Any]() for _ in seconds]
        for number in range(len(seconds)):
            threading.Thread(target=self._stage, args=(number,), daemon=True).start()

    def begin(self, call: Callable[[], Any]) -> Callable[[], Any]:
        done, box = threading.Event(), list[Any]()
        with self._lock:
            self._on += 1
            self.most = max(self.most, self._on)
        self._queues[0].put((call, box, done))

        def wait() -> Any:
            assert done.wait(LONG_S)
            assert self.held.wait(LONG_S)
            with self._lock:
                self._on -= 1
            return box[0]

        return wait

    def _stage(self, number: int) -> None:
        while True:
            call, box, done = self._queues[number].get()
            started = time.perf_counter()
            time.sleep(self._seconds[number])
            if number == len(self._queues) // 2:
                box.append(call())
                self.spans.append((started, time.perf_counter()))
            if number + 1 < len(self._queues):
                self._queues[number + 1].put((call, box, done))
            else:
                done.set()


def compute(device: FakeDevice, count: int, workers: int, host_s: float = 0.0, ahead: int = UNITS_AHEAD) -> None:
    """So many units: the cores take so long for each, then it is on the device."""

    def task(job: Job, unit: Any) -> int:
        time.sleep(host_s)
        collect = device.begin(lambda: unit.number)
        with on_device():
            found: int = collect()
        return found

    units: list[Any] = [SimpleNamespace(key=f"u{number}", number=number) for number in range(count)]
    memory = MemoryPlan(0, 0, 0, workers, 0, ahead=ahead)
    job = Job(NOWHERE, None, Recipe(Normalization()), model=(Path("model"), "sha256"), memory=memory)
    outcomes = list(engine.execute(task, job, units, workers=workers))
    assert sorted(outcome.result for outcome in outcomes if outcome.result is not None) == list(range(count))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_device_has_units_of_its_own_whatever_the_threads_do(workers: int) -> None:
    device = FakeDevice(0.0)

    def watch() -> None:
        deadline = time.monotonic() + LONG_S
        while device.most < workers + UNITS_AHEAD and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)  # were there room for more, they would come
        device.held.set()

    threading.Thread(target=watch, daemon=True).start()
    compute(device, 20, workers)
    assert device.most == workers + UNITS_AHEAD, "no memory is planned for more"


def test_the_slowest_stage_is_hardly_ever_idle() -> None:
    device = FakeDevice(0.01, 0.03, 0.01)
    device.held.set()
    compute(device, 24, workers=2, host_s=0.04)  # 20 ms a unit, and 45 were each to wait for its own result
    busy = sum(end - start for start, end in device.spans)
    assert busy / (device.spans[-1][1] - device.spans[0][0]) > 0.7


def test_a_processor_gets_no_units_ahead() -> None:
    device = FakeDevice(0.0)
    device.held.set()
    compute(device, 12, workers=2, ahead=0)
    assert device.most <= 2


@pytest.mark.parametrize("ahead", [0, 2])
def test_tiles_of_one_unit_overlap_and_come_back_to_their_places(ahead: int) -> None:
    plan, draw, sent, most = TilePlan((24, 40), (16, 16), 4, 4), np.random.default_rng(0), 0, 0

    def begin(windows: Windows) -> Callable[[], Prediction]:
        nonlocal sent, most
        sent += 1
        most = max(most, sent)

        def wait() -> Prediction:
            nonlocal sent
            sent -= 1
            count = len(windows.pixels)
            return Prediction(windows.pixels * 2, None, np.arange(count, dtype=np.int32))

        return wait

    frames = [draw.random((24, 40, 1), np.float32) for _ in range(3)]
    targets = [np.zeros((24, 40, 1), np.float32) for _ in frames]
    batches, done = Batches(plan, 4, Lane(begin, ahead)), []
    for number, (pixels, target) in enumerate(zip(frames, targets, strict=True)):
        done += batches.add(NetworkFrame(number, pixels, np.zeros((4, 1), np.float32), target))
    done += batches.finish()
    assert [frame.frame for frame in done] == [0, 1, 2]
    assert (most, sent) == (ahead + 1, 0)
    for pixels, target in zip(frames, targets, strict=True):
        np.testing.assert_array_equal(target, 2 * pixels)


def test_a_run_through_a_lane_has_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(0).integers(400, 600, (9, 40, 44), "uint16")
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 40, 44))
    options: dict[str, Any] = {"axes": "tyx", "model": write_model(tmp_path / "model"), "workers": 2}
    expected = phbatch.run(tmp_path / "in.zarr", tmp_path / "expected.zarr", **options)
    device, begin = FakeDevice(0.002, 0.005, 0.002), Predictor.begin
    device.held.set()
    monkeypatch.setattr(begin_module, "find_gpu", lambda _: Device("a card", True, True, 80 << 30))
    monkeypatch.setattr(Predictor, "on_gpu", True)
    monkeypatch.setattr(Predictor, "begin", lambda self, windows: device.begin(begin(self, windows)))
    found = phbatch.run(tmp_path / "in.zarr", tmp_path / "out.zarr", **options)
    assert device.most > 2
    images = [zarr.open_array(result.output, path="0", mode="r")[:] for result in (expected, found)]
    np.testing.assert_array_equal(*images)
