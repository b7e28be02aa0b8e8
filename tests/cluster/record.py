"""Records the session of docs/howto/slurm.md again, from the real SLURM: ``python -m tests.cluster.record``.

Every ``$ command`` of the page's blocks that name this file is run, one after another in one folder, and what it prints
replaces what stands under it. The folder's path is written as ``/scratch/lab``, and nothing else is changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr

import phbatch
from phbatch.simulate import PhaseContrast
from phbatch.tools.simulated import write_time_lapse
from tests.cluster.slurm import SlurmCluster, slurm_cluster, why_not

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "howto" / "slurm.md"
SHOWN = "/scratch/lab"
PATIENCE_S = 600.0

_MARK = r"<!-- not run: recorded by tests/cluster/record\.py(?:, once (?P<done>\d+) units are done)? -->"
_BLOCK = re.compile(rf"(?P<head>{_MARK}\n```console\n)(?P<text>.*?)(?=^```$)", re.M | re.S)
_PROFILE = re.compile(r"^```toml\n(?P<text>.*?)^```$", re.M | re.S)


def record(page: str, folder: Path, cluster: SlurmCluster) -> str:
    """The page with what its commands print now."""
    commands, output = folder / "bin", folder / "restored.zarr"
    commands.mkdir()
    (commands / "phbatch").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m phbatch "$@"\n')
    (commands / "phbatch").chmod(0o755)
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    environment = cluster.environment | {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "110"}

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        lines = [line.rstrip() for line in done.stdout.splitlines()]
        return "\n".join(lines).replace(str(folder), SHOWN).replace(sys.executable, "/opt/env/bin/python")

    def again(block: re.Match[str]) -> str:
        least = int(block["done"] or 0)
        cluster.wait(lambda: not least or phbatch.status(output).done >= least, PATIENCE_S, block["head"])
        given = [line[2:] for line in block["text"].splitlines() if line.startswith("$ ")]
        return block["head"] + "".join(
            f"$ {command}\n{text}\n" if (text := run(command)) else f"$ {command}\n" for command in given
        )

    return _BLOCK.sub(again, page)


def write_input(path: Path) -> None:
    """Frames that are simulated once and repeated."""
    small = path.with_name("small.zarr")
    write_time_lapse(str(small), PhaseContrast(shape=(256, 256), n_frames=3, seed=1))
    frames = np.tile(zarr.open_array(str(small / "0"), mode="r")[:], (13, 4, 4))
    zarr.create_array(path, data=frames, chunks=(1, 1024, 1024), dimension_names=("t", "y", "x"))
    shutil.rmtree(small)


def main() -> None:
    """Write the page anew."""
    if reason := why_not():
        raise SystemExit(reason)
    page = PAGE.read_text(encoding="utf-8")
    folder = Path(tempfile.mkdtemp(prefix="phbatch-"))
    try:
        write_input(folder / "noisy.zarr")
        profile = _PROFILE.search(page)
        assert profile is not None
        text = 'interface = "lo"\n' + profile["text"]  # which one machine alone needs
        (folder / "lab.toml").write_text(text)
        with slurm_cluster(folder / "slurm") as cluster:
            PAGE.write_text(record(page, folder, cluster), encoding="utf-8")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
