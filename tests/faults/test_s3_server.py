"""The tests' own S3 server answers as moto does, whatever obstore asks; a run on moto has the bytes of a local one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import obstore
import pytest

import phbatch
from phbatch.places.object_store import open_object_store
from phbatch.words.given import parse_storage_options
from tests.faults.moto_server import run_moto
from tests.faults.stores import Bucket, local_bytes, new_bucket, remote_bytes, upload

KEYS = ("a", "a/b", "a/b/c", "a b", "a.b/c&d", "b/ä", "b/<x>'\"", "c/0/0", "c/0/1", "c/1/0")


@pytest.fixture(scope="module")
def moto() -> Iterator[int]:
    with run_moto() as port:
        yield port


def _names(listed: Any) -> dict[str, Any]:
    return {
        "objects": [(item["path"], item["size"], item["e_tag"].strip('"')) for item in listed["objects"]],
        "folders": sorted(listed["common_prefixes"]),
    }


def _say(store: Any, call: str, key: str, draw: Random, seen: dict[str, Any]) -> Any:
    """What one call of obstore says of a store; `seen` holds the versions of objects that were looked at."""
    data = bytes(draw.randrange(256) for _ in range(draw.randrange(12)))
    start, stop = sorted(draw.sample(range(16), 2))
    if call == "put":
        return store.put(key, data, use_multipart=False)["e_tag"]
    if call == "create":
        return store.put(key, data, mode="create", use_multipart=False)["e_tag"]
    if call == "swap":
        return store.put(key, data, mode=seen.get(key, {"e_tag": '"other"'}), use_multipart=False)["e_tag"]
    if call == "get":
        found = store.get(key)
        seen[key] = {"e_tag": found.meta["e_tag"]}
        return bytes(found.bytes()), found.meta["e_tag"], found.meta["size"]
    if call == "head":
        found = store.head(key)
        return found["path"], found["size"], found["e_tag"]
    if call == "range":
        return bytes(store.get_range(key, start=start, end=stop))
    if call == "end":
        return bytes(store.get(key, options={"range": {"suffix": stop}}).bytes())
    if call == "from":
        return bytes(store.get(key, options={"range": {"offset": start}}).bytes())
    if call == "delete":
        return store.delete(draw.sample(KEYS, 2))
    if call == "list":
        return sorted((item["path"], item["size"]) for batch in store.list(key or None) for item in batch)
    return _names(store.list_with_delimiter(key or None))


CALLS = ("put", "put", "create", "swap", "get", "get", "head", "range", "end", "from", "delete", "list", "names")


@pytest.mark.parametrize("seed", range(2))
def test_it_answers_as_moto(bucket: Bucket, moto: int, seed: int) -> None:
    """Whole objects and parts, conditions, lists, and what is not there, for names that need to be escaped too."""

    def ask(held: Bucket) -> list[Any]:
        store = open_object_store(held.url("in"), parse_storage_options(held.options()))
        draw, seen, said = Random(seed), dict[str, Any](), []
        for _ in range(250):
            call, key = draw.choice(CALLS), draw.choice(KEYS)
            try:
                said.append((call, key, _say(store, call, key, draw, seen)))
            except (OSError, obstore.exceptions.BaseError) as error:
                said.append((call, key, type(error)))
        return said

    own, theirs = ask(bucket), ask(new_bucket(moto))
    assert own == theirs
    assert {call for call, _, answer in own if not isinstance(answer, type)} == set(CALLS)
    assert {call for call, _, answer in own if isinstance(answer, type)} >= {"create", "swap", "get", "head"}


def test_lists_of_many_keys_come_in_pages(bucket: Bucket) -> None:
    store = open_object_store(bucket.url("many"), parse_storage_options(bucket.options()))
    keys = sorted(f"{number % 7}/{number}" for number in range(1003))
    for key in keys:
        store.put(key, b"", use_multipart=False)
    assert [item["path"] for batch in store.list() for item in batch] == keys
    inside = [name for name, _, _ in _names(store.list_with_delimiter("3"))["objects"]]
    assert inside == [key for key in keys if key.startswith("3/")]
    assert _names(store.list_with_delimiter())["folders"] == [str(number) for number in range(7)]


@pytest.mark.usefixtures("bucket")  # without what the machine's environment says of S3
def test_a_run_on_moto_has_the_bytes_of_a_local_one(moto: int, image: Path, tmp_path: Path) -> None:
    theirs = new_bucket(moto)
    local = phbatch.run(image, tmp_path / "local.zarr", model="none", normalize="median")
    source, options = upload(image, theirs, "in.zarr"), theirs.options()
    run: dict[str, Any] = {"model": "none", "normalize": "median", "workers": 3, "storage_options": options}
    output = phbatch.run(source, theirs.url("some folder/out.zarr"), **run).output
    assert remote_bytes(output, options) == local_bytes(local.output)
    assert phbatch.verify(output, storage_options=options).damages == ()
    assert phbatch.run(source, output, **run).units_skipped == local.units
    assert phbatch.run(source, output, overwrite=True, **run).units_done == local.units
