"""What of phbatch works on this machine, what does not, and what to install."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Literal, get_args

import numpy as np
import psutil

from phbatch.network.backend import installed_backends
from phbatch.places.compressor import try_codec
from phbatch.planning.memory import format_bytes
from phbatch.words.choices import Backend, Codec
from phbatch.words.errors import OutputError, first_line

State = Literal["ok", "missing", "broken"]

_PATIENCE_S = 300.0  # a TensorFlow from a cold disk
_DISK_BYTES, _DISK_S = 64 << 20, 3.0
_LEAST_BYTES = 2_000_000_000
_NEEDED = ("numpy", "scipy", "zarr", "zarrs", "dask", "distributed", "numba", "keras")
_EXTRAS = {
    "tensorflow": ("tensorflow",),
    "jax": ("jax",),
    "s3": ("obstore",),
    "parquet": ("pyarrow",),
    "pandas": ("pandas",),
    "basic": ("basicpy",),
    "slurm": ("dask_jobqueue",),
    "kubernetes": ("dask_kubernetes", "kr8s"),
}
_FOR = {
    "tensorflow": "--backend tensorflow",
    "jax": "--backend jax",
    "s3": "s3://, gs:// and https:// by obstore",
    "parquet": "statistics as .parquet",
    "pandas": "statistics as a pandas frame",
    "basic": "--illumination basic",
    "slurm": "phbatch submit --cluster slurm",
    "kubernetes": "phbatch submit --cluster kubernetes",
}
_NETWORK = "pip install 'phbatch[tensorflow]'"
_TRY = """
import json, sys, time
import numpy as np
import phbatch
from phbatch.network.device import describe_device
backend = sys.argv[1]
name, is_gpu = describe_device(backend)
started = time.perf_counter()
phbatch.restore(np.random.default_rng(0).normal(1000, 30, (1, 64, 64)).astype("uint16"), "tyx", backend=backend)
print(json.dumps({"name": name, "gpu": is_gpu, "seconds": time.perf_counter() - started}))
"""
"""Restores an image in a process of its own, which a broken driver may end."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
        What.
    state : {"ok", "missing", "broken"}
        ``"missing"`` is what runs do without.
    said : str
        What was found.
    remedy : str
        What to do, such as what to install; empty where nothing is.
    """

    name: str
    state: State
    said: str
    remedy: str = ""


@dataclass(frozen=True)
class DoctorReport:
    """What was looked at, in the order of the page."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """Of the command line: 0, or 3 where something is broken that a run needs."""
        return 3 if any(each.state == "broken" for each in self.findings) else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"exit_code": self.exit_code}


def doctor(folder: str | Path = ".") -> DoctorReport:
    """Look at what runs need: Python, backends, GPUs, codecs, stores, memory and a disk.

    Nothing stays on the disk. Each backend restores a small image in a process of its own.

    Parameters
    ----------
    folder : str or Path
        On the disk whose speed is measured, with 64 MB.

    Returns
    -------
    DoctorReport

    Raises
    ------
    OutputError
        The folder is none.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise OutputError(f"{place} is no folder; give one on the disk that outputs go to.")
    installed = installed_backends()
    with ThreadPoolExecutor(1) as pool:  # one after the other, while the rest is looked at
        tried = {backend: pool.submit(_try_backend, backend) for backend in installed}
        first = [_python(), *_packages(), *_gpus()]
        rest = [*_codecs(), *_stores(), *_extras(), _memory(), *_disk(place)]
        found = [
            _backend(backend, tried[backend].result(), first_choice=backend == installed[0]) for backend in installed
        ]
    if not installed:
        found = [Finding("network", "broken", "neither TensorFlow nor JAX is installed", _NETWORK)]
    return DoctorReport((*first, *_with_gpus(found, first), *rest))


def _python() -> Finding:
    said = f"{platform.python_version()} on {platform.system()} {platform.machine()}, phbatch {_version('phbatch')}"
    return Finding("Python", "ok", said)


def _packages() -> Iterator[Finding]:
    lacking = [name for name in _NEEDED if not _version(name)]
    if lacking:
        yield Finding("packages", "broken", f"{', '.join(lacking)} missing", f"pip install {' '.join(lacking)}")
        return
    yield Finding("packages", "ok", ", ".join(f"{name} {_version(name)}" for name in _NEEDED))


