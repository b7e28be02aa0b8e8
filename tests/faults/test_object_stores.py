"""Object stores: in and out of S3 the bytes of a local run, through faults too, and no credential is ever seen."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from pydantic import SecretStr

import phbatch
from phbatch.computing import tasks
from phbatch.computing.tasks import Job
from phbatch.inputs.image import open_source
from phbatch.places.place import Place
from phbatch.planning.unit import Unit
from phbatch.running import commit
from phbatch.running.begin import accept_run
from phbatch.words.given import parse_storage_options
from tests.faults.faults import SMALL
from tests.faults.google_store import run_google_store
from tests.faults.proxy import KINDS, REFUSALS, FaultProxy, run_proxy
from tests.faults.stores import SECRET, Bucket, local_bytes, remote_bytes, upload
from tests.forks import Forked, forked_workers
from tests.handmade import CommandLine

SETTINGS: dict[str, Any] = {"model": "none", "normalize": "median", "command": "same"}


def record_of(attributes: Any) -> dict[str, Any]:
    """phbatch's attributes without what names the places."""
    record = dict(attributes["phbatch"])
    return {key: value for key, value in record.items() if key not in ("input", "fingerprint", "notices")}


@pytest.mark.parametrize(("direction", "workers"), [("in", 1), ("out", 3), ("both", 1), ("both", 3)])
def test_the_bytes_are_those_of_a_local_run(
    bucket: Bucket, image: Path, tmp_path: Path, direction: str, workers: int
) -> None:
    local = phbatch.run(image, tmp_path / "local.zarr", workers=workers, **SETTINGS)
    options = bucket.options()
    source = upload(image, bucket, "in.zarr") if direction != "out" else str(image)
    output = bucket.url("some folder/out.zarr") if direction != "in" else str(tmp_path / "out.zarr")
    result = phbatch.run(source, output, workers=workers, storage_options=options, **SETTINGS)
    assert (result.failed, result.units_done) == ({}, local.units)
    written = remote_bytes(output, options) if direction != "in" else local_bytes(output)
    assert written == local_bytes(local.output)
    secret = parse_storage_options(options)
    found, expected = (Place.at(r.output, secret).open().attrs.asdict() for r in (result, local))
    assert record_of(found) == record_of(expected)
    again = phbatch.run(source, output, storage_options=options, **SETTINGS)
    assert (again.units_done, again.units_skipped) == (0, local.units)
    afresh = phbatch.run(source, output, storage_options=options, overwrite=True, **SETTINGS)
    assert afresh.units_done == local.units


def test_what_the_process_lets_zarr_write_changes_no_output(bucket: Bucket, image: Path, tmp_path: Path) -> None:
    plain = phbatch.run(image, tmp_path / "out.zarr", **SETTINGS)
    with zarr.config.set({"array.write_empty_chunks": True}):
        output = phbatch.run(image, bucket.url("out.zarr"), storage_options=bucket.options(), **SETTINGS).output
    assert remote_bytes(output, bucket.options()) == local_bytes(plain.output)


def test_the_default_output_lies_beside_the_input_and_the_other_commands_read_it(
    bucket: Bucket, image: Path, phbatch_command: CommandLine, tmp_path: Path
) -> None:
    source = upload(image, bucket, "week/in.zarr")
    options = ("--storage-options", json.dumps(bucket.options()))
    assert phbatch_command("run", source, "--model", "none", *options) == 0
    assert phbatch_command.out.splitlines()[-1] == bucket.url("week/in.phbatch.zarr")
    for command in (
        ("info", bucket.url("week/in.phbatch.zarr")),
        ("plan", source, tmp_path / "p.zarr", "--model", "none"),
        ("stats", source),
        ("compare", source),
        ("illumination", source, "-o", bucket.url("light.zarr")),
    ):
        if command[0] == "illumination":  # its picture lies beside the profile, on a disk
            continue
        assert phbatch_command(*command, *options) == 0, phbatch_command.err
    reused = ("--stats", bucket.url("week/in.phbatch.zarr"), "--normalize", "mode")
    assert phbatch_command("run", source, tmp_path / "o.zarr", "--model", "none", *reused, *options) == 0
    phbatch.illumination(source, bucket.url("light.zarr"), storage_options=bucket.options())
    lit = ("--illumination", bucket.url("light.zarr"))
    assert phbatch_command("run", source, tmp_path / "l.zarr", "--model", "none", *lit, *options) == 0
    phbatch.illumination(str(image), tmp_path / "light.zarr")
    phbatch.run(image, tmp_path / "m.zarr", model="none", illumination=str(tmp_path / "light.zarr"))
    np.testing.assert_array_equal(
        zarr.open_array(tmp_path / "l.zarr", path="0")[:], zarr.open_array(tmp_path / "m.zarr", path="0")[:]
    )


