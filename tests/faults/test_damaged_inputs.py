"""Two hundred damaged inputs: each ends with one clear sentence, in flat memory, and nothing is written."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from random import Random
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, ShardingCodec, ZstdCodec

from phbatch.inputs.image import open_source
from phbatch.places.place import Place
from phbatch.words.axes import to_region
from phbatch.words.given import parse_storage_options
from tests.faults.damage import DAMAGES, KINDS, make_image
from tests.faults.stores import Bucket, upload
from tests.handmade import CommandLine

CASES = [(name, kinds[seed % len(kinds)], seed) for seed in range(7) for name, (_, kinds) in sorted(DAMAGES.items())][
    :200
]
QUICK = CASES[: len(DAMAGES)]
"""One case of every damage; all of them with ``PHBATCH_SOAK=1``."""

BOMBS = [name for name in DAMAGES if "bomb" in name]

COMPRESSORS: dict[str, tuple[Any, Any]] = {
    "gzip": (numcodecs.GZip(1), GzipCodec(level=1)),
    "zstd": (numcodecs.Zstd(1), ZstdCodec(level=1)),
    "blosc": (numcodecs.Blosc("lz4"), BloscCodec(cname="lz4")),
}
"""Of Zarr 2 and 3."""

GROWTH_BYTES = 300 << 20
SECONDS = 10.0  # of the processor


def peak_bytes(*, reset: bool = False) -> int:
    """Peak resident memory of this process since the last reset; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    name = "VmRSS" if reset else "VmHWM"
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name)) * 1024


def test_there_are_two_hundred_cases_of_all_damages_and_kinds() -> None:
    assert len(set(CASES)) == 200
    assert {name for name, _, _ in CASES} == set(DAMAGES)
    assert {kind for _, kind, _ in CASES} == set(KINDS)
    assert len(QUICK) >= 35


@pytest.mark.parametrize("kind", KINDS)
def test_undamaged_they_are_valid(phbatch_command: CommandLine, tmp_path: Path, kind: str) -> None:
    assert phbatch_command("run", make_image(tmp_path, kind), tmp_path / "out.zarr", "--model", "none") == 0


@pytest.mark.parametrize(("name", "kind", "seed"), CASES if os.environ.get("PHBATCH_SOAK") else QUICK)
def test_a_damaged_input(phbatch_command: CommandLine, tmp_path: Path, name: str, kind: str, seed: int) -> None:
    source, output = make_image(tmp_path, kind), tmp_path / "out.zarr"
    DAMAGES[name][0](source, Random(f"{name} {seed}"))
    before, started = peak_bytes(reset=True), time.process_time()
    code = phbatch_command("run", source, output, "--model", "none", "--workers", "1")
    seconds, growth = time.process_time() - started, peak_bytes() - before
    shown = phbatch_command.err
    assert "Traceback" not in shown
    assert "error: unexpected" not in shown
    assert seconds < SECONDS
    assert growth < GROWTH_BYTES
    assert not (tmp_path / "TRAPPED").exists()
    if code == 4:  # the pixels alone are damaged, which reading found
        failed = [line for line in shown.splitlines() if line.startswith("unit ")]
        assert failed
        assert all(len(line) < 600 for line in failed)
        return
    if name == "channels that cannot be":  # display hints never decide over an image
        assert code == 0
        return
    assert code == 3
    (line,) = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert shown.splitlines()[-1] == line
    assert line.endswith(".")
    assert len(line) < 600
    assert not output.exists()


@pytest.mark.parametrize("command", ["stats", "compare", "illumination"])
@pytest.mark.parametrize("name", ["truncated chunk", "chunk that is a folder", "compressed bomb"])
def test_the_other_commands_say_so_too(phbatch_command: CommandLine, tmp_path: Path, command: str, name: str) -> None:
    source = make_image(tmp_path, "ome05")
    for seed in range(20 if name == "truncated chunk" else 1):  # every chunk, sooner or later
        DAMAGES[name][0](source, Random(seed))
    output = ("-o", tmp_path / "light.zarr") if command == "illumination" else ()
    assert phbatch_command(command, source, *output) == 3
    assert phbatch_command.err.splitlines()[-1].startswith("error: ")
    assert "error: unexpected" not in phbatch_command.err
    assert not (tmp_path / "light.zarr").exists()


BOMBED = [(name, kind) for name in BOMBS for kind in DAMAGES[name][1]]


@pytest.mark.parametrize("place", ["s3", "http"])
@pytest.mark.parametrize(("name", "kind"), BOMBED)
def test_a_bomb_in_an_object_store_is_refused(
    phbatch_command: CommandLine, bucket: Bucket, web_server: str, tmp_path: Path, place: str, name: str, kind: str
) -> None:
    for number, seed in enumerate((0, 1)):  # both codecs
        folder = tmp_path / "served" / str(number)
        folder.mkdir(parents=True)
        path = make_image(folder, kind)
        DAMAGES[name][0](path, Random(seed))
        source = upload(path, bucket, f"{number}/in.zarr") if place == "s3" else f"{web_server}/{number}/in.zarr"
        given = ("--storage-options", json.dumps(bucket.options())) if place == "s3" else ()
        before = peak_bytes(reset=True)
        assert phbatch_command("stats", source, *given) == 3
        assert "says that it holds" in phbatch_command.err
        assert phbatch_command("run", source, tmp_path / f"{number}.zarr", "--model", "none", *given) == 4
        assert all(
            "says that it holds" in line for line in phbatch_command.err.splitlines() if line.startswith("unit ")
        )
        assert peak_bytes() - before < GROWTH_BYTES


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("codec", ["gzip", "zstd", "blosc"])
def test_the_guard_lets_good_chunks_pass(bucket: Bucket, tmp_path: Path, kind: str, codec: str) -> None:
    frames = np.random.default_rng(0).integers(0, 9, (3, 40, 36), "uint16")
    options: dict[str, Any] = {"chunks": (2, 20, 17), "zarr_format": 2 if kind == "array2" else 3}
    options["shards"] = (4, 40, 34) if kind == "sharded3" else None
    options["compressors"] = COMPRESSORS[codec][options["zarr_format"] - 2]
    if kind == "ome05":  # an index at the start, without a checksum, and byte order that Rust does not read
        inner = ShardingCodec(chunk_shape=(2, 20, 17), index_codecs=[BytesCodec()], index_location="start")
        options = {"chunks": (4, 40, 34), "zarr_format": 3, "serializer": inner, "compressors": None}
    zarr.create_array(tmp_path / "in.zarr", data=frames, **options)
    store = parse_storage_options(bucket.options())
    for path, secret in ((str(tmp_path / "in.zarr"), None), (upload(tmp_path / "in.zarr", bucket, "in.zarr"), store)):
        block = open_source(Place.at(path, secret), "tyx").read(to_region((0, 0, 0, 0, 0), (3, 1, 1, 40, 36)))
        np.testing.assert_array_equal(block[:, 0, 0], frames)
