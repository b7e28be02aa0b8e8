"""Predicting batches of tiles: one compiled function of fixed shape per model, tile, batch, backend and form."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.care.model import open_model
from phbatch.care.polyphase import PLAIN, build_form
from phbatch.care.weights import read_weights
from phbatch.config import Backend
from phbatch.errors import ModelError, UsageError

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

    Raises
    ------
    ModelError
        The weights cannot be read, or do not fit the configuration.
    UsageError
        The backend is not installed, or Keras runs on another one in this process.
    """

    def __init__(self, folder: Path, tile: tuple[int, ...], batch: int, backend: Backend, form: str = PLAIN) -> None:
        self.model = open_model(folder)
        self.tile = tile
        self.batch = batch
        self.form = form
        weights = read_weights(self.model.weights_path, self.model.config)
        select_backend(backend)
        network = build_form(self.model.config, weights, form, tile)
        shape = (batch, *tile, self.model.config.n_channel_in)
        self._call = _compile_tensorflow(network, shape) if backend == "tensorflow" else _compile_jax(network)
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
        if count < self.batch:
            tiles = np.concatenate([tiles, np.zeros((self.batch - count, *tiles.shape[1:]), np.float32)])
        with self._lane:
            return np.asarray(self._call(tiles))[:count]


@lru_cache(maxsize=8)
def _load_predictor(
    folder: Path, sha256: str, tile: tuple[int, ...], batch: int, backend: Backend, form: str
) -> Predictor:
    predictor = Predictor(folder, tile, batch, backend, form)
    if predictor.model.sha256 != sha256:
        raise ModelError(f"the weights in {folder} changed while the run was going on; start it again.")
    return predictor


def get_predictor(
    folder: Path, sha256: str, tile: tuple[int, ...], batch: int, backend: Backend, form: str = PLAIN
) -> Predictor:
    """The one predictor of this process for a model, tile shape, batch, backend and form."""
    with _LOADING:
        return _load_predictor(folder, sha256, tile, batch, backend, form)


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


def _compile_tensorflow(network: Any, shape: tuple[int, ...]) -> Callable[[NDArray[np.float32]], Any]:
    import tensorflow as tf

    signature = [tf.TensorSpec(shape, tf.float32)]
    on_gpu = bool(tf.config.list_physical_devices("GPU"))

    @tf.function(input_signature=signature, jit_compile=on_gpu, autograph=False)  # type: ignore[untyped-decorator]
    def call(tiles: Any) -> Any:
        return network(tiles, training=False)

    return lambda tiles: call(tf.convert_to_tensor(tiles)).numpy()


def _compile_jax(network: Any) -> Callable[[NDArray[np.float32]], Any]:
    import jax

    trainable, fixed = network.trainable_variables, network.non_trainable_variables
    weights, constants = [variable.value for variable in trainable], [variable.value for variable in fixed]

    @jax.jit  # type: ignore[untyped-decorator]
    def call(weights: Any, constants: Any, tiles: Any) -> Any:
        return network.stateless_call(weights, constants, tiles, training=False)[0]

    return lambda tiles: call(weights, constants, tiles)