def test_environment_variables_of_the_ecosystem_do_without_options(
    bucket: Bucket, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{bucket.port}")
    source = upload(image, bucket, "in.zarr")
    assert phbatch.run(source, tmp_path / "out.zarr", **SETTINGS).units_done == 4


def test_requests_are_overlapped_and_bounded(bucket: Bucket, tmp_path: Path) -> None:
    frames = np.zeros((4, 64, 64), "uint16")
    zarr.create_array(tmp_path / "in.zarr", data=frames, chunks=(1, 8, 8), config={"write_empty_chunks": True})
    upload(tmp_path / "in.zarr", bucket, "in.zarr")
    with run_proxy(FaultProxy(bucket.port, {"latency": 1.0}, latency_s=0.1)) as proxy:
        source = open_source(Place.at(bucket.url("in.zarr"), parse_storage_options(bucket.options(proxy.port))))
        before = len(proxy.requests)
        np.testing.assert_array_equal(
            source.read((slice(4), slice(1), slice(1), slice(64), slice(64)))[:, 0, 0], frames
        )
        assert len(proxy.requests) - before == 4 * 64
        assert 4 <= proxy.most_at_once <= zarr.config.get("async.concurrency")


@pytest.mark.parametrize(("version", "requests"), [(3, 1), (2, 4)])
def test_a_node_of_format_3_is_opened_by_one_request(
    bucket: Bucket, tmp_path: Path, version: Any, requests: int
) -> None:
    group = zarr.create_group(tmp_path / "in.zarr", zarr_format=version, attributes={"mine": {"a": [1]}})
    group.create_array("0", data=np.arange(12).reshape(3, 4), chunks=(1, 4), attributes={"more": 2})
    upload(tmp_path / "in.zarr", bucket, "in.zarr")
    with run_proxy(FaultProxy(bucket.port)) as proxy:
        place = Place.at(bucket.url("in.zarr"), parse_storage_options(bucket.options(proxy.port)))
        found = place.open("0")
        assert len(proxy.requests) == requests
        root = place.open()
        assert (len(proxy.requests) == 2) == (version == 3)
        assert (root.metadata, found.metadata) == (group.metadata, group["0"].metadata)
        np.testing.assert_array_equal(found[:], group["0"][:])
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 7
        writable = place.open("0", "r+")
        writable[0] = 7
        assert place.open("0")[0, 0] == 7
        with pytest.raises(FileNotFoundError):
            place.open("nothing")
        place.write("broken/zarr.json", b'{"zarr_format": 3, "node_type": "array"}')
        said = _refusal(lambda: zarr.open(place.store(), path="broken", mode="r"))
        assert _refusal(lambda: place.open("broken")) == said


def _refusal(opening: Callable[[], object]) -> str:
    try:
        opening()
    except Exception as error:
        return repr(error)
    raise AssertionError("it is opened")


def test_a_run_of_format_3_asks_for_nothing_of_format_2(bucket: Bucket, image: Path) -> None:
    source = upload(image, bucket, "in.zarr")
    with run_proxy(FaultProxy(bucket.port)) as proxy:
        phbatch.run(source, bucket.url("out.zarr"), storage_options=bucket.options(proxy.port), **SETTINGS)
        assert [line for line in proxy.requests if "/.z" in line] == []
        assert len(proxy.requests) < 200


@pytest.mark.parametrize("kind", KINDS)
def test_single_faults_are_retried(bucket: Bucket, image: Path, tmp_path: Path, kind: str) -> None:
    local = phbatch.run(image, tmp_path / "local.zarr", **SETTINGS)
    source = upload(image, bucket, "in.zarr")
    with run_proxy(FaultProxy(bucket.port, {kind: 0.2}, seed=1)) as proxy:
        options = bucket.options(proxy.port)
        result = phbatch.run(source, bucket.url("out.zarr"), workers=2, storage_options=options, **SETTINGS)
        assert result.failed == {}
        assert proxy.faults[kind] >= 3
    assert remote_bytes(result.output, bucket.options()) == local_bytes(local.output)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_torn_refusals_are_asked_for_again_as_often_as_the_options_say(bucket: Bucket, retries: int) -> None:
    """Torn bodies of objects obstore asks for again by itself; that an object is missing it hears once."""
    with run_proxy(FaultProxy(bucket.port, {"truncated": 1.0})) as proxy:
        options = parse_storage_options(bucket.options(proxy.port) | {"max_retries": retries})
        with pytest.raises(ConnectionError):
            Place.at(bucket.url(""), options).read("missing")
        assert len(proxy.requests) == 1 + retries


@pytest.mark.parametrize("only", ["GET /", "PUT /"])
@pytest.mark.parametrize("kind", ["reset", "503"])
def test_a_store_that_is_gone_for_a_while_costs_no_byte(
    bucket: Bucket, image: Path, tmp_path: Path, kind: str, only: str
) -> None:
    local = phbatch.run(image, tmp_path / "local.zarr", **SETTINGS)
    source, output = upload(image, bucket, "in.zarr"), bucket.url("out.zarr")
    with run_proxy(FaultProxy(bucket.port, only=f"{only}{bucket.name}")) as proxy:
        options = bucket.options(proxy.port) | {"max_retries": 1}

        def break_down(event: object) -> None:
            if isinstance(event, phbatch.words.events.UnitFinished):
                proxy.rates = {kind: 1.0}

        run = partial(phbatch.run, source, output, workers=1, storage_options=options, **SETTINGS)
        try:
            broken = run(listener=break_down)
        except OSError as error:  # the ledger could not be written
            message = str(error)
        else:
            message = next(iter(broken.failed.values()))
        assert message
        assert "\n" not in message
        proxy.rates = {}
        result = run()
    assert result.failed == {}
    assert result.units_done + result.units_skipped == local.units
    assert remote_bytes(output, bucket.options()) == local_bytes(local.output)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"max_retries": 1, "endpoint_url": "http://127.0.0.1:1"}, "cannot be read as Zarr"),
        ({"colour": SECRET}, "have no 'colour'; they have key, secret, token"),
        ({"anon": SECRET}, "do not fit s3://"),
        ({"max_retries": SECRET}, "do not fit s3://"),
        ({"headers": SECRET}, "do not fit s3://"),
    ],
)
def test_a_store_that_cannot_be_reached_says_so(
    bucket: Bucket, phbatch_command: CommandLine, tmp_path: Path, options: dict[str, Any], part: str
) -> None:
    given = json.dumps(bucket.options() | options)
    code = phbatch_command(
        "run", bucket.url("in.zarr"), tmp_path / "out.zarr", "--model", "none", "--storage-options", given, "--debug"
    )
    assert code in (2, 3)
    assert part in phbatch_command.err.splitlines()[-1]
    assert SECRET not in phbatch_command.err
    assert list(tmp_path.iterdir()) == []


