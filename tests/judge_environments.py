"""Environments of readers that do not install beside phbatch: `make judges`.

    python -m tests.judge_environments [--folder build/judges] [--python python3.13]

ome-zarr and ome-zarr-models ask for another pydantic, bioio-ome-zarr for an older botocore, napari brings a desktop,
and an iohub that reads OME-Zarr 0.5 wants Python 3.12 or newer.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = {
    "ome-zarr": ["ome-zarr"],
    "ome-zarr-models": ["ome-zarr-models"],
    "bioio": ["bioio", "bioio-ome-zarr"],
    "napari-ome-zarr": ["napari-ome-zarr", "napari"],
    "iohub": ["iohub>=0.3"],
}
"""What each installs, by its name in `tests/judge.py`."""


def main() -> None:
    """Make those that are not there yet, and say which cannot be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent.parent / "build/judges")
    parser.add_argument("--python", default=sys.executable)
    asked = parser.parse_args()
    uv = [sys.executable, "-m", "uv"]
    for name, packages in REQUIREMENTS.items():
        place = asked.folder / name
        if (place / "ready").exists():
            continue
        venv = [*uv, "venv", "--quiet", "--clear", "--python", asked.python, str(place)]
        install = [*uv, "pip", "install", "--quiet", "--python", str(place / "bin/python"), *packages]
        done = all(subprocess.run(command, check=False).returncode == 0 for command in (venv, install))
        if done:
            (place / "ready").touch()
        print(f"{name}: {'ready' if done else 'cannot be installed here'}")


if __name__ == "__main__":
    main()