def _gpus() -> Iterator[Finding]:
    command = shutil.which("nvidia-smi")
    if command is None:
        yield Finding("GPU", "missing", "no driver of NVIDIA; networks compute on the cores")
        return
    query = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    try:
        listed = subprocess.run([command, *query], capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        yield Finding("GPU", "missing", f"nvidia-smi fails ({first_line(error)})", "mend the driver")
        return
    for number, line in enumerate(filter(None, map(str.strip, listed.splitlines()))):
        yield Finding(f"GPU {number}", "ok", f"{line} (driver)")


def _try_backend(backend: Backend) -> dict[str, Any]:
    """What a process says of restoring an image, or ``error``."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _TRY, backend], capture_output=True, text=True, timeout=_PATIENCE_S, env=environment
        )
    except (OSError, subprocess.SubprocessError) as error:
        return {"error": first_line(error)}
    with suppress(ValueError, IndexError):
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    said = [line for line in done.stderr.splitlines() if line.strip()]
    how = f"it was ended by signal {-done.returncode}" if done.returncode < 0 else ""
    return {"error": how or (said[-1] if said else f"exit code {done.returncode}")}


def _backend(backend: Backend, tried: dict[str, Any], *, first_choice: bool) -> Finding:
    said = f"{backend} {_version(backend)}"
    if "error" in tried:
        remedy = f"pip install --force-reinstall {backend}"
        state: State = "broken" if first_choice else "missing"
        return Finding(f"network with {backend}", state, f"{said} fails: {tried['error']}", remedy)
    where = f"on the GPU {tried['name']}" if tried["gpu"] else f"on the cores of {tried['name']}"
    return Finding(f"network with {backend}", "ok", f"{said} restores {where}, {tried['seconds']:.1f} s with its start")


def _with_gpus(backends: list[Finding], machine: list[Finding]) -> Iterator[Finding]:
    """The backends; of one that sees no GPU where there is one, what to install."""
    has_gpu = any(each.name.startswith("GPU ") for each in machine)
    for each in backends:
        if has_gpu and each.state == "ok" and "on the cores" in each.said:
            remedy = "pip install 'phbatch[cuda]'" if "tensorflow" in each.name else "pip install 'jax[cuda12]'"
            yield Finding(each.name, "missing", f"{each.said}; it does not see the GPU", remedy)
        else:
            yield each


def _codecs() -> Iterator[Finding]:
    names = [name for name in get_args(Codec) if name != "auto"]
    failed = {name: why for name in names if (why := try_codec(name))}
    if failed:
        name, why = next(iter(failed.items()))
        yield Finding("codecs", "broken", f"{name}: {why}", "pip install --force-reinstall numcodecs zarr zarrs")
    else:
        yield Finding("codecs", "ok", f"{', '.join(names)} write and read, zarrs reads")


def _stores() -> Iterator[Finding]:
    if _version("obstore"):
        yield Finding(
            "stores", "ok", f"disk, s3://, gs://, https:// by obstore {_version('obstore')}, others by fsspec"
        )
    else:
        yield Finding(
            "stores", "missing", "disk, and others by fsspec", "pip install 'phbatch[s3]' for s3://, gs://, https://"
        )


def _extras() -> Iterator[Finding]:
    for extra, modules in _EXTRAS.items():
        lacking = [name for name in modules if find_spec(name) is None]
        if lacking:
            yield Finding(
                _FOR[extra], "missing", f"{', '.join(lacking)} not installed", f"pip install 'phbatch[{extra}]'"
            )


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    said = f"{format_bytes(memory.available)} free of {format_bytes(memory.total)}, {os.cpu_count()} cores"
    if memory.available < _LEAST_BYTES:
        return Finding("memory", "missing", said, "close other programs; the network alone takes 1 GB")
    return Finding("memory", "ok", said)


def _disk(folder: Path) -> Iterator[Finding]:
    try:
        with TemporaryDirectory(prefix=".phbatch-doctor-", dir=folder) as scratch:
            written, read = measure_disk(Path(scratch) / "x")
    except OSError as error:
        yield Finding(
            "disk", "missing", f"{folder.absolute()} cannot be written ({first_line(error)})", "give a folder of yours"
        )
        return
    free = format_bytes(shutil.disk_usage(folder).free)
    said = f"{folder.absolute()}: writes {written / 1e6:.0f} MB/s, reads {read / 1e6:.0f} MB/s, {free} free"
    yield Finding("disk", "ok", said)


def measure_disk(path: Path, clock: Callable[[], float] = perf_counter) -> tuple[float, float]:
    """Bytes per second that are written durably into a new file, and read from it; at most some seconds."""
    block, size = np.random.default_rng(0).bytes(1 << 20), 0
    started = clock()
    with path.open("wb", buffering=0) as file:
        while size < _DISK_BYTES and clock() - started < _DISK_S:
            size += file.write(block)
        os.fsync(file.fileno())
    written = size / max(clock() - started, 1e-9)
    started = clock()
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):  # else it comes from memory
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(1 << 20):
            pass
    return written, size / max(clock() - started, 1e-9)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
