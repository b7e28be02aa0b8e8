"""What the network runs on: the device that a backend finds in this process."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from phbatch.network.backend import may_spare_keras, select_backend, select_jax
from phbatch.network.unet import NetworkConfig
from phbatch.words.choices import Backend
from phbatch.words.errors import UsageError

_MATRIX_UNITS = (7, 0)  # compute capability of NVIDIA's first GPUs that have them
_LISTING_S = 30.0
_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")  # of NVIDIA, AMD, and within Windows
_ASSUMED_BYTES = 8 << 30
_ELEMENTS = (1 << 31) - 1


@dataclass(frozen=True)
class Device:
    """What the network runs on.

    Attributes
    ----------
    name : str
        With the number of cores of a CPU.
    on_gpu : bool
        Whether it is a GPU, or another accelerator.
    matrix_units : bool
        Whether it multiplies matrices of 16 bit floats in units of their own, as GPUs since 2017 do.
    memory_bytes : int or None
        That a process may take of a GPU's memory; None for a CPU, and where nobody says.
    """

    name: str
    on_gpu: bool
    matrix_units: bool = False
    memory_bytes: int | None = None


def tile_room(config: NetworkConfig, device: Device, batch: int) -> int:
    """Pixels of the largest tile for a GPU: its tensors take half of its memory, and none has 2^31 elements.

    Larger tensors end the process within cuDNN. Where nobody says how much memory it has, 8 GB are assumed; a batch
    that does not fit is halved (`phbatch.network.predictor.Predictor`).

    Examples
    --------
    >>> config = NetworkConfig(2, 1, 1, 2, 5, 32, True, "linear", False)
    >>> [tile_room(config, Device("a card", True, memory_bytes=gigabytes << 30), 1) for gigabytes in (8, 80)]
    [4971026, 33554431]
    """
    memory = device.memory_bytes or _ASSUMED_BYTES
    return min(memory // 2 // config.workspace_bytes_per_pixel, _ELEMENTS // (2 * config.n_first)) // batch


def find_gpu(backend: Backend) -> Device | None:
    """The GPU that the network would run on in this process; None, at no cost, where the system has none."""
    if not _may_have_gpu():
        return None
    with suppress(UsageError):  # of a backend that is not installed, which is said where it is needed
        device = find_device(backend)
        return device if device.on_gpu else None
    return None


def _may_have_gpu() -> bool:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    return not hidden and any(map(os.path.exists, _GPU_FILES))


@cache
def find_device(backend: Backend) -> Device:
    """The first GPU that a backend sees, else the CPU."""
    if not may_spare_keras(backend):
        select_backend(backend)
        found = _find_with_tensorflow() if backend == "tensorflow" else _find_with_jax()
    elif backend == "jax":
        select_jax()
        found = _find_with_jax()
    elif on_cores_alone():
        found = None
    else:
        select_backend(backend)
        found = _find_with_tensorflow()
    return found or Device(f"{_processor_name()}, {_count_cores()} cores", False)


def on_cores_alone() -> bool:
    """Whether TensorFlow need not be asked to know that it computes on the cores: of Linux alone that much is known."""
    package = find_spec("tensorflow")
    folder = Path(package.origin).parents[1] if package is not None and package.origin is not None else Path()
    plugins = folder.joinpath("tensorflow-plugins").exists()
    return sys.platform == "linux" and not _may_have_gpu() and not plugins


def describe_device(backend: Backend) -> tuple[str, bool]:
    """Name of what the network runs on, with the number of cores of a CPU, and whether it is a GPU."""
    device = find_device(backend)
    return device.name, device.on_gpu


def _find_with_tensorflow() -> Device | None:
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return None
    details = tf.config.experimental.get_device_details(devices[0])
    name, capability = str(details.get("device_name", "GPU")), details.get("compute_capability", (0, 0))
    return Device(name, True, tuple(capability) >= _MATRIX_UNITS, _listed_memory())


def _find_with_jax() -> Device | None:
    import jax

    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return None
    version = str(getattr(device, "compute_capability", ""))
    numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
    limit = (device.memory_stats() or {}).get("bytes_limit")
    # A capability that is no number is of another maker's accelerator, which has them.
    return Device(str(device.device_kind), True, not numbers or numbers >= _MATRIX_UNITS, limit or _listed_memory())


def _listed_memory() -> int | None:
    """Memory of the smallest GPU that the driver lists; None where it lists none."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    try:
        found = subprocess.run(  # noqa: S603
            [command, "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_LISTING_S,
            check=True,
        )
        return min((int(line) for line in found.stdout.split()), default=0) << 20 or None
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _processor_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
