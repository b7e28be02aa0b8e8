"""Nothing that no run wrote is ever removed, and nothing is put into a folder that is no output."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest

import phbatch
from phbatch.places.lock import LOCK
from phbatch.places.place import FsspecPlace
from phbatch.words.errors import OutputError, PhbatchError
from tests.faults.inputs import files, make_input
from tests.handmade import CommandLine


@pytest.fixture
def source(tmp_path: Path) -> str:
    return str(make_input(tmp_path / "in.zarr", (2, 20, 20), (1, 20, 20)))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of somebody's, with names that runs use among them."""
    folder = tmp_path / "mine"
    for name in ("thesis.docx", "0/raw.tif", "photos/1.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
    return folder


@pytest.mark.parametrize("command", ["repair", "verify", "info"])
def test_looking_after_a_foreign_folder_leaves_it_alone(
    phbatch_command: CommandLine, mine: Path, tmp_path: Path, command: str
) -> None:
    before, empty = files(mine), tmp_path / "empty"
    empty.mkdir()
    for folder in (mine, empty, tmp_path / "nowhere"):
        assert phbatch_command(command, folder) == 3
        assert "unexpected" not in phbatch_command.err
    assert files(mine) == before
    assert list(empty.iterdir()) == []
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("marks", [(), (LOCK,), (LOCK, ".phbatch/ledger/000001-a.jsonl"), (LOCK, ".phbatch/zarr.json")])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_folder_is_refused_as_an_output_however_it_is_marked(
    source: str, mine: Path, marks: tuple[str, ...], overwrite: bool
) -> None:
    for mark in marks:  # as earlier versions of `repair` left them
        (mine / mark).parent.mkdir(parents=True, exist_ok=True)
        (mine / mark).write_text("")
    before = files(mine)
    with pytest.raises(PhbatchError):
        phbatch.repair(mine)
    for call in (phbatch.plan, phbatch.run):
        with pytest.raises(OutputError):
            call(source, mine, model="none", overwrite=overwrite)
    assert files(mine) == before


def test_folders_named_like_levels_are_no_output_that_was_half_removed(source: str, tmp_path: Path) -> None:
    for name in ("0/raw.tif", "1/raw.tif", LOCK):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text("precious")
    with pytest.raises(OutputError, match="not an output"):
        phbatch.run(source, tmp_path / "mine", model="none", overwrite=True)
    assert (tmp_path / "mine" / "1" / "raw.tif").read_text() == "precious"


def test_an_output_with_something_else_in_it_is_continued_but_not_replaced(source: str, tmp_path: Path) -> None:
    output = Path(phbatch.run(source, tmp_path / "out.zarr", model="none").output)
    (output / "labels").mkdir()
    (output / "labels" / "cells.txt").write_text("by hand")
    (output / ".DS_Store").write_text("")
    before = files(output)
    assert phbatch.run(source, output, model="none").units_skipped == 1
    for call in (phbatch.plan, phbatch.run):
        with pytest.raises(OutputError, match=r"labels.*move that away"):
            call(source, output, model="none", sigma=3, overwrite=True)
    assert files(output) == before
    (output / "labels").rename(tmp_path / "labels")
    assert phbatch.run(source, output, model="none", sigma=3, overwrite=True).units_done == 1
    assert (output / ".DS_Store").exists()


def test_objects_of_somebody_else_are_not_removed(source: str, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/out.zarr"
    phbatch.run(source, url, model="none")
    store = fsspec.filesystem("memory")
    store.pipe_file(f"{url}/labels/cells.txt", b"by hand")
    before = store.find(url)
    with pytest.raises(OutputError, match="labels"):
        phbatch.run(source, url, model="none", sigma=3, overwrite=True)
    assert store.find(url) == before
    other = f"memory://{tmp_path.name}/mine"
    for name in ("thesis.docx", LOCK):
        store.pipe_file(f"{other}/{name}", b"{}")
    for attempt in (lambda: phbatch.repair(other), lambda: phbatch.run(source, other, model="none", overwrite=True)):
        with pytest.raises(OutputError):
            attempt()
    assert len(store.find(other)) == 2


@pytest.mark.parametrize("make", [lambda folder: folder, lambda folder: folder / "0", lambda folder: folder.parent])
def test_the_input_and_what_it_lies_in_or_holds_are_no_output(
    source: str, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    before, folder = files(Path(source)), make(Path(source))
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="input"):
            phbatch.run(source, folder, model="none", overwrite=overwrite)
    assert files(Path(source)) == before


def test_an_input_behind_a_link_is_no_output(source: str, tmp_path: Path) -> None:
    (tmp_path / "link.zarr").symlink_to(source)
    before = files(Path(source))
    for given, output in ((source, tmp_path / "link.zarr"), (tmp_path / "link.zarr", source)):
        with pytest.raises(OutputError, match="input"):
            phbatch.run(given, output, model="none", overwrite=True)
    assert files(Path(source)) == before


def test_a_profile_replaces_only_a_profile(source: str, tmp_path: Path) -> None:
    profile = tmp_path / "profile.zarr"
    phbatch.illumination(source, profile, method="gaussian")
    (profile / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        phbatch.illumination(source, profile, method="polynomial")
    assert (profile / "notes.txt").read_text() == "mine"
    before = files(Path(source))
    with pytest.raises(OutputError, match="input"):
        phbatch.illumination(source, Path(source) / "profile.zarr")
    assert files(Path(source)) == before


def test_tables_and_pages_are_not_written_into_the_input(
    phbatch_command: CommandLine, source: str, tmp_path: Path
) -> None:
    before = files(Path(source))
    assert phbatch_command("stats", source, "-o", Path(source) / "table.csv") == 3
    assert phbatch_command("compare", source, "-o", Path(source) / "page.html") == 3
    assert phbatch_command("demo", source) == 3
    assert files(Path(source)) == before
    shutil.rmtree(source)


@pytest.mark.parametrize("call", [phbatch.plan, phbatch.run, phbatch.illumination])
def test_a_store_that_does_not_answer_is_said_in_words(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., object]
) -> None:
    original, asked = FsspecPlace.names, [0]

    def refuse(self: FsspecPlace, folder: str = "") -> dict[str, bool]:
        asked[0] -= 1
        if asked[0] < 0:
            raise OSError(f"no answer from {self}")
        return original(self, folder)

    monkeypatch.setattr(FsspecPlace, "names", refuse)
    options = {"method": "gaussian"} if call is phbatch.illumination else {"model": "none", "overwrite": True}
    for answers in range(4):
        asked[0] = answers
        with suppress(OutputError):  # which is no OSError
            call(source, f"memory://{tmp_path.name}/{answers}.zarr", **options)
