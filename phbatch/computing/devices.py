"""GPUs: those of this machine, the workers of a cluster that have one, and which of them a task may go to."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from itertools import takewhile
from typing import Any

from phbatch.network.device import describe_device
from phbatch.words.choices import Backend
from phbatch.words.errors import UsageError
from phbatch.words.settings import RunSettings

DEVICE = "GPU"
"""What workers with a GPU declare (``dask worker --resources GPU=1``): networks compute there, and only there."""

DEVICE_SHARE = 1 / 64
"""Of a device, what a unit asks Dask for; exact in binary.

Dask holds a resource until a task ends, and so while it writes: with a whole one the device would idle meanwhile. Units
of one process take turns at its network (`phbatch.network.predictor.Predictor`) while others are read, encoded or
written. Somebody else's task that asks for a whole device still waits for ours, and ours for it.
"""


def declares_device(worker: Mapping[str, Any]) -> bool:
    """Whether a worker declares a device, or as much of one as a unit asks for.

    Examples
    --------
    >>> declares_device({"resources": {"GPU": 1.0}}), declares_device({"resources": {"GPU": 0.0}}), declares_device({})
    (True, False, False)
    """
    return bool((worker.get("resources") or {}).get(DEVICE, 0) >= DEVICE_SHARE)


class Kind(Enum):
    """Which workers a task is for, in a cluster of which some may have devices."""

    ANY = "any"
    """All compute the network, since none has a device."""
    WITH_DEVICE = "with a device"
    """The network was settled on a device: nobody else computes it in silence, ten times as long."""
    SPARE = "without a device first"
    """What needs no network is for those without a device, as long as there are any."""

    @classmethod
    def choose(cls, *, network: bool, devices: bool) -> Kind:
        """Of a task, by whether it computes a network, and whether there are devices."""
        if not network:
            return cls.SPARE
        return cls.WITH_DEVICE if devices else cls.ANY

    def of(self, threads: Mapping[str, int], devices: Collection[str]) -> Mapping[str, int]:
        """Those of some workers that are of this kind.

        Examples
        --------
        >>> workers = {"cpu": 8, "gpu": 2}
        >>> Kind.WITH_DEVICE.of(workers, {"gpu"}), Kind.SPARE.of(workers, {"gpu"}), Kind.ANY.of(workers, {"gpu"})
        ({'gpu': 2}, {'cpu': 8}, {'cpu': 8, 'gpu': 2})
        >>> Kind.WITH_DEVICE.of({"cpu": 8}, ()), Kind.SPARE.of({"gpu": 2}, {"gpu"})
        ({}, {'gpu': 2})
        """
        if self is Kind.ANY:
            return threads
        fitting = {each: count for each, count in threads.items() if (each in devices) == (self is Kind.WITH_DEVICE)}
        return threads if self is Kind.SPARE and not fitting else fitting


_VISIBLE = "CUDA_VISIBLE_DEVICES"
_LISTING = ("--query-gpu=index", "--format=csv,noheader")
_LISTING_S = 30.0


def visible_devices() -> tuple[str, ...]:
    """Names of the GPUs that processes of this machine may use: those of the environment, else all that are listed."""
    named = os.environ.get(_VISIBLE)
    if named is not None:  # what follows an index that is none is not visible either
        return tuple(takewhile(lambda name: name and name != "-1", (name.strip() for name in named.split(","))))
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    try:
        found = subprocess.run([command, *_LISTING], capture_output=True, text=True, timeout=_LISTING_S, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):  # no driver, or one that hangs
        return ()
    return tuple(line.strip() for line in found.stdout.splitlines() if line.strip())


def environment_of(device: str) -> dict[str, str]:
    """What a process must be started with to see one device alone, by the number that `visible_devices` gives it."""
    numbered_by_bus = {} if _VISIBLE in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return numbered_by_bus | {_VISIBLE: device}


def sees_device(backend: Backend) -> bool:
    """Whether the network would run on a GPU in this process."""
    return describe_device(backend)[1]


def choose_devices(settings: RunSettings, *places: str, may_leave: bool = True) -> tuple[str, ...]:
    """Devices that get a process each; none where this process computes itself, which has the first one at most.

    Parameters
    ----------
    settings : RunSettings
        Of a run, its scheduler among them.
    *places : str
        Its input and output: what lies in the memory of this process, others do not see.
    may_leave : bool
        Whether it may compute in other processes at all.

    Raises
    ------
    UsageError
        Devices are named, and one is not visible, or the run goes elsewhere.
    """
    if settings.model == "none":
        return ()
    if settings.scheduler is not None or not may_leave or any(place.startswith("memory:") for place in places):
        if settings.devices is not None:
            raise UsageError(
                f"--devices={','.join(settings.devices)} starts processes, which this run cannot use: it goes to a Dask"
                " cluster, is part of a task, is kept here by Dask, or is of an image in memory; leave it out."
            )
        return ()
    visible = visible_devices()
    unknown = [name for name in settings.devices or () if name not in visible]
    if settings.devices is not None and unknown:
        known = (
            f"the GPUs that are visible are {', '.join(visible)}; choose of these" if visible else "no GPU is visible"
        )
        remedy = ", or leave it out" if visible else "; leave it out"
        raise UsageError(f"--devices {','.join(settings.devices)} names {unknown[0]}, and {known}{remedy}.")
    return (settings.devices or visible) if len(visible) > 1 else ()


def name_devices(devices: Sequence[str]) -> str:
    """What is said of devices that get a process each.

    Examples
    --------
    >>> name_devices(["0", "1"])
    'devices: 0, 1, with a process each'
    """
    return f"devices: {', '.join(devices)}, with a process each"
