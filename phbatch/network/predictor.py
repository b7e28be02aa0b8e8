"""Predicting batches of tiles: one compiled function of fixed shape per model, tile, batch, backend and form."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.network.forms import PLAIN, build_form
from phbatch.network.model import open_model
from phbatch.network.steps import Prediction, Steps, Windows, apply_steps
from phbatch.network.weights import read_weights
from phbatch.words.errors import MemoryLimitError, ModelError, UsageError
from phbatch.words.settings import FLOAT32, Backend, Precision

_LOADING = threading.Lock()


class Predictor:
    """The network on a batch of tiles; safe to call from many threads, which take turns.

    Parameters
    ----------
    folder : Path
        CSBDeep model folder.
    tile : tuple of int
        Spatial shape of the tiles, multiples of the pooling grid.
    batch : int
        Tiles per call.
    backend : {"tensorflow", "jax"}
        Keras backend; one per process.
    form : str
        One of `phbatch.network.forms.list_forms`. On a CPU, ``plain`` has the bits of CSBDeep's own network on a
        batch of one tile; the others differ in the order of their float32 sums.
    precision : {"float32", "tf32", "float16", "bfloat16"}
        Of all layers but the last ones, which are float32. A CPU knows no tf32 and computes float32.
    steps : Steps
        What else is done on the device; default: nothing, float32 windows go up and all that the network gives, in
        float32, comes down.

    Raises
    ------
    ModelError
        The weights cannot be read, or do not fit the configuration.
    UsageError
        The backend is not installed, or Keras runs on another one in this process.
    """

    def __init__(
        self,
        folder: Path,
        tile: tuple[int, ...],
        batch: int,
        backend: Backend,
        form: str = PLAIN,
        precision: Precision = FLOAT32,
        steps: Steps = Steps(),  # noqa: B008, frozen
    ) -> None:
        self.model = open_model(folder)
        self.tile = tile
        self.batch = batch
        self.form = form
        self.precision = precision
        self.steps = steps
        self._backend = backend
        self._halved: Predictor | None = None
        weights = read_weights(self.model.weights_path, self.model.config)
        select_backend(backend)
        with _computing_in(precision):
            network = build_form(self.model.config, weights, form, tile)
        if backend == "tensorflow":
            shape = (batch, *tile, self.model.config.n_channel_in)
            self._call = _compile_tensorflow(network, shape, precision, steps)
        else:
            self._call = _compile_jax(network, precision, steps)
        self._lane = threading.Lock()

    @property
    def halved(self) -> bool:
        """Whether the device had no memory for a whole batch."""
        return self._halved is not None

    def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network alone, on normalized tiles ``(n, *tile, n_channel_in)``: means, then scales."""
        return self.restore(Windows.plain(tiles)).image

    def restore(self, windows: Windows) -> Prediction:
        """Take up to `batch` windows through all steps; fewer are filled up, so that the compiled shape stays.

        Raises
        ------
        MemoryLimitError
            The device has no memory for one tile.
        """
        count = len(windows.pixels)
        if self.halved:
            return self._in_halves(windows)
        try:
            with self._lane:
                results = self._call(windows.fill(self.batch))
            # On a GPU the call returns before it is done: while this thread waits and copies, the next batch computes.
            image, clipped, *scale = (np.asarray(result)[:count] for result in results)
            return Prediction(image, scale[0] if scale else None, clipped)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
        return self._in_halves(windows)

    def _in_halves(self, windows: Windows) -> Prediction:
        """Predict with half the batch, since the device has no memory for the whole one."""
        with self._lane:
            if self.batch == 1:
                raise MemoryLimitError(
                    f"the device has no memory for a tile of {'x'.join(map(str, self.tile))}; lower --tile."
                )
            if self._halved is None:
                size = self.batch // 2
                self._halved = Predictor(
                    self.model.folder, self.tile, size, self._backend, self.form, self.precision, self.steps
                )
            half, step = self._halved, self._halved.batch
        return Prediction.join(
            [half.restore(windows.part(first, first + step)) for first in range(0, len(windows.pixels), step)]
        )


