"""Predicting batches of tiles: one compiled function of fixed shape per model, tile, batch, backend and form."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.network.backend import may_spare_keras, select_backend
from phbatch.network.compiling import Call, Compiled, compile_network, open_program
from phbatch.network.device import find_device, on_cores_alone
from phbatch.network.forms import PLAIN, build_form
from phbatch.network.model import find_folder, open_model
from phbatch.network.programs import ProgramFile, find_program
from phbatch.network.steps import Prediction, Steps, Windows
from phbatch.network.weights import read_weights
from phbatch.words.choices import FLOAT32, Backend, Precision
from phbatch.words.errors import DeviceError, MemoryLimitError, ModelError, first_line

Collect = Callable[[], Prediction]
"""Waits for windows that are on their way through the device."""

_LOADING = threading.Lock()
_find_folder = cache(find_folder)  # asked for every unit


class Predictor:
    """The network on a batch of tiles; safe to call from many threads, which take turns at sending them.

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
    keeping : bool
        Whether what was compiled before is opened, and what is compiled is kept (`phbatch.network.programs`).

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
        *,
        keeping: bool = False,
    ) -> None:
        self.model = open_model(folder)
        self.tile = tile
        self.batch = batch
        self.form = form
        self.precision = precision
        self.steps = steps
        self._backend = backend
        self._halved: Predictor | None = None
        self._lane = threading.Lock()
        known = find_program(self.model, tile, batch, backend, form, precision, steps) if keeping else None
        opened = known and _open(backend, known)
        self._call = opened or self._build(known)

    def _build(self, file: ProgramFile | None) -> Call:
        """Read the weights and compile the network; where there is a file, it is kept there."""
        model, backend = self.model, self._backend
        weights = read_weights(model.weights_path, model.config)
        select_backend(backend)
        network = build_form(model.config, weights, self.form, self.precision)
        shape = (self.batch, *self.tile, model.config.n_channel_in)
        compiled = compile_network(network, shape, backend, self.steps)
        return compiled.call if file is None else _keep(compiled, backend, file)

    @property
    def on_gpu(self) -> bool:
        """Whether it computes while threads of this process do something else."""
        return find_device(self._backend).on_gpu

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
        DeviceError
            The device failed.
        """
        return self.begin(windows)()

    def begin(self, windows: Windows) -> Collect:
        """Send windows on their way, as `restore` does; what is returned waits for them and brings them back.

        A GPU is given the next ones meanwhile: it computes some while it copies others, both ways. A CPU computes at
        once, and nothing is left to wait for.

        Raises
        ------
        MemoryLimitError, DeviceError
            As of `restore`, here or where they are brought back.
        """
        if self.halved:
            return partial(self._in_halves, windows)
        try:
            with _naming_failures(), self._lane:
                results = self._call(windows.fill(self.batch))
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            return partial(self._in_halves, windows)
        return partial(self._collect, windows, results)

    def _collect(self, windows: Windows, results: Sequence[Any]) -> Prediction:
        count = len(windows.pixels)
        try:
            with _naming_failures():
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


def may_keep(backend: Backend) -> bool:
    """Whether a network may be opened as it was compiled before: TensorFlow's on cores, JAX's on any device."""
    return may_spare_keras(backend) and (backend == "jax" or on_cores_alone())


def _open(backend: Backend, file: ProgramFile) -> Call | None:
    """A program that was kept; None where there is none, or anything is wrong with it."""
    program = file.read()
    with suppress(Exception):
        return open_program(backend, program) if program is not None else None
    return None


def _keep(compiled: Compiled, backend: Backend, file: ProgramFile) -> Call:
    """What calls the network, and keeps its program once that gave the same bytes."""
    tried = False

    def call(windows: Windows) -> Sequence[Any]:
        nonlocal tried
        results = compiled.call(windows)
        if not tried:
            tried = True
            with suppress(Exception):
                program = compiled.program()
                again = open_program(backend, program)(windows)
                if all(_same(one, other) for one, other in zip(results, again, strict=True)):
                    file.write(program)
        return results

    return call


def _same(one: Any, other: Any) -> bool:
    """Whether arrays are the same, bit for bit."""
    first, second = np.asarray(one), np.asarray(other)
    same = (first.dtype, first.shape) == (second.dtype, second.shape)
    return same and first.tobytes() == second.tobytes()


def _is_out_of_memory(error: Exception) -> bool:
    """Whether a framework, or Python, says that memory ran out."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "ResourceExhausted" in repr(error)


_FAILURES = ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "ABORTED", "DATA_LOSS", "FAILED_PRECONDITION")
"""What the frameworks' runtimes report where it is neither what was asked for, nor a lack of memory."""


def _is_of_device(error: Exception) -> bool:
    """Whether a framework says that what it computes on failed."""
    library, name = type(error).__module__.partition(".")[0], type(error).__name__
    if library == "tensorflow":
        failed = name.removesuffix("Error").upper() in {each.replace("_", "") for each in _FAILURES}
    else:
        failed = library in ("jax", "jaxlib") and str(error).startswith(_FAILURES)
    return failed and not _is_out_of_memory(error)


@contextmanager
def _naming_failures() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _is_of_device(error):
            raise
        raise DeviceError(f"{type(error).__name__}: {first_line(error)}") from error


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
    with _naming_failures():
        keeping = may_keep(backend)
        predictor = Predictor(folder, tile, batch, backend, form, precision, steps, keeping=keeping)
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
        return _load_predictor(_find_folder(folder), sha256, tile, batch, backend, form, precision, steps)
