"""The backend of Keras, which is one per process: which one is taken where none is named, and its start."""

from __future__ import annotations

import gc
import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from platformdirs import user_cache_path

from phbatch.words.choices import Backend, BackendChoice
from phbatch.words.errors import UsageError

BACKENDS: tuple[Backend, ...] = get_args(Backend)
"""In the order in which they are taken."""

_UNNEEDED = ("jax", "matplotlib", "pandas")  # TensorFlow and Keras import them where they are, to draw, and to convert
_process = {"own": False}
_threads = dict[Backend, int]()


def start_sparingly() -> None:
    """Let backends start without what they import where it is installed, and no network needs: seconds less.

    The process must be phbatch's own: in a program that imports it, Keras is to find them.
    """
    _process["own"] = True


def may_spare_keras(backend: Backend) -> bool:
    """Whether a network that was compiled before may compute without Keras: in a process of phbatch's own."""
    installed = all(find_spec(name) is not None for name in ("keras", backend))
    return _process["own"] and installed and _running() in (None, backend)


def installed_backends() -> tuple[Backend, ...]:
    """Those that can be imported here; none is."""
    return tuple(backend for backend in BACKENDS if find_spec(backend) is not None)


def choose_backend(asked: BackendChoice, begun: str | None = None, *, elsewhere: bool = False) -> Backend:
    """The backend of a run, before anything is imported.

    Where none is named, it is that of the run that is continued, else the one that Keras runs on in this process, else
    the first that is installed. TensorFlow comes first: it is faster on cores, CSBDeep computes with it, and it heeds
    ``threads``.

    Parameters
    ----------
    asked : {"auto", "tensorflow", "jax"}
        By the user.
    begun : str, optional
        Of the run that is continued.
    elsewhere : bool
        Whether the network is computed by the workers of a cluster, so that nothing need be installed here.

    Raises
    ------
    UsageError
        None is installed.

    Examples
    --------
    >>> choose_backend("jax", "tensorflow"), choose_backend("auto", "jax")
    ('jax', 'jax')
    """
    if asked != "auto":
        return asked
    known = [backend for name in (begun, _running()) for backend in BACKENDS if backend == name]
    found = known or installed_backends() or (BACKENDS[:1] if elsewhere else ())
    if not found:
        raise UsageError(
            "a network is computed by TensorFlow or JAX and neither is installed; `pip install 'phbatch[tensorflow]'`"
            " or 'phbatch[jax]', or normalize only with --model none."
        )
    return found[0]


def _running() -> str | None:
    """What Keras runs on, where it was imported."""
    keras: Any = sys.modules.get("keras")
    return keras.backend.backend() if hasattr(keras, "backend") else None


@cache
def limit_network_threads(backend: Backend, count: int) -> None:
    """Let TensorFlow use at most so many threads, where it has not computed yet in this process; JAX knows no limit."""
    _threads[backend] = count
    if not may_spare_keras(backend):
        select_backend(backend)


def network_threads() -> int | None:
    """How many threads TensorFlow may use at most; None where nobody said."""
    return _threads.get("tensorflow")


def select_backend(backend: Backend) -> None:
    """Start Keras on a backend, which is then that of the process.

    Raises
    ------
    UsageError
        The backend is not installed, or Keras runs on another one in this process.
    """
    with starting(backend):
        import keras

        if backend == "tensorflow":
            import tensorflow as tf

            if backend in _threads:
                with suppress(RuntimeError):  # it has computed already
                    tf.config.threading.set_intra_op_parallelism_threads(_threads[backend])
            tf.config.list_physical_devices("GPU")
    if keras.backend.backend() != backend:
        raise UsageError(
            f"Keras runs on {keras.backend.backend()} in this process and {backend} is asked for; use one backend"
            f" per process."
        )


def select_jax() -> None:
    """Start JAX without Keras.

    Raises
    ------
    UsageError
        It is not installed.
    """
    with starting("jax"):
        import jax

        jax.local_devices()


@contextmanager
def starting(backend: Backend) -> Iterator[None]:
    """While inside, a backend is imported, in the environment that it needs.

    Raises
    ------
    UsageError
        It is not installed.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = backend
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        if backend == "jax":  # what it compiled is found again by the next run
            os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_compiled_folder()))
            os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
            os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    try:
        with _quiet_start(), _without_unneeded(backend), _collecting_seldom():
            yield
    except ImportError as error:
        raise UsageError(
            f"backend {backend} is not installed; `pip install 'phbatch[{backend}]'`, or choose another with --backend."
        ) from error


def _compiled_folder() -> Path:
    """Where JAX keeps what it compiled: one for each kind of processor, since a home may be shared by several."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    told = {line for line in lines if line.startswith(("model name", "flags", "Features"))} or {platform.processor()}
    kind = hashlib.blake2b("\n".join([platform.machine(), *sorted(told)]).encode(), digest_size=6).hexdigest()
    return user_cache_path("phbatch") / f"jax-{kind}"


@contextmanager
def _without_unneeded(backend: Backend) -> Iterator[None]:
    """While inside, what is not needed is as if it were not installed, in a process of phbatch's own."""
    withheld = [name for name in _UNNEEDED if _process["own"] and name != backend and name not in sys.modules]
    for name in withheld:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in withheld:
            del sys.modules[name]


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """While inside, Python looks for garbage a hundred times less: libraries make many objects and drop few."""
    before = gc.get_threshold()
    gc.set_threshold(100 * before[0], *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


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
