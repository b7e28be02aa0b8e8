"""A kill of each layout; `make soak` tries a hundred."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.inputs import LAYOUTS
from tests.faults.kills import WORKERS, Victims


@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_runs_end_as_if_they_were_not(tmp_path: Path, layout: str) -> None:
    victims, draw = Victims(tmp_path, layout), random.Random(layout)
    killed = victims.kill(draw)
    assert killed.repeated <= killed.kills * (
        2 * WORKERS + 1
    )  # computing, or waiting for the disk, and one that waits for its commit
