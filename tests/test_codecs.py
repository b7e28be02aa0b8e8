"""Every codec, shuffle and shard holds the same pixels, and is what the output's metadata say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import phbatch
from phbatch.planning import units
from tests.handmade import CommandLine, write_model
from tests.movies import frames_of


@pytest.fixture
def source(tmp_path: Path) -> str:
    image = frames_of(phbatch.PhaseContrast(shape=(150, 130), n_frames=5, seed=3))
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, 150, 130))
    return str(tmp_path / "in.zarr")


@pytest.mark.parametrize("codec", ["auto", "blosc-lz4", "blosc-zstd", "zstd", "none"])
@pytest.mark.parametrize("shuffle", ["auto", "byte", "bit"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_codecs(tmp_path: Path, codec: str, shuffle: str, version: str) -> None:
    movie = phbatch.PhaseContrast(shape=(64, 50), n_frames=2, seed=3)
    if version == "0.5":
        phbatch.write_time_lapse(str(tmp_path / "in.zarr"), movie)
    else:
        group = zarr.open_group(tmp_path / "in.zarr", mode="w", zarr_format=2)
        group.create_array("0", data=frames_of(movie), chunks=(1, 64, 50))
        axes = [{"name": name, "type": kind} for name, kind in zip("tyx", ("time", "space", "space"), strict=True)]
        scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
        datasets = [{"path": "0", "coordinateTransformations": scale}]
        group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets, "name": "in"}]
    options: dict[str, Any] = {"model": "none", "codec": codec, "shuffle": shuffle}
    if shuffle != "auto" and codec in ("zstd", "none"):
        with pytest.raises(phbatch.UsageError, match="does not shuffle"):
            phbatch.run(tmp_path / "in.zarr", tmp_path / "o.zarr", **options)
        return
    expected = zarr.open_array(phbatch.run(tmp_path / "in.zarr", model="none").output, path="0")[:]
    array = zarr.open_array(phbatch.run(tmp_path / "in.zarr", tmp_path / "o.zarr", **options).output, path="0")
    np.testing.assert_array_equal(array[:], expected)
    text = json.dumps(
        [compressor.get_config() if version == "0.4" else compressor.to_dict() for compressor in array.compressors]
    )
    names = {"blosc-zstd": "zstd", "zstd": "zstd", "none": "[]"}
    assert names.get(codec, "lz4") in text
    assert ("blosc" in text) == (codec not in ("zstd", "none"))


@pytest.mark.parametrize(
    ("dtype", "shuffled"), [("uint16", "bitshuffle"), ("uint8", "shuffle"), ("float32", "shuffle")]
)
def test_lz4_shuffles_the_bits_of_counts(tmp_path: Path, dtype: str, shuffled: str) -> None:
    image = np.random.default_rng(0).normal(100, 9, (2, 64, 50)).astype(dtype)
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, 64, 50), dimension_names=("t", "y", "x"))
    phbatch.convert(tmp_path / "in.zarr", tmp_path / "out.zarr", levels=2)
    for path in ("0", "1/image"):
        (compressor,) = zarr.open_array(tmp_path / "out.zarr", path=path, mode="r").compressors
        assert compressor.to_dict()["configuration"]["shuffle"] == shuffled
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out.zarr", path="0", mode="r")[:], image)


@pytest.mark.parametrize("shard", ["1kB", "150kB", "200kB", "1GB"])
@pytest.mark.parametrize("workers", [1, 3])
def test_shards_are_whole_units(tmp_path: Path, source: str, shard: str, workers: int) -> None:
    model = write_model(tmp_path / "model")
    plain = phbatch.run(source, tmp_path / "plain.zarr", model=model)
    sharded = phbatch.run(source, tmp_path / "sharded.zarr", model=model, shard=shard, workers=workers)
    array = zarr.open_array(sharded.output, path="0", mode="r")
    assert array.shards is not None
    np.testing.assert_array_equal(array[:], zarr.open_array(plain.output, path="0", mode="r")[:])
    files = [file for file in Path(sharded.output, "0", "c").rglob("*") if file.is_file()]
    assert len(files) == sharded.units


def test_zarr_2_has_no_shards(phbatch_command: CommandLine, tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "in.zarr", mode="w", zarr_format=2)
    group.create_array("0", shape=(8, 8), chunks=(8, 8), dtype="uint16")
    axes = [{"name": name, "type": "space"} for name in "yx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0]}]}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets, "name": "in"}]
    assert phbatch_command("run", tmp_path / "in.zarr", "--model", "none", "--shard", "1MB") == 2
    assert "--shard needs Zarr 3" in phbatch_command.err


def test_the_profile_says_where_the_time_goes(phbatch_command: CommandLine, source: str) -> None:
    assert phbatch_command("run", source, "--profile", "--json", "--workers", "2", "--levels", "2") == 0
    record = json.loads(phbatch_command.out.splitlines()[-1])
    assert set(record["stages"]) == {"read", "measure", "normalize", "predict", "levels", "encode", "write"}
    busy = sum(
        seconds for stage, seconds in record["stages"].items() if stage != "write"
    )  # during which others compute
    assert 0 < busy <= record["restoring_seconds"] * 2 + 0.01
    assert phbatch_command("run", source, "--profile", "--overwrite", "--workers", "2") == 0
    assert "most of the time goes to predict" in phbatch_command.out


def test_a_damaged_shard_names_its_frames_and_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_UNIT_PIXELS", 104 * 101)
    image = np.random.default_rng(3).integers(400, 600, (5, 104, 101), dtype="uint16")
    zarr.create_array(tmp_path / "in.zarr", data=image, chunks=(1, 104, 101))
    result = phbatch.run(tmp_path / "in.zarr", tmp_path / "o.zarr", model="none", shard="100kB")
    assert result.units == 3
    files = sorted(file for file in Path(result.output, "0", "c").rglob("*") if file.is_file())
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[:-20])
    assert phbatch.verify(result.output).frames == ["t2/c0/z0", "t3/c0/z0"]
    assert phbatch.repair(result.output).units_done == 1
    assert files[1].read_bytes() == whole
    assert phbatch.verify(result.output).damages == ()
