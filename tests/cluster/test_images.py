"""The image for CPUs, built for real: minutes, and only where ``PHBATCH_IMAGES`` is set and buildah can.

No registry of images is asked for. The base is Debian's own Python, made by debootstrap.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
STORE = ["--storage-driver", "vfs"]
LONG_S = 1800.0


class Store:
    """Images and containers in a folder of their own.

    Parameters
    ----------
    folder : Path
        Holds all of it.
    """

    def __init__(self, folder: Path) -> None:
        self.places = ["--root", str(folder / "root"), "--runroot", str(folder / "run"), *STORE]

    def ask(self, command: str, *arguments: object) -> str:
        """What buildah prints."""
        line = ["buildah", command, *self.places, *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=LONG_S)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout.strip()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """With ``base``, a Debian that has Python."""
    if "PHBATCH_IMAGES" not in os.environ:
        pytest.skip("it takes minutes: set PHBATCH_IMAGES=1")
    for program in ("buildah", "debootstrap"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt-get install buildah debootstrap")
    folder = tmp_path_factory.mktemp("images")
    debian = folder / "debian"
    packages = "--include=python3,python3-venv,ca-certificates"
    subprocess.run(["debootstrap", "--variant=minbase", packages, "bookworm", debian], check=True, timeout=LONG_S)
    found = Store(folder)
    container = found.ask("from", "scratch")
    found.ask("copy", "--quiet", container, debian, "/")
    found.ask("commit", "--quiet", container, "base")
    found.ask("rm", container)
    shutil.rmtree(debian)
    yield found
    shutil.rmtree(folder)


def test_the_image_for_cpus_is_built_and_runs_as_nobody(store: Store, tmp_path: Path) -> None:
    place = ROOT / "deploy" / "docker"
    build = ["--isolation", "chroot", "--layers=false", "--build-arg", "BASE=localhost/base", *wheels(place, tmp_path)]
    file = place / "Dockerfile"
    store.ask("build", *build, "--ignorefile", f"{file}.dockerignore", "--file", file, "--tag", "phbatch", ROOT)
    container = store.ask("from", "localhost/phbatch")
    run = ["--isolation", "chroot", container, "--"]
    assert store.ask("run", *run, "id", "-u") == "1000"
    assert "phbatch" in store.ask("run", *run, "phbatch", "--version")
    assert "PSNR" in store.ask("run", *run, "phbatch", "demo", "--quiet", "/tmp/demo")
    assert "--workers" in store.ask("run", *run, "phbatch", "submit", "--help")
    store.ask("run", *run, "dask", "worker", "--version")
    assert store.ask("run", *run, "sh", "-c", "touch /opt/phbatch/a 2>/dev/null || echo refused") == "refused"


def wheels(place: Path, folder: Path) -> list[str]:
    """The locked wheels, fetched by pip of this machine, as all that the build's own pip may install from."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("Debian's Python is 3.11, and the wheels are fetched with this one")
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    for name in ("build", "cpu"):
        lock = ["--requirement", place / f"requirements-{name}.txt"]
        subprocess.run([*fetch, "--dest", folder / "wheels", *lock], check=True, timeout=LONG_S)
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /mnt/wheels\n")
    return ["--volume", f"{folder}/wheels:/mnt/wheels:ro", "--volume", f"{folder}/pip.conf:/etc/pip.conf:ro"]
