"""Neither a home folder, the current folder, nor what they lie in becomes an output."""

from __future__ import annotations

from pathlib import Path

import pytest

import phbatch
from phbatch.outputs.image import require_place
from phbatch.places.place import Place
from phbatch.words.errors import OutputError
from tests.faults.inputs import make_input


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, in which the shell is; nothing here ever looks at the real one."""
    home = tmp_path / "users" / "me"
    (home / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home / "work")
    return home


@pytest.mark.parametrize("output", [".", "..", "~", "~/work", "../.."])
def test_a_folder_that_is_lived_in_is_refused(home: Path, tmp_path: Path, output: str) -> None:
    source = make_input(tmp_path / "in.zarr", (2, 20, 20), (1, 20, 20))
    for overwrite in (False, True):
        for call in (phbatch.plan, phbatch.run):
            with pytest.raises(OutputError, match=r"home folder|current folder|not an output"):
                call(source, output, model="none", overwrite=overwrite)
    assert sorted(path.name for path in home.rglob("*")) == ["work"]


def test_the_root_of_the_disk_is_refused_without_looking_at_it() -> None:
    with pytest.raises(OutputError, match="home folder"):
        require_place(Place.at("/"))


def test_a_folder_in_the_home_is_an_output_and_can_be_continued_from_inside(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_input(tmp_path / "in.zarr", (2, 20, 20), (1, 20, 20))
    output = Path(phbatch.run(source, "out.zarr", model="none").output)
    assert output == home / "work" / "out.zarr"
    monkeypatch.chdir(output)
    assert phbatch.run(source, ".", model="none").units_skipped == 1
    assert phbatch.repair(".").units_done == 0
    with pytest.raises(OutputError, match="current folder"):
        phbatch.run(source, ".", model="none", overwrite=True)
