"""Predicting batches of tiles: one compiled function of fixed shape per model, tile, batch, backend and form."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.care.model import open_model
from phbatch.care.polyphase import PLAIN, build_form
from phbatch.care.weights import read_weights
from phbatch.config import FLOAT32, Backend, Precision
from phbatch.errors import MemoryLimitError, ModelError, UsageError

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
        One of `phbatch.care.polyphase.list_forms`. On a CPU, ``plain`` has the bits of CSBDeep's own network on a
        batch of one tile; the others differ in the order of their float32 sums.
    precision : {"float32", "tf32", "float16", "bfloat16"}
        Of all layers but the last ones, which are float32. A CPU knows no tf32 and computes float32.

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
    ) -> None:
        self.model = open_model(folder)
        self.tile = tile
        self.batch = batch
        self.form = form
        self.precision = precision
        self._backend = backend
        self._halved: Predictor | None = None
        weights = read_weights(self.model.weights_path, self.model.config)
        select_backend(backend)
        with _computing_in(precision):
            network = build_form(self.model.config, weights, form, tile)
        shape = (batch, *tile, self.model.config.n_channel_in)
        if backend == "tensorflow":
            self._call = _compile_tensorflow(network, shape, precision)
        else:
            self._call = _compile_jax(network, precision)
        self._lane = threading.Lock()

    def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict up to `batch` tiles.

        Parameters
        ----------
        tiles : (n, *tile, n_channel_in) ndarray of float32
            Normalized windows; fewer than `batch` are filled up with zeros, so that the compiled shape stays.

        Returns
        -------
        (n, *tile, n_output) ndarray of float32
            Means, then scales of a probabilistic model.
        """
        count = len(tiles)
        if self._halved is not None:
            return self._in_halves(tiles)
        if count < self.batch:
            tiles = np.concatenate([tiles, np.zeros((self.batch - count, *tiles.shape[1:]), np.float32)])
        try:
            with self._lane:
                result = self._call(tiles)
            # On a GPU the call returns before it is done: while this thread waits and copies, the next batch computes.
            return np.asarray(result)[:count]
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
        return self._in_halves(tiles[:count])

    def _in_halves(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict with half the batch, since the device has no memory for the whole one."""
        with self._lane:
            if self.batch == 1:
                raise MemoryLimitError(
                    f"the device has no memory for a tile of {'x'.join(map(str, self.tile))}; lower --tile."
                )
            if self._halved is None:
                half = self.batch // 2
                self._halved = Predictor(self.model.folder, self.tile, half, self._backend, self.form, self.precision)
        step = self._halved.batch
        return np.concatenate([self._halved(tiles[first : first + step]) for first in range(0, len(tiles), step)])


def _is_out_of_memory(error: Exception) -> bool:
    """Whether a framework, or Python, says that memory ran out."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "ResourceExhausted" in repr(error)


@lru_cache(maxsize=8)
def _load_predictor(
    folder: Path, sha256: str, tile: tuple[int, ...], batch: int, backend: Backend, form: str, precision: Precision
) -> Predictor:
    predictor = Predictor(folder, tile, batch, backend, form, precision)
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
) -> Predictor:
    """The one predictor of this process for a model, tile shape, batch, backend, form and precision."""
    with _LOADING:
        return _load_predictor(folder, sha256, tile, batch, backend, form, precision)


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


def _compile_tensorflow(
    network: Any, shape: tuple[int, ...], precision: Precision
) -> Callable[[NDArray[np.float32]], Any]:
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")

    signature = [tf.TensorSpec(shape, tf.float32)]
    on_gpu = bool(tf.config.list_physical_devices("GPU"))

    @tf.function(input_signature=signature, jit_compile=on_gpu, autograph=False)  # type: ignore[untyped-decorator]
    def call(tiles: Any) -> Any:
        return network(tiles, training=False)

    return lambda tiles: call(tf.convert_to_tensor(tiles))


def _compile_jax(network: Any, precision: Precision) -> Callable[[NDArray[np.float32]], Any]:
    import jax

    products = "tensorfloat32" if precision == "tf32" else "float32"

    trainable, fixed = network.trainable_variables, network.non_trainable_variables
    weights, constants = [variable.value for variable in trainable], [variable.value for variable in fixed]

    @jax.jit  # type: ignore[untyped-decorator]
    def call(weights: Any, constants: Any, tiles: Any) -> Any:
        with jax.default_matmul_precision(products):
            return network.stateless_call(weights, constants, tiles, training=False)[0]

    return lambda tiles: call(weights, constants, tiles)
