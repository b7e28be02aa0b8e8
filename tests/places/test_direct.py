"""Chunks read in the thread that asks are those that zarr and zarrs read; what may be damaged is left to them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, ZstdCodec

from phbatch.places.direct import DirectChunks
from phbatch.places.zarr_nodes import open_node

COMPRESSORS: dict[int, list[Any]] = {
    2: [None, numcodecs.Blosc("zstd", 3, 2), numcodecs.Blosc("lz4"), numcodecs.Zstd(2), numcodecs.GZip()],
    3: [None, BloscCodec(cname="lz4"), BloscCodec(cname="zstd", shuffle="bitshuffle"), ZstdCodec(level=1), GzipCodec()],
}


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_selection_of_any_layout_is_read_as_zarr_and_zarrs_do(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    chunks = tuple(data.draw(st.integers(1, 5)) for _ in shape)
    starts = [data.draw(st.integers(0, size - 1)) for size in shape]
    selection = tuple(slice(at, data.draw(st.integers(at + 1, size))) for at, size in zip(starts, shape, strict=True))
    dtype = data.draw(st.sampled_from(("uint8", "int16", "float32", "float64")))
    zarr_format: Any = data.draw(st.sampled_from((2, 3)))
    compressor = data.draw(st.sampled_from(COMPRESSORS[zarr_format]))
    fill_value = data.draw(st.sampled_from((0, 7)))
    layout = {"shape": shape, "chunks": chunks, "dtype": dtype, "zarr_format": zarr_format}
    with TemporaryDirectory() as folder:
        array = zarr.create_array(folder, compressors=compressor, fill_value=fill_value, **layout)
        array[: data.draw(st.integers(0, shape[0]))] = 100  # the rest is absent, or filled up
        if data.draw(st.booleans()):
            array[selection] = np.random.default_rng(0).integers(0, 200, array[selection].shape)
        direct = DirectChunks.of(array)
        assert (direct is None) == isinstance(compressor, numcodecs.GZip | GzipCodec)
        if direct is not None:
            found = direct.read(Path(folder), selection)
            for fast in (True, False):
                np.testing.assert_array_equal(found, open_node(folder, "", "r", fast=fast)[selection])


@pytest.mark.parametrize(
    "layout",
    [
        {"dtype": ">u2"},
        {"shards": (4, 4)},
        {"filters": [numcodecs.Delta("<u2")], "zarr_format": 2},
        {"order": "F", "zarr_format": 2},
        {"dtype": "complex64"},
        {"dtype": "uint16", "serializer": BytesCodec(endian="big")},
    ],
    ids=str,
)
def test_what_is_not_plain_is_left_to_zarr(tmp_path: Path, layout: dict[str, Any]) -> None:
    layout = {"shape": (4, 4), "chunks": (2, 2), "dtype": "<u2"} | layout
    assert DirectChunks.of(zarr.create_array(tmp_path, **layout)) is None


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("number", range(4))
def test_a_chunk_whose_lengths_are_wrong_is_left_to_zarr(tmp_path: Path, zarr_format: Any, number: int) -> None:
    compressor = COMPRESSORS[zarr_format][number]
    array = zarr.create_array(
        tmp_path,
        data=np.arange(256, dtype="uint16").reshape(16, 16),
        chunks=(16, 16),
        zarr_format=zarr_format,
        compressors=compressor,
    )
    direct, everything = DirectChunks.of(array), (slice(0, 16),) * 2
    assert direct is not None
    path = tmp_path / array.metadata.encode_chunk_key((0, 0))
    whole = path.read_bytes()
    wider = zarr.create_array(
        tmp_path / "wider",
        data=np.ones((16, 32), "uint16"),
        chunks=(16, 32),
        zarr_format=zarr_format,
        compressors=compressor,
    )
    larger = (tmp_path / "wider" / wider.metadata.encode_chunk_key((0, 0))).read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"", whole[:10], larger, bytes(len(whole) + 1)):
        path.write_bytes(damaged)
        assert direct.read(tmp_path, everything) is None
    path.write_bytes(whole)
    np.testing.assert_array_equal(direct.read(tmp_path, everything), array[:])
    path.unlink()
    assert not direct.read(tmp_path, everything).any()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        direct.read(tmp_path, everything)
