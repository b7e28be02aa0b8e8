"""The parts of `gpu.py`: each measures one thing in a process of its own, and tells a row as soon as it has it.

`python benchmarks/gpu_parts.py PART SPECIFICATION` is how `gpu.py` calls them; the specification is JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray

import phbatch
from phbatch.kernels.intensity import make_affine
from phbatch.kernels.stats import measure_frame
from phbatch.network.backend import select_backend, start_sparingly
from phbatch.network.device import describe_device
from phbatch.network.forms import PLAIN, build_form, list_forms
from phbatch.network.model import open_model
from phbatch.network.predictor import Predictor
from phbatch.network.steps import Steps, Windows, apply_steps
from phbatch.network.weights import read_weights
from phbatch.words.choices import Backend, Precision
from phbatch.words.events import Event, RunStarted, StageStarted, UnitFinished

PRECISIONS: tuple[Precision, ...] = ("float16", "bfloat16", "tf32", "float32")
THREADS = (1, 2, 4, 8, 16)
AHEAD = 3  # frames that one thread leaves on their way


@dataclass(frozen=True)
class Specification:
    """What a part is told.

    Attributes
    ----------
    backend : {"tensorflow", "jax"}
        Of Keras.
    model : str
        Folder of the network.
    size, frames : int
        Side of the frames, and how many a run has.
    folder : str
        For inputs and outputs on a disk.
    form, precision : str
        The fastest that was measured alone.
    product : int
        Side of the matrices.
    rules : tuple of str
        Normalizations under which errors are measured.
    """

    backend: Backend
    model: str
    size: int
    frames: int
    folder: str
    form: str = PLAIN
    precision: Precision = "float32"
    product: int = 8192
    rules: tuple[str, ...] = ("percentile", "median")

    @property
    def places(self) -> dict[str, Path]:
        """Where a run reads and writes."""
        memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(self.folder)
        return {"memory": memory / "phbatch-gpu", "disk": Path(self.folder) / "disk"}


def tell(name: str, **values: Any) -> None:
    """One row."""
    print(json.dumps({"name": name} | values), flush=True)


@contextmanager
def attempt(name: str) -> Iterator[None]:
    """What fails is a row, and the next measurement goes on."""
    try:
        yield
    except Exception as error:
        tell(name, failed=f"{type(error).__name__}: {error}"[:300])


def median_seconds(function: Callable[[], Any], calls: int = 9) -> float:
    """Of a call, after a first one that does not count."""
    function()
    spent = []
    for _ in range(calls):
        start = time.perf_counter()
        function()
        spent.append(time.perf_counter() - start)
    return median(spent)


def draw_frames(size: int, count: int) -> list[NDArray[np.uint16]]:
    """Frames of low contrast: cells of the simulator, tiled to any size."""
    side = min(size, 512)
    movie = phbatch.PhaseContrast(shape=(side, side), n_frames=count, seed=11)
    repeats = -(-size // side)
    return [np.tile(movie.pair(t)[0], (repeats, repeats))[:size, :size].astype("uint16") for t in range(count)]


def make_windows(frame: NDArray[np.uint16], rule: str) -> Windows:
    """A whole frame on its way to the device, normalized there."""
    affine = make_affine(measure_frame(frame, 2.0), phbatch.Normalization(method=cast(Any, rule)))
    if affine is None:
        raise ValueError(f"a frame of {frame.shape} cannot be normalized by {rule}")
    scaling = np.array([[[affine.offset], [affine.divisor], [affine.span], [affine.offset]]], np.float32)
    owned = np.array([[[0, length] for length in frame.shape]], np.int32)
    return Windows(frame[np.newaxis, ..., np.newaxis], scaling, owned)


class OnDevice:
    """Compiled calls on tensors that lie on the device already."""

    def __init__(self, backend: Backend) -> None:
        start_sparingly()
        select_backend(backend)
        if backend == "jax":
            import jax

            self.put, self.compile, self.wait = jax.device_put, jax.jit, jax.block_until_ready
        else:
            import tensorflow as tf

            on_gpu = describe_device(backend)[1]
            self.put = tf.constant
            self.compile = partial(tf.function, jit_compile=on_gpu, autograph=False)
            self.wait = lambda results: [tf.reshape(each, [-1])[0].numpy() for each in tf.nest.flatten(results)]

    def do(self, call: Callable[[], Any]) -> None:
        """Wait for what a call gives."""
        self.wait(call())


def info(asked: Specification) -> None:
    """What machine and versions this is, its matrix products, and copies up and down."""
    names = (asked.backend, "jaxlib", "keras", "numpy", "numba", "zarr", "zarrs", "numcodecs")
    versions = {}
    for name in names:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    on_device = OnDevice(asked.backend)
    tell("device", device=describe_device(asked.backend)[0], python=sys.version.split()[0], **versions)
    from keras import ops

    values = np.random.default_rng(0).normal(size=(asked.product,) * 2).astype("float32")
    for dtype in ("bfloat16", "float16", "float32"):
        with attempt(f"matrix product, {dtype}"):
            multiply = partial(on_device.compile(lambda a: ops.matmul(a, a)), ops.cast(on_device.put(values), dtype))
            product_s = median_seconds(partial(on_device.do, multiply))
            tell(f"matrix product, {dtype}", tflops=round(2 * asked.product**3 / product_s / 1e12, 2))
    for dtype in ("uint16", "float32"):
        frame = np.zeros((1, asked.size, asked.size, 1), dtype)
        up_s = median_seconds(partial(on_device.do, partial(on_device.put, frame)))
        add, down_s = on_device.compile(lambda a: a + 1), []
        for _ in range(9):
            there = add(on_device.put(frame))
            on_device.wait(there)
            start = time.perf_counter()
            np.asarray(there)
            down_s.append(time.perf_counter() - start)
        rates = {"up_gb_per_s": frame.nbytes / up_s / 1e9, "down_gb_per_s": frame.nbytes / median(down_s) / 1e9}
        tell(f"copies of a frame, {dtype}", **{name: round(rate, 2) for name, rate in rates.items()})


def alone(asked: Specification) -> None:
    """Every form and precision on a frame that is on the device: its rate, and its error against plain float32."""
    on_device = OnDevice(asked.backend)
    model = open_model(asked.model)
    weights = read_weights(model.weights_path, model.config)
    windows = {rule: make_windows(draw_frames(asked.size, 1)[0], rule) for rule in asked.rules}
    steps = Steps(windows="uint16")
    exact: dict[str, NDArray[np.float32]] = {}

    def measure(form: str, precision: Precision) -> None:
        network = build_form(model.config, weights, form, precision)
        call = on_device.compile(partial(apply_steps, network, steps))
        first, *_ = windows.values()
        arrays = [on_device.put(array) for array in (first.pixels, first.scaling, first.owned)]
        start = time.perf_counter()
        on_device.wait(call(*arrays))
        compiling = time.perf_counter() - start
        spent = median_seconds(lambda: on_device.wait(call(*arrays)), 7)
        row: dict[str, Any] = {"form": form, "precision": precision, "compiling_s": round(compiling, 2)}
        row["mpx_per_s"] = round(asked.size**2 / spent / 1e6, 2)
        for rule, one in windows.items():
            result = np.asarray(call(*map(on_device.put, (one.pixels, one.scaling, one.owned)))[0], np.float32)
            reference = exact.setdefault(rule, result)
            difference = np.abs(result - reference) / max(float(reference.std()), 1e-30)
            row[f"error_{rule}"] = float(np.percentile(difference, 99.9))
        tell(f"{form} {precision}", **row)

    measure(PLAIN, "float32")  # the reference of all errors
    for precision, form in product(PRECISIONS, list_forms(model.config)):
        if (form, precision) == (PLAIN, "float32"):
            continue
        with attempt(f"{form} {precision}"), _products(precision, asked.backend):
            measure(form, precision)


@contextmanager
def _products(precision: Precision, backend: Backend) -> Iterator[None]:
    """Products of float32 as a precision has them."""
    if backend == "jax":
        import jax

        with jax.default_matmul_precision("tensorfloat32" if precision == "tf32" else "float32"):
            yield
    else:
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
        yield


def lane(asked: Specification) -> None:
    """The predictor of a run from one thread to many, copies both ways included."""
    model = open_model(asked.model)
    windows = [make_windows(frame, "percentile") for frame in draw_frames(asked.size, 4)]
    count = max(2 * max(THREADS), asked.frames // 4)
    for dtype in ("uint16", "float32"):
        steps = Steps(windows="uint16", dtype=dtype, rescale=True)
        predictor = Predictor(model.folder, (asked.size,) * 2, 1, asked.backend, asked.form, asked.precision, steps)
        predictor.restore(windows[0])
        for threads in THREADS:
            turns = iter(range(count))
            lock = threading.Lock()

            def work(turns: Iterator[int] = turns, lock: threading.Lock = lock, own: Predictor = predictor) -> None:
                while True:
                    with lock:
                        index = next(turns, None)
                    if index is None:
                        return
                    own.restore(windows[index % len(windows)])

            crew = [threading.Thread(target=work) for _ in range(threads)]
            start = time.perf_counter()
            for each in crew:
                each.start()
            for each in crew:
                each.join()
            rate = count * asked.size**2 / (time.perf_counter() - start) / 1e6
            name = f"{threads} thread{'s' * (threads > 1)}, {dtype}"
            tell(name, network=asked.form, precision=asked.precision, mpx_per_s=round(rate, 2))
        start, under_way = time.perf_counter(), []
        for index in range(count):
            under_way.append(predictor.begin(windows[index % len(windows)]))
            if len(under_way) == AHEAD:
                under_way.pop(0)()
        for collect in under_way:
            collect()
        rate = count * asked.size**2 / (time.perf_counter() - start) / 1e6
        name = f"1 thread, {AHEAD} frames on their way, {dtype}"
        tell(name, network=asked.form, precision=asked.precision, mpx_per_s=round(rate, 2))


def write_input(folder: Path, size: int, count: int) -> Path:
    """A Zarr of frames, one in a chunk; after the first ones their files again, by links."""
    path = folder / f"in-{size}-{count}.zarr"
    if (path / "whole").exists():
        return path
    shutil.rmtree(path, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    codec = zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
    array = zarr.create_array(
        path, shape=(count, size, size), chunks=(1, size, size), dtype="uint16", compressors=[codec]
    )
    frames = draw_frames(size, min(8, count))
    for t, frame in enumerate(frames):
        array[t] = frame
    for t in range(len(frames), count):
        (path / f"c/{t}/0").mkdir(parents=True)
        os.link(path / f"c/{t % len(frames)}/0/0", path / f"c/{t}/0/0")
    (path / "whole").touch()
    return path


def room_for(folder: Path, asked: int, frame_bytes: int) -> int:
    """As many frames as are asked for, fewer where the place has no room for their outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    return max(4, min(asked, shutil.disk_usage(folder).free // 3 // frame_bytes))


class Watch:
    """Hears a run: when each step began, and when each unit was there."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.steps: dict[str, float] = {}
        self.units: list[float] = []

    def __call__(self, event: Event) -> None:
        """Note the time of an event."""
        now = time.perf_counter() - self.begun
        if isinstance(event, UnitFinished):
            self.units.append(now)
        elif isinstance(event, StageStarted | RunStarted):
            self.steps["restoring" if isinstance(event, RunStarted) else event.stage] = round(now, 2)

    @property
    def steady(self) -> float:
        """Units per second but for the first fifth and the last twentieth of them."""
        first, last = len(self.units) // 5, len(self.units) - 1 - len(self.units) // 20
        spent = self.units[last] - self.units[first] if last > first else 0.0
        return (last - first) / spent if spent > 0 else len(self.units) / max(self.units[-1], 1e-9)


def run_once(asked: Specification, name: str, place: str, options: dict[str, Any]) -> None:
    """A run of all frames of an input in a place, as a row."""
    folder = asked.places[place]
    count = room_for(folder, asked.frames, asked.size**2 * 4)
    source, output = write_input(folder, asked.size, count), folder / "out.zarr"
    shutil.rmtree(output, ignore_errors=True)
    watch, used = Watch(), time.process_time()
    given = {"axes": "tyx", "model": asked.model, "backend": asked.backend, "rescale": True, "levels": 1}
    result = phbatch.run(source, output, listener=watch, overwrite=True, **cast(Any, given | options))
    used = time.process_time() - used
    facts = cast(dict[str, Any], zarr.open_group(output, mode="r").attrs.asdict()["phbatch"])
    shutil.rmtree(output, ignore_errors=True)
    frames_per_unit = result.frames / result.units
    tell(
        name,
        place=place,
        dtype=options.get("dtype", "float32"),
        mpx_per_s=round(watch.steady * frames_per_unit * asked.size**2 / 1e6, 2),
        whole_mpx_per_s=round(result.pixels / result.seconds / 1e6, 2),
        first_unit_s=round(watch.units[0], 2),
        steps_s=watch.steps,
        busy={stage: round(spent / result.restoring_seconds, 2) for stage, spent in result.stages.items()},
        processor_ms_per_frame=round(used / result.frames * 1e3, 2),
        peak_gb=round(result.peak_rss_bytes / 1e9, 2),
        workers=result.workers,
        network=facts["network"],
        precision=(facts.get("precision") or {}).get("precision", "float32"),
        tile=facts["tile"],
    )


def run(asked: Specification) -> None:
    """Zarr to Zarr with the form and the precision that were fastest alone, whole frames as tiles."""
    given = {"network": asked.form, "precision": asked.precision, "tile": asked.size, "batch": 1}
    if asked.precision != "float32":
        given["precision_bound"] = 1.0
    for place, dtype in product(("memory", "disk"), ("uint16", "float32")):
        with attempt(f"{place}, {dtype}"):
            run_once(asked, f"{place}, {dtype}", place, given | {"dtype": dtype})


def auto(asked: Specification) -> None:
    """A run that chooses by itself, in one process: what it takes, and the seconds of every step of its start."""
    begun = time.perf_counter()
    select_backend(asked.backend)
    device = describe_device(asked.backend)[0]
    tell("imports and device", seconds=round(time.perf_counter() - begun, 2), device=device)
    from phbatch.running import begin
    from phbatch.running import run as of_run

    def timed(module: Any, name: str) -> None:
        function = getattr(module, name)

        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                tell(name.replace("_", " "), seconds=round(time.perf_counter() - start, 2))

        setattr(module, name, call)

    for name in ("settle_precision", "choose_network", "settle_cut"):
        timed(begin, name)
    timed(of_run, "load_predictor")
    with attempt("chosen by phbatch"):
        run_once(asked, "chosen by phbatch", "memory", {"dtype": "uint16"})


def host(asked: Specification) -> None:
    """What the cores can do beside the network: a stand-in hands out pixels at no cost."""
    from common import measure
    from host import RUN, START, write_frames

    for size in (32, asked.size):
        count = 1000 if size == 32 else max(32, asked.frames // 4)
        folder = asked.places["memory"]
        folder.mkdir(parents=True, exist_ok=True)
        with attempt(f"stand-in, {size}^2"):
            source, output = folder / f"host-{size}.zarr", folder / "host-out.zarr"
            for path in (source, output, Path(f"{output}.few")):
                shutil.rmtree(path, ignore_errors=True)
            write_frames(str(source), size, count)
            found = measure(START + RUN, str(source), str(output), str(size), "16")
            rates = {"processor_ms_per_unit": found["ms"], "units_per_s": found["units_per_s"]}
            tell(f"stand-in, {size}^2", **{name: round(rate, 2) for name, rate in rates.items()})
            for path in (source, output, Path(f"{output}.few")):
                shutil.rmtree(path, ignore_errors=True)


def care(asked: Specification) -> None:
    """`CARE.predict`, one frame after the other, where CSBDeep and TensorFlow are installed."""
    if not (find_spec("csbdeep") and find_spec("tensorflow")):
        tell("CARE.predict", absent="CSBDeep or TensorFlow is not installed")
        return
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "0")
    from csbdeep.models import CARE

    folder = Path(asked.model)
    model = CARE(None, name=folder.name, basedir=str(folder.parent))
    frame = draw_frames(asked.size, 1)[0]
    spent = median_seconds(lambda: model.predict(frame, "YX"), 3)
    tell("CARE.predict", mpx_per_s=round(asked.size**2 / spent / 1e6, 2))


PARTS: dict[str, Callable[[Specification], None]] = {
    part.__name__: part for part in (info, alone, lane, run, auto, host, care)
}
"""In the order in which they are measured."""


def main() -> None:
    """One part."""
    name, given = sys.argv[1:]
    values = json.loads(given)
    values["rules"] = tuple(values.get("rules", Specification.rules))
    with attempt(f"part {name}"):
        PARTS[name](Specification(**values))


if __name__ == "__main__":
    main()
