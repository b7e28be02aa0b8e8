"""What of an installation works: each finding on a machine where it is otherwise, and the command's words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import phbatch
from phbatch.places import compressor
from phbatch.tools import doctor as looking
from tests.handmade import CommandLine


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No backend is started, and the disk is measured with little."""
    monkeypatch.setattr(looking, "_DISK_BYTES", 1 << 20)
    monkeypatch.setattr(looking, "_try_backend", lambda _: {"name": "a CPU, 2 cores", "gpu": False, "seconds": 1.0})


def findings(report: phbatch.DoctorReport) -> dict[str, phbatch.Finding]:
    return {each.name: each for each in report.findings}


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    folder.mkdir()
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.usefixtures("quick")
def test_what_works_is_said_and_nothing_is_left(
    tmp_path: Path, phbatch_command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert phbatch_command("doctor", tmp_path) == 0
    for part in (
        "ok     Python",
        "network with tensorflow",
        "blosc-lz4, blosc-zstd, zstd, none write",
        "runs work here",
    ):
        assert part in phbatch_command.out
    assert max(map(len, phbatch_command.out.splitlines())) <= 120
    assert phbatch_command("doctor", tmp_path, "--json") == 0
    found = {each["name"]: each for each in json.loads(phbatch_command.out)["findings"]}
    assert found["GPU"]["state"] == "missing"
    assert found["disk"]["said"].startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert phbatch_command("doctor", tmp_path / "nowhere") == 3
    assert "is no folder" in phbatch_command.err


@pytest.mark.usefixtures("quick")
def test_a_gpu_that_the_backend_does_not_see_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path / "bin", monkeypatch, "echo 'NVIDIA H200, 143771 MiB, 550.54'")
    found = findings(phbatch.doctor(tmp_path))
    assert found["GPU 0"].said == "NVIDIA H200, 143771 MiB, 550.54 (driver)"
    assert found["network with tensorflow"].remedy == "pip install 'phbatch[cuda]'"


@pytest.mark.usefixtures("quick")
def test_what_is_broken_fails_and_what_is_missing_does_not(
    tmp_path: Path, phbatch_command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path / "bin", monkeypatch, "exit 9")
    monkeypatch.setattr(looking, "_try_backend", lambda backend: {"error": f"no {backend}"})
    monkeypatch.setattr(looking, "find_spec", lambda name: None if name in ("kr8s", "jax") else name)
    monkeypatch.setattr(compressor, "make_compressor", lambda *_: 1 / 0)
    found = findings(phbatch.doctor(tmp_path))
    assert (found["GPU"].state, found["GPU"].remedy) == ("missing", "mend the driver")
    assert found["network with tensorflow"].state == found["codecs"].state == "broken"
    assert found["phbatch submit --cluster kubernetes"].remedy == "pip install 'phbatch[kubernetes]'"
    assert phbatch_command("doctor", tmp_path) == 3
    assert "broken: network with tensorflow, codecs" in phbatch_command.out


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "it was ended by signal 9"),
        ("raise OSError('libcudart is not there')", "OSError: libcudart is not there"),
        ("print('{\"gpu\": true}')", None),
    ],
)
def test_a_backend_that_ends_its_process_ends_no_other(
    monkeypatch: pytest.MonkeyPatch, script: str, said: str | None
) -> None:
    monkeypatch.setattr(looking, "_TRY", script)
    assert looking._try_backend("tensorflow") == ({"error": said} if said else {"gpu": True})
