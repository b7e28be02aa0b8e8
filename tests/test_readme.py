"""What the README shows is run: its Python blocks and its console lines."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

import phbatch
from phbatch.shell import commands as cli
from phbatch.tools.demo import write_time_lapse
from phbatch.words.settings import SETTINGS

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def folder_with_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_time_lapse("noisy.zarr", phbatch.PhaseContrast(shape=(96, 90), n_frames=4, seed=3))
    return tmp_path


def test_python_blocks(folder_with_frames: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = blocks("python")
    assert len(found) >= 2
    for block in found:
        exec(compile(block, "README.md", "exec"), {})
    assert "4 {}" in capsys.readouterr().out


def test_console_blocks(folder_with_frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    assert len(lines) >= 6
    for line in lines:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0, line


def test_every_option_of_run_is_a_setting_and_every_setting_an_option() -> None:
    options = {parameter.name for parameter in cli.run.params} - {
        "input",
        "output",
        "config",
        "as_json",
        "debug",
        "profile",
        "quiet",
    }
    assert options == SETTINGS.keys()
