"""A place says and does the same whatever it is, shows no credential, and nobody else looks at a URL."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

import phbatch
from phbatch.places.beside import place_beside
from phbatch.places.durable import mark_of
from phbatch.places.place import FsspecPlace, LocalPlace, ObjectPlace, Place, Seen, WebPlace
from phbatch.words.errors import UsageError
from phbatch.words.given import parse_storage_options

SECRET = "CANARY-wJalrXUtnFEMI"
PACKAGE = Path(phbatch.__file__).parent


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place.at(tmp_path / "a.zarr" if request.param == "local" else f"memory://{tmp_path.name}/a.zarr")


@pytest.mark.parametrize(
    ("path", "kind", "said"),
    [
        ("/data/../data/a.zarr", LocalPlace, "/data/a.zarr"),
        ("file:///data/a.zarr/", LocalPlace, "/data/a.zarr"),
        ("s3://bucket/a.zarr/", ObjectPlace, "s3://bucket/a.zarr"),
        ("gs://bucket/a.zarr", ObjectPlace, "gs://bucket/a.zarr"),
        ("https://host/a.zarr//", WebPlace, "https://host/a.zarr"),
        ("memory://a.zarr", FsspecPlace, "memory://a.zarr"),
    ],
)
def test_a_path_becomes_a_place_in_one_spelling(path: str, kind: type[Place], said: str) -> None:
    options = parse_storage_options({"key": SECRET, "secret": SECRET})
    place = Place.at(path, options)
    assert (type(place), str(place), place.path, place.name) == (kind, said, said, "a.zarr")
    assert Place.at(said, options) == place
    assert hash(Place.at(said, options)) == hash(place)
    assert SECRET not in repr(place) + str(place) + repr(place / "0")
    copied = pickle.loads(pickle.dumps(place))
    assert copied == place
    assert copied.options == (None if kind is LocalPlace else options)
    assert (place / "0").options == copied.options
    assert (place / "0").path == f"{said}/0"
    assert place / "" == place
    if kind is LocalPlace:
        assert SECRET.encode() not in pickle.dumps(place)


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/a", "https://host/a?token=1", "memory://a#b"])
def test_a_url_with_a_credential_is_no_place(url: str) -> None:
    with pytest.raises(UsageError, match="would be recorded"):
        Place.at(url)


def test_what_lies_inside(tmp_path: Path) -> None:
    assert Place.at(tmp_path).holds(Place.at(tmp_path))
    assert Place.at(tmp_path).holds(Place.at(tmp_path / "a" / "b"))
    assert Place.at("/").holds(Place.at(tmp_path))
    assert not Place.at(tmp_path / "a").holds(Place.at(tmp_path / "ab"))
    assert Place.at("s3://b/a").holds(Place.at("s3://b/a/0"))
    assert not Place.at("s3://b/a").holds(Place.at("s3://b/ab"))
    assert not Place.at("/").holds(Place.at("s3://b/a"))
    assert place_beside("s3://b/c/a.zarr/", ".out.zarr").path == "s3://b/c/a.out.zarr"


def test_files_are_written_listed_dated_read_and_removed(place: Place) -> None:
    assert (place.exists(), place.names(), place.exists("x")) == (False, {}, False)
    place.write("a/one", b"1")
    place.write("a/b/two", b"22")
    assert place.exists()
    assert place.names() == {"a": True}
    assert place.names("a") == {"one": False, "b": True}
    assert place.names("a/one") in ({}, {"one": False})  # as fsspec has it
    assert [file[:2] for file in place.files()] == [("a/b/two", 2), ("a/one", 1)]
    assert sorted(place.keys()) == ["a/b/two", "a/one"]
    assert [place.stat(key)[0] for key in ("a/b/two", "a/one")] == [2, 1]
    if not place.remote:  # fsspec writes the times of its memory in two ways
        assert [(key, *place.stat(key)) for key in ("a/b/two", "a/one")] == place.files()
    assert sorted(place.keys_in("a")) == ["a/b/two", "a/one"]
    assert [*place.keys_in("a/b")] == ["a/b/two"]
    assert place.read_all(["a/one", "a/b/two"]) == [b"1", b"22"]
    assert place.mark("a/b/two")[0] == 2
    assert (place / "a").names() == place.names("a")
    place.remove(["a/one"])
    place.remove_folder("a/b")
    place.remove_folder("nothing")
    assert [*place.files()] == []
    with pytest.raises(FileNotFoundError):
        place.stat("a/one")


def test_what_is_fenced_leaves_all_as_it_was(place: Place) -> None:
    def refuse() -> None:
        raise RuntimeError("not yours")

    place.write("a/one", b"1")
    with pytest.raises(RuntimeError, match="not yours"):
        place.write_all({"a": {"one": b"2", "c/two": memoryview(b"3")}}, ".scratch", refuse)
    assert place.read("a/one") == b"1"
    assert not place.exists("a/c/two")
    marks = place.write_all({"a": {"one": b"2", "c/two": memoryview(b"3")}}, ".scratch", lambda: None)
    assert marks == {"a/one": mark_of(b"2"), "a/c/two": mark_of(b"3")}
    assert place.read_all(["a/one", "a/c/two"]) == [b"2", b"3"]


def test_a_file_is_swapped_while_it_is_as_it_was_seen(place: Place) -> None:
    assert place.look("lock") == Seen(b"")
    first = place.swap("lock", b"1", place.look("lock"))
    assert first == Seen(b"1")
    assert place.swap("lock", b"2", Seen(b"")) is None
    assert place.swap("lock", b"2", first) == Seen(b"2")
    assert place.swap("lock", b"3", first) is None
    assert place.read("lock") == b"2"


def test_a_disk_appends(tmp_path: Path) -> None:
    place = Place.at(tmp_path / "new")
    assert place.appends
    assert not Place.at("memory://a").appends
    for line in (b"1\n", b"2\n"):
        place.append("deep/ledger.jsonl", line)
    assert place.read("deep/ledger.jsonl") == b"1\n2\n"


def test_a_link_to_a_folder_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "kept")
    place = Place.at(tmp_path / "out")
    assert place.names() == {"link": True}
    place.remove_folder("link")
    assert (place.names(), (tmp_path / "kept" / "file").read_text()) == ({}, "mine")


def test_nobody_else_takes_a_path_and_options_or_looks_at_a_url() -> None:
    takers = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        room = path.relative_to(PACKAGE).parts[0]
        assert room == "places" or not {"urlsplit", "is_url", '"://"'} & set(text.replace("(", " ").split()), path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                arguments = (*node.args.args, *node.args.kwonlyargs)
                if any("StorageOptions" in ast.unparse(a.annotation) for a in arguments if a.annotation):
                    takers.add((room, node.name))
    inner = {name for room, name in takers if room not in ("places", "words")} - set(phbatch.__all__)
    assert inner == {"default_output", "secrets_of"}