# --- web servers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def web_server(tmp_path: Path, image: Path) -> Any:
    """URL of a server of the folder that holds the image; it lists nothing that a client could parse."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_web_servers_are_read_and_never_written(
    web_server: str, image: Path, tmp_path: Path, phbatch_command: CommandLine
) -> None:
    local = phbatch.run(image, tmp_path / "local.zarr", **SETTINGS)
    result = phbatch.run(f"{web_server}/in.zarr", tmp_path / "out.zarr", **SETTINGS)
    assert local_bytes(result.output) == local_bytes(local.output)
    assert phbatch.run(f"{web_server}/in.zarr", tmp_path / "out.zarr", **SETTINGS).units_skipped == local.units
    for output in ((), (f"{web_server}/other.zarr",)):
        assert phbatch_command("run", f"{web_server}/in.zarr", *output, "--model", "none") == 3
        assert "is on a web server, which is only read" in phbatch_command.err
    assert phbatch_command("run", f"{web_server}/nowhere.zarr", tmp_path / "o.zarr", "--model", "none") == 3
    assert "holds no Zarr array or group" in phbatch_command.err


def test_a_tree_on_a_web_server_has_all_levels(web_server: str, image: Path, tmp_path: Path) -> None:
    output = phbatch.run(image, tmp_path / "out.zarr", levels=2, **SETTINGS).output
    tree = xarray.open_datatree(f"{web_server}/out.zarr", engine="phbatch")
    assert [*tree.children] == ["0", "1"]  # a web server lists no tables
    np.testing.assert_array_equal(tree["1/image"], phbatch.open(output, level=1))


@pytest.mark.parametrize(
    "url", [f"https://user:{SECRET}@host/a.zarr", f"s3://bucket/a.zarr?X-Amz-Signature={SECRET}", f"s3://{SECRET}@b/a"]
)
def test_a_url_that_holds_a_credential_is_refused_without_showing_it(
    phbatch_command: CommandLine, image: Path, tmp_path: Path, url: str
) -> None:
    output = tmp_path / "out.zarr"
    for arguments in (
        (url, output),
        (image, url),
        (image, output, "--stats", url),
        (image, output, "--illumination", url),
    ):
        assert phbatch_command("run", *arguments, "--model", "none", "--json", "--debug") == 2
        assert SECRET not in phbatch_command.err + phbatch_command.out
        assert "credentials by environment variables or --storage-options" in phbatch_command.err
    assert not output.exists()


# --- the canary -------------------------------------------------------------------------------------------------------


def every_byte(bucket: Bucket, folder: Path) -> bytes:
    """All that lies in a bucket and in a folder."""
    options = parse_storage_options(bucket.options())
    place = Place.at(bucket.url(""), options)
    remote = b"".join(place.read_all(list(place.keys())))
    return remote + b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("way", ["json", "pairs", "config"])
def test_no_credential_is_ever_seen(
    bucket: Bucket, image: Path, tmp_path: Path, phbatch_command: CommandLine, way: str
) -> None:
    source, output = upload(image, bucket, "in.zarr"), bucket.url("out.zarr")
    config = tmp_path / "phbatch.toml"
    config.write_text("[storage_options]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in bucket.options().items()))
    given = {
        "json": ["--storage-options", json.dumps(bucket.options())],
        "pairs": [f"--storage-options={key}={value}" for key, value in bucket.options().items()],
        "config": ["--config", str(config)],
    }[way]
    common = ["--model", "none", "--json", "--debug", "--workers", "2", *given]

    def call(*arguments: str) -> int:
        code = phbatch_command(*arguments)
        assert SECRET not in phbatch_command.out + phbatch_command.err
        return code

    process = Forked(SMALL, ["run", source, output, *common])
    shown = process.communicate(timeout=180)
    assert process.returncode == 0
    assert SECRET not in "".join(shown)
    assert call("run", source, output, *common, "--normalize", "mode") == 3  # begun differently
    assert call("run", bucket.url("nowhere.zarr"), output, *common) == 3
    assert call("run", source, output, *common, "--storage-options", SECRET) == 2
    assert call("run", source, output, *common, "--storage-options", f'{{"secret": "{SECRET}') == 2
    config.unlink()
    assert SECRET.encode() not in every_byte(bucket, tmp_path)


def test_a_server_that_repeats_the_credential_is_not_quoted(
    bucket: Bucket, image: Path, phbatch_command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = f"<Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>{SECRET}-KEY</AWSAccessKeyId></Error>".encode()
    monkeypatch.setitem(REFUSALS, "403", (b"403 Forbidden", answer))
    with run_proxy(FaultProxy(bucket.port, {"403": 1.0})) as proxy:
        options = json.dumps(bucket.options(proxy.port))
        assert phbatch_command("info", bucket.url("in.zarr"), "--storage-options", options, "--debug") == 3
    assert "InvalidAccessKeyId" in phbatch_command.err
    assert SECRET not in phbatch_command.err + phbatch_command.out


def test_a_job_carries_the_options_and_does_not_show_them(bucket: Bucket, image: Path, tmp_path: Path) -> None:
    source = upload(image, bucket, "in.zarr")
    settings = phbatch.RunSettings(model="none", storage_options=bucket.options())
    job = accept_run(source, tmp_path / "out.zarr", settings).job
    assert SECRET not in repr(job) + str(job) + repr(settings) + json.dumps(settings.model_dump(mode="json"))
    copied = pickle.loads(pickle.dumps(job))
    assert copied == job
    assert isinstance(copied.source.options, SecretStr)
    assert json.loads(copied.source.options.get_secret_value()) == bucket.options()
    assert copied.output.options is None  # a disk has none


def test_dask_workers_get_the_options(bucket: Bucket, image: Path, tmp_path: Path) -> None:
    from distributed import LocalCluster

    local = phbatch.run(image, tmp_path / "local.zarr", **SETTINGS)
    source, output = upload(image, bucket, "in.zarr"), bucket.url("out.zarr")
    with (
        forked_workers(),
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as cluster,
    ):
        result = phbatch.run(
            source, output, scheduler=cluster.scheduler_address, storage_options=bucket.options(), **SETTINGS
        )
        logs = str(cluster.get_logs())
    assert result.failed == {}
    assert remote_bytes(output, bucket.options()) == local_bytes(local.output)
    assert SECRET not in logs


def test_a_failed_unit_does_not_show_them(
    bucket: Bucket, image: Path, phbatch_command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = upload(image, bucket, "in.zarr")

    def fail(job: Job, unit: Unit) -> dict[str, Any]:
        raise RuntimeError(f"no luck with {job}")

    monkeypatch.setattr(commit, "restore_unit", fail)
    options = ("--storage-options", json.dumps(bucket.options()), "--json")
    assert phbatch_command("run", source, "--model", "none", *options) == 4
    assert "no luck" in phbatch_command.out
    assert SECRET not in phbatch_command.err + phbatch_command.out
    assert tasks.restore_unit is not fail


def test_google_storage_is_read_and_written(image: Path, tmp_path: Path) -> None:
    local = phbatch.run(image, tmp_path / "local.zarr", **SETTINGS)
    account, empty = tmp_path / "account.json", dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    with run_google_store() as url:
        account.write_text(json.dumps(empty | {"gcs_base_url": url, "disable_oauth": True}))
        run = partial(phbatch.run, storage_options={"gs": {"token": str(account)}}, **SETTINGS)
        written = run(image, "gs://plates/out.zarr")
        copied = run(image, "gs://plates/out.zarr", overwrite=True)
        assert (written.units_done, copied.units_done) == (local.units, local.units)
        assert remote_bytes("gs://plates/out.zarr", {"token": str(account)}) == local_bytes(local.output)
        again = run("gs://plates/out.zarr", tmp_path / "again.zarr")
    expected = phbatch.run(local.output, tmp_path / "twice.zarr", **SETTINGS)
    assert local_bytes(again.output) == local_bytes(expected.output)