def _is_out_of_memory(error: Exception) -> bool:
    """Whether a framework, or Python, says that memory ran out."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "ResourceExhausted" in repr(error)


@lru_cache(maxsize=8)
def _load_predictor(
    folder: Path,
    sha256: str,
    tile: tuple[int, ...],
    batch: int,
    backend: Backend,
    form: str,
    precision: Precision,
    steps: Steps,
) -> Predictor:
    predictor = Predictor(folder, tile, batch, backend, form, precision, steps)
    if predictor.model.sha256 != sha256:
        raise ModelError(f"the weights in {folder} changed while the run was going on; start it again.")
    return predictor


def get_predictor(
    folder: Path,
    sha256: str,
    tile: tuple[int, ...],
    batch: int,
    backend: Backend,
    form: str = PLAIN,
    precision: Precision = FLOAT32,
    steps: Steps = Steps(),  # noqa: B008, frozen
) -> Predictor:
    """The one predictor of this process for a model, tile shape, batch, backend, form, precision and steps."""
    with _LOADING:
        return _load_predictor(folder, sha256, tile, batch, backend, form, precision, steps)


@cache
def limit_network_threads(backend: Backend, count: int) -> None:
    """Let TensorFlow use at most so many threads, where it has not computed yet in this process; JAX knows no limit."""
    select_backend(backend)
    if backend == "tensorflow":
        import tensorflow as tf

        with suppress(RuntimeError):  # it has computed already
            tf.config.threading.set_intra_op_parallelism_threads(count)


def describe_device(backend: Backend) -> tuple[str, bool]:
    """Name of what the network runs on, with the number of cores of a CPU, and whether it is a GPU."""
    select_backend(backend)
    if backend == "tensorflow":
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        if devices:
            return str(tf.config.experimental.get_device_details(devices[0]).get("device_name", "GPU")), True
    else:
        import jax

        device = jax.devices()[0]
        if device.platform != "cpu":
            return str(device.device_kind), True
    return f"{_processor_name()}, {_count_cores()} cores", False


def _processor_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def select_backend(backend: Backend) -> None:
    """Start Keras on a backend, which is then that of the process.

    Raises
    ------
    UsageError
        The backend is not installed, or Keras runs on another one in this process.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = backend
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    try:
        with _quiet_start():
            import keras

            if backend == "tensorflow":
                import tensorflow as tf

                tf.config.list_physical_devices("GPU")
    except ImportError as error:
        raise UsageError(
            f"backend {backend} is not installed; install phbatch[{backend}], or leave --backend out."
        ) from error
    if keras.backend.backend() != backend:
        raise UsageError(
            f"Keras runs on {keras.backend.backend()} in this process and {backend} is asked for; use one backend"
            f" per process."
        )


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Keep the start-up log of the C++ runtimes off the terminal; it is shown where the start fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            log.seek(0)
            os.write(kept, log.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def _computing_in(precision: Precision) -> Iterator[None]:
    """Layers that are made inside compute in a precision; their weights stay float32."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(f"mixed_{precision}" if precision in ("float16", "bfloat16") else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


_Compiled = Callable[[Windows], Sequence[Any]]
"""Takes as many windows as it was compiled for through all steps."""


def _compile_tensorflow(network: Any, shape: tuple[int, ...], precision: Precision, steps: Steps) -> _Compiled:
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")

    batch, *tile, channels = shape
    signature = [
        tf.TensorSpec(shape, steps.windows),
        tf.TensorSpec((batch, 4, channels), tf.float32),
        tf.TensorSpec((batch, len(tile), 2), tf.int32),
    ]
    on_gpu = bool(tf.config.list_physical_devices("GPU"))

    @tf.function(input_signature=signature, jit_compile=on_gpu, autograph=False)  # type: ignore[untyped-decorator]
    def call(pixels: Any, scaling: Any, owned: Any) -> Any:
        return apply_steps(partial(network, training=False), steps, pixels, scaling, owned)

    def convert(windows: Windows) -> list[Any]:
        return [tf.convert_to_tensor(array) for array in (windows.pixels, windows.scaling, windows.owned)]

    return lambda windows: call(*convert(windows))


def _compile_jax(network: Any, precision: Precision, steps: Steps) -> _Compiled:
    import jax

    products = "tensorfloat32" if precision == "tf32" else "float32"

    trainable, fixed = network.trainable_variables, network.non_trainable_variables
    weights, constants = [variable.value for variable in trainable], [variable.value for variable in fixed]

    @jax.jit  # type: ignore[untyped-decorator]
    def call(weights: Any, constants: Any, pixels: Any, scaling: Any, owned: Any) -> Any:
        def predict(tiles: Any) -> Any:
            with jax.default_matmul_precision(products):
                return network.stateless_call(weights, constants, tiles, training=False)[0]

        return apply_steps(predict, steps, pixels, scaling, owned)

    def start(windows: Windows) -> Sequence[Any]:
        results = call(weights, constants, windows.pixels, windows.scaling, windows.owned)
        for result in results:
            result.copy_to_host_async()
        return results  # type: ignore[no-any-return]

    return start
