"""The real SLURM, started once a session where it is installed; a small run with a network, of a unit a frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phbatch.planning import units
from tests.cluster import FRAMES
from tests.cluster.slurm import SlurmCluster, slurm_cluster, why_not
from tests.faults.inputs import make_input
from tests.models import Case, make_model


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """SLURM on loopback with three nodes of four cores and two devices; ``SLURM_CONF`` points to it."""
    if reason := why_not():
        pytest.skip(reason)
    folder: Path = tmp_path_factory.mktemp("slurm")
    with slurm_cluster(folder) as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(cluster.configuration))
        yield cluster


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """An input, and the options of all runs of it."""
    folder = tmp_path_factory.mktemp("plain")
    make_model(folder / "model", Case(depth=1))
    source = make_input(folder / "in.zarr", (FRAMES, 48, 40), (1, 48, 40))
    options = {"model": folder / "model", "precision": "float32", "network": "plain", "command": "same"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "_UNIT_PIXELS", 1)  # each frame is a unit
        yield source, options | {"tile": 48, "batch": 1}
