"""Write what the images hold: every wheel with its version and its checksum, one a line.

``python deploy/docker/lock.py`` asks pip what it would install on this machine, which is to be Linux on x86-64 with the
Python of the images, and writes ``requirements-cpu.txt``, ``requirements-cuda.txt`` and ``requirements-build.txt``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WANTED = {
    "build": ["hatchling"],
    "cpu": [f"{ROOT}[s3,gcs,parquet,tensorflow]"],
    "cuda": [f"{ROOT}[s3,gcs,parquet,cuda]"],
}


def wheels(requirements: list[str]) -> list[str]:
    """One line for each wheel that pip would install for these requirements, phbatch itself left out."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
        subprocess.run([*pip, "--only-binary", ":all:", "--report", str(report), *requirements], check=True)  # noqa: S603
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return sorted(
        f"{wheel['metadata']['name'].lower()}=={wheel['metadata']['version']}"
        f" --hash=sha256:{wheel['download_info']['archive_info']['hashes']['sha256']}"
        for wheel in found
        if "archive_info" in wheel["download_info"]
    )


if __name__ == "__main__":
    for name in sys.argv[1:] or WANTED:
        lines = ["# Made by deploy/docker/lock.py, for Linux on x86-64.", *wheels(WANTED[name])]
        (HERE / f"requirements-{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
