"""Completion of commands, options, their values and paths, in the shells that are there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class

from phbatch.shell.commands import cli
from phbatch.shell.doctor_commands import PROGRAM, SHELLS, VARIABLE, know_places
from tests.handmade import CommandLine


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "found", "kind"),
    [
        (["verif"], {"verify"}, "plain"),
        (["run", "--upscale"], {"--upscale-back"}, "plain"),
        (["run", "--codec", "z"], {"zstd"}, "plain"),
        (["run", "no"], {"no"}, "file"),
        (["run", "--config", "x"], {"x"}, "file"),
        (["completion", "f"], {"fish"}, "plain"),
    ],
    ids=str,
)
def test_what_is_completed(shell: str, words: list[str], found: set[str], kind: str) -> None:
    know_places(cli)
    *before, last = words
    complete = get_completion_class(shell)(cli, {}, PROGRAM, VARIABLE)
    items = complete.get_completions(before, last)
    assert {item.value for item in items} == found
    assert {item.type for item in items} == {kind}


SCRIPTS = {
    "bash": """
source "$1"
COMP_WORDS=(phbatch verif); COMP_CWORD=1
_phbatch_completion phbatch
printf '%s\\n' "${COMPREPLY[@]}"
""",
    "zsh": """
compdef() { :; }
compadd() { print -rl -- "$@"; }
_describe() { print -rl -- ${(P)@[-1]} ${(P)@[-2]} ${(P)@[2]}; }
words=(phbatch verif); CURRENT=2
source "$1"
_phbatch_completion
""",
    "fish": """
source $argv[1]
complete --do-complete 'phbatch verif'
""",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_works_in_its_shell(shell: str, tmp_path: Path, phbatch_command: CommandLine) -> None:
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"{shell} is not installed")
    assert phbatch_command("completion", shell) == 0
    (tmp_path / "script").write_text(phbatch_command.out)
    command = tmp_path / "phbatch"
    call = "from phbatch.shell.commands import main; main()"
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{call}' \"$@\"\n")
    command.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    (tmp_path / "try").write_text(SCRIPTS[shell])
    done = subprocess.run(
        [program, tmp_path / "try", tmp_path / "script"], capture_output=True, text=True, env=environment, check=False
    )
    assert "verify" in done.stdout.replace(":", " ").split(), done.stdout + done.stderr
