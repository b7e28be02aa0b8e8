"""The commit protocol in S3: checksums are proved and mended there, one run holds an output, new inputs are seen."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phbatch
from phbatch.computing.tasks import Job
from phbatch.inputs.stamps import ABSENT, Stamps
from phbatch.outputs.audit import record_small_objects
from phbatch.outputs.ledger import METADATA, Ledger
from phbatch.outputs.writer import Sink
from phbatch.places import lock
from phbatch.places.lock import LOCK, hold_output, new_token, read_token
from phbatch.places.place import ObjectPlace, Place, Seen
from phbatch.running.begin import accept_run
from phbatch.words.errors import OutputError
from phbatch.words.given import StorageOptions, parse_storage_options
from tests.faults.faults import small_frames, small_units
from tests.faults.inputs import make_input, make_time_lapse
from tests.faults.proxy import FaultProxy, run_proxy
from tests.faults.stores import SECRET, Bucket, new_bucket, upload
from tests.handmade import CommandLine

SOAK = bool(os.environ.get("PHBATCH_SOAK"))
SETTINGS: dict[str, Any] = {"model": "none", "normalize": "median", "workers": 2}


@pytest.fixture
def options(bucket: Bucket) -> StorageOptions:
    """Of the bucket."""
    return parse_storage_options(bucket.options())


@pytest.fixture
def output(bucket: Bucket, image: Path) -> str:
    """A finished output in S3 of an input in S3."""
    source = upload(image, bucket, "in.zarr")
    result = phbatch.run(source, bucket.url("out.zarr"), storage_options=bucket.options(), **SETTINGS)
    return result.output


@pytest.fixture(scope="module")
def mended(s3_server: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bucket, str, dict[str, bytes]]]:
    """A finished output in S3 of an input in S3, and what it holds: whoever hurts it mends it to the byte."""
    bucket, image = new_bucket(s3_server), make_time_lapse(tmp_path_factory.mktemp("mended"))
    source = upload(image, bucket, "in.zarr")
    with small_frames():
        output = phbatch.run(source, bucket.url("out.zarr"), storage_options=bucket.options(), **SETTINGS).output
        yield bucket, output, contents(output, parse_storage_options(bucket.options()))


def contents(output: str, options: StorageOptions) -> dict[str, bytes]:
    """All objects of an output but those of the commit protocol itself."""
    place = Place.at(output, options)
    keys = [key for key in place.keys() if not key.startswith(".phbatch/")]  # noqa: SIM118
    return dict(zip(keys, place.read_all(keys), strict=True))


def test_every_object_is_in_the_ledger_with_its_size_and_checksum(output: str, options: StorageOptions) -> None:
    records = Ledger(Place.at(output, options)).records()
    known = {METADATA} | {f"t{t}/c0" for t in range(4)}
    assert set(records) == known
    marked = {key for record in records.values() for key in (*record["objects"], *record.get("documents", {}))}
    assert marked == set(contents(output, options))
    found = phbatch.verify(output, storage_options=options)
    assert (found.damages, found.units) == ((), 4)


def test_a_table_is_listed_at_once_and_in_it_what_lies_there(
    bucket: Bucket, tmp_path: Path, options: StorageOptions
) -> None:
    """The same as on a disk, folder by folder, even where an image has the name of a table."""
    here, there = Place.at(tmp_path / "out.zarr"), Place.at(bucket.url("out.zarr"), options)
    table = {f"statistics/{name}/{key}": b"{}" for name in "tczmpq" for key in ("zarr.json", "c/0")}
    image = {f"series/statistics/{key}": b"{}" for key in ("zarr.json", "0/zarr.json", "0/c/0/0", "0/c/0/1")}
    for place in (here, there):
        place.write_together({"zarr.json": b"{}", ".phbatch/lock": b"{}"} | table | image)
    images = {"series/statistics/0"}
    with run_proxy(FaultProxy(bucket.port)) as proxy:
        known = Place.at(bucket.url("out.zarr"), parse_storage_options(bucket.options(proxy.port)))
        found = record_small_objects(known, images.__contains__)
        asked = [line for line in proxy.requests if "list-type" in line]
    assert found == record_small_objects(here, images.__contains__)
    assert len(asked) == 4  # the root, the table, the series, and what has a table's name in it
    assert not [key for key in found["objects"] if key.startswith("series")]
    images.add("series/statistics")
    assert record_small_objects(there, images.__contains__) == record_small_objects(here, images.__contains__)


@pytest.mark.parametrize(
    ("hurt", "how"),
    [
        ("0/c/2/0/0", "missing"),
        ("0/c/2/0/0", "changed"),
        ("0/zarr.json", "missing"),
        ("zarr.json", "changed"),
        ("statistics/t/c/0", "missing"),
    ],
)
def test_what_is_hurt_is_named_and_mended_to_the_byte(
    mended: tuple[Bucket, str, dict[str, bytes]],
    bucket: Bucket,  # without what the machine's environment says of S3
    phbatch_command: CommandLine,
    hurt: str,
    how: str,
) -> None:
    bucket, output, whole = mended
    options = parse_storage_options(bucket.options())
    if how == "missing":
        Place.at(output, options).remove([hurt])
    else:
        Place.at(output, options).write(hurt, whole[hurt][:-1] + bytes([whole[hurt][-1] ^ 1]))
    given = ("--storage-options", json.dumps(bucket.options()))
    assert phbatch_command("verify", output, "--json", *given) == 3
    assert hurt in phbatch_command.out
    assert phbatch_command("repair", output, "--json", "--debug", *given) == 0, phbatch_command.err
    found = contents(output, options)
    assert found.keys() == whole.keys()
    assert [key for key in whole if key.startswith("0/") and found[key] != whole[key]] == []
    assert phbatch_command("verify", output, "--deep", "2", *given) == 0, phbatch_command.err
    assert SECRET not in phbatch_command.out + phbatch_command.err
    place = Place.at(output, options)
    everything = b"".join(place.read_all(list(place.keys())))
    assert SECRET.encode() not in everything


def test_an_input_that_was_changed_is_refused(
    bucket: Bucket, output: str, image: Path, options: StorageOptions
) -> None:
    Place.at(bucket.url("in.zarr"), options).write("c/1/0/0", (image / "c/1/0/0").read_bytes() + b"!")
    with pytest.raises(OutputError, match="input of t1/c0 was changed"):
        phbatch.run(bucket.url("in.zarr"), output, storage_options=options, **SETTINGS)


def test_one_run_holds_an_output_and_lets_go_of_it(
    bucket: Bucket, options: StorageOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    monkeypatch.setattr(lock, "lives", lambda holder: holder is not None)
    place, token = Place.at(bucket.url("held.zarr"), options), new_token()
    with hold_output(place, token):
        assert read_token(place) == token
        with pytest.raises(OutputError, match="is being written by another run"), hold_output(place, "other"):
            pass
    assert read_token(place) is None
    with hold_output(place, "other"):
        assert read_token(place) == "other"


def test_a_worker_that_outlived_its_run_writes_nothing(bucket: Bucket, output: str, options: StorageOptions) -> None:
    accepted = accept_run(bucket.url("in.zarr"), output, phbatch.RunSettings(**SETTINGS, storage_options=options))
    job: Job = accepted.job
    before = accepted.output.files()
    unit = accepted.resolved.geometry.units[0]
    block = np.zeros([part.stop - part.start for part in unit.output], accepted.image.dtype)
    with pytest.raises(OutputError, match="is not held by this run any more"):
        Sink(accepted.output, token=job.token).write("0", job.output_axes, unit.output, block)
    assert accepted.output.files() == before


def test_a_store_that_is_gone_does_not_keep_a_run_from_ending(
    bucket: Bucket, options: StorageOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.2)
    held = hold_output(Place.at(bucket.url("held.zarr"), options), new_token())
    held.__enter__()
    monkeypatch.setattr(ObjectPlace, "look", lambda *_: Seen(b"{}" if never.wait() else b""))
    ended = threading.Thread(target=held.__exit__, args=(None, None, None), daemon=True)
    ended.start()
    ended.join(5)
    assert not ended.is_alive()
    never.set()


def test_the_door_says_the_same_of_a_bucket_and_of_a_disk(bucket: Bucket, image: Path, options: StorageOptions) -> None:
    there, here = Place.at(upload(image, bucket, "in.zarr"), options), Place.at(image)
    assert [file[:2] for file in there.files()] == [file[:2] for file in here.files()]
    for folder in ("", "c", "c/1", "nothing"):
        assert there.names(folder) == here.names(folder)
    for key in ("", "zarr.json", "c/0/0/0", "c/9/9/9", LOCK):
        assert there.exists(key) == here.exists(key)
    keys = list(here.keys())
    assert sorted(keys) == list(there.keys())
    for folder in ("c", "c/1"):
        assert [*there.keys_in(folder)] == sorted(here.keys_in(folder))
    assert [*there.keys_in("nothing")] == []
    assert there.read_all(keys) == [(image / key).read_bytes() for key in keys]
    assert [there.mark(key) for key in keys] == [here.mark(key) for key in keys]
    assert sorted((key, *there.stat(key)) for key in keys) == there.files()
    asked, listed = Stamps(there), Stamps(there, listed=True)
    assert asked.digest([*keys, "c/9/9/9"]) == listed.digest([*keys, "c/9/9/9"])
    assert listed.of("c/9/9/9") == asked.of("c/9/9/9") == ABSENT


# zarr drops coroutines where a look at a parent group fails, and Python says so whenever it collects them
@pytest.mark.filterwarnings("ignore:coroutine 'set_or_delete' was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_a_store_that_refuses_from_any_request_on_is_said_and_the_run_goes_on_later(
    bucket: Bucket, tmp_path: Path, phbatch_command: CommandLine
) -> None:
    source, options = (
        make_input(tmp_path / "in.zarr", (2, 24, 20), (1, 24, 20)),
        parse_storage_options(bucket.options()),
    )
    with small_units(), run_proxy(FaultProxy(bucket.port)) as proxy:
        given = json.dumps(bucket.options(proxy.port) | {"max_retries": 1})

        def run(output: str) -> int:
            return phbatch_command(
                "run", source, output, "--model", "none", "--retries", "0", "--storage-options", given
            )

        assert run(bucket.url("whole.zarr")) == 0
        requests, whole = len(proxy.requests), contents(bucket.url("whole.zarr"), options)
        del whole["zarr.json"]  # it names the command, and so the place
        said = []
        moments = range(requests // 8, requests, requests // (60 if SOAK else 4))
        for moment, kind in zip(moments, cycle(("503", "reset")), strict=False):
            output = bucket.url(f"out{moment}.zarr")
            proxy.after, proxy.rates = len(proxy.requests) + moment, {kind: 1.0}
            code = run(output)
            proxy.rates = {}
            assert code in (0, 3, 4), phbatch_command.err
            assert "unexpected" not in phbatch_command.err
            if code == 3:
                said.append(phbatch_command.err.splitlines()[-1])
                assert said[-1].startswith(f"error: {output} ")
            assert run(output) == 0, phbatch_command.err
            found = contents(output, options)
            del found["zarr.json"]
            assert found == whole
    assert any("call the same command again" in line for line in said)
