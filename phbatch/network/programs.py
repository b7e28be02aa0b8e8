"""Networks that were compiled on this machine before, as their frameworks' own graphs: they start without Keras.

A program is kept once it has given, bit for bit, what the network itself gave of the same windows. What cannot be read
is ignored, and what cannot be written is not missed: the network is built again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from phbatch.network.device import find_device
from phbatch.network.model import Model
from phbatch.network.steps import Steps
from phbatch.words.choices import Backend, Precision

_ROOM = 256 << 20  # bytes of the newest ones together, and four times as much as one may have
_PACKAGES: Mapping[Backend, tuple[str, ...]] = {"tensorflow": ("tensorflow",), "jax": ("jax", "jaxlib")}
_VARIABLES = ("DNNL_", "ONEDNN_", "TF_ENABLE_", "TF_XLA_", "XLA_FLAGS", "JAX_")
_NO_NUMBERS = ("JAX_COMPILATION_CACHE_", "JAX_PERSISTENT_CACHE_")


@dataclass(frozen=True, eq=False)
class Program:
    """A network with its steps, of one shape.

    Attributes
    ----------
    graph : bytes
        As the framework writes it.
    weights : mapping of str to ndarray
        What the graph takes beside windows, in its order.
    inputs, outputs : tuple of str
        Names in the graph of what windows hold, and of what is computed; where graphs have names.
    """

    graph: bytes
    weights: Mapping[str, NDArray[Any]]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProgramFile:
    """Where the program of a case is kept.

    Attributes
    ----------
    case : mapping
        All that the program depends on, as plain values.
    """

    case: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """The file of the case."""
        digest = hashlib.sha256(json.dumps(self.case, sort_keys=True).encode()).hexdigest()[:16]
        return user_cache_path("phbatch") / f"program-{digest}.npz"

    def read(self) -> Program | None:
        """The program; None where there is none, or the file is broken."""
        try:
            # NumPy leaves a file open that is no archive
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                facts = json.loads(stored["facts"].tobytes())
                if facts["case"] != self.case:
                    return None
                weights = {name: stored[f"weights-{place}"] for place, name in enumerate(facts["weights"])}
                return Program(stored["graph"].tobytes(), weights, tuple(facts["inputs"]), tuple(facts["outputs"]))
        except Exception:  # zipfile and NumPy raise of many kinds where a file is none of theirs
            return None

    def write(self, program: Program) -> None:
        """Keep a program, unless it is huge; others see all of it or nothing, and the oldest ones make room."""
        size = len(program.graph) + sum(array.nbytes for array in program.weights.values())
        if size > _ROOM // 4:
            return
        facts = {
            "case": self.case,
            "weights": list(program.weights),
            "inputs": program.inputs,
            "outputs": program.outputs,
        }
        arrays: dict[str, Any] = {f"weights-{place}": array for place, array in enumerate(program.weights.values())}
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        arrays["graph"] = np.frombuffer(program.graph, np.uint8)
        with suppress(OSError):
            folder = self.path.parent
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix="program-") as scratch:
                np.savez(Path(scratch, "new.npz"), **arrays)
                Path(scratch, "new.npz").replace(self.path)
            kept = sorted(folder.glob("program-*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)
            for path, total in zip(kept, accumulate(path.stat().st_size for path in kept), strict=True):
                if total > _ROOM:
                    path.unlink(missing_ok=True)


def find_program(
    model: Model,
    tile: tuple[int, ...],
    batch: int,
    backend: Backend,
    form: str,
    precision: Precision,
    steps: Steps,
) -> ProgramFile | None:
    """Where the program of a `phbatch.network.predictor.Predictor` is kept, or will be; None where nobody can say."""
    try:
        versions = {name: version(name) for name in ("numpy", "keras", *_PACKAGES[backend])}
    except PackageNotFoundError:  # one that calls itself otherwise, such as tensorflow-cpu
        return None
    environment = {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_VARIABLES) and not name.startswith(_NO_NUMBERS)
    }
    return ProgramFile(
        {
            "weights": model.sha256,
            "network": asdict(model.config),
            "tile": list(tile),
            "batch": batch,
            "backend": backend,
            "form": form,
            "precision": precision,
            "steps": asdict(steps),
            "device": find_device(backend).name,
            "versions": versions,
            "code": _digest_code(),
            "environment": environment,
        }
    )


@cache
def _digest_code() -> str:
    """Of all modules of this room: what makes networks."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
