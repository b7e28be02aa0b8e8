"""What README and the pages show is run: Python and console blocks, page by page, in their order.

A page's Python blocks share their names. What needs a cluster, a store or another shell is a block of ``sh``, or has
the comment ``<!-- not run: why -->`` before it.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

import phbatch
from phbatch.shell import commands as cli
from phbatch.tools import info
from phbatch.tools.simulated import write_time_lapse
from tests.pages import NAMES, PAGES, ROOT, SETTING_NAMES, Block, blocks

RUN = ("python", "console")
SHOWN = [name for page, name in zip(PAGES, NAMES, strict=True) if any(block.language in RUN for block in blocks(page))]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The time-lapse that pages take for granted."""
    folder = tmp_path_factory.mktemp("pages") / "noisy.zarr"
    write_time_lapse(str(folder), phbatch.PhaseContrast(shape=(96, 90), n_frames=4, seed=3))
    return folder


@pytest.mark.parametrize("name", SHOWN)
def test_what_a_page_shows_is_run(
    name: str, noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(info, "_BENCHMARK_TILES", {2: (64, 64), 3: (8, 32, 32)})  # its numbers are not shown
    shown = [block for block in blocks(ROOT / name) if block.language in RUN and block.why is None]
    if not any('write_time_lapse("noisy.zarr"' in block.text for block in shown):
        shutil.copytree(noisy, "noisy.zarr")
    names: dict[str, object] = {"__name__": name}
    for block in shown:
        if block.language == "python":
            exec(compile(block.text, name, "exec"), names)
        else:
            run_console(block, monkeypatch)
    if name == "README.md":
        assert "4 {}" in capsys.readouterr().out


def run_console(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
    assert lines
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "phbatch", f"{line} is no command of phbatch: make the block one of sh"
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0, line


def test_most_pages_show_something_that_is_run() -> None:
    assert {"README.md", "docs/tutorial/first-time-lapse.md", "docs/howto/embed-in-python.md"} <= set(SHOWN)
    assert len(SHOWN) >= 12


def test_toml_and_json_can_be_read() -> None:
    shown = [block for page in PAGES for block in blocks(page)]
    for block in shown:
        if block.language == "toml":
            tomllib.loads(block.text)
        if block.language == "json":
            json.loads(block.text)
    assert {"toml", "json"} <= {block.language for block in shown}


def test_every_option_of_run_is_a_setting_and_every_setting_an_option() -> None:
    options = {parameter.name for parameter in cli.run.params} - {
        "input",
        "output",
        "config",
        "as_json",
        "debug",
        "profile",
        "quiet",
        "with_report",
    }
    assert options == SETTING_NAMES
