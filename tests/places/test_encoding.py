"""Encoders make the bytes that zarr stores by itself, for any layout, the same every time."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from phbatch.places.columns import column_objects
from phbatch.places.compressor import make_compressor
from phbatch.places.encoding import Encoder
from phbatch.places.zarr_nodes import naming

CODECS: list[Any] = ["auto", "blosc-zstd", "blosc-lz4", "zstd", "none"]


def make_array(folder: Path, data: np.ndarray, chunks: tuple[int, ...], **layout: Any) -> zarr.Array[Any]:
    """The array as zarr writes it, empty chunks included."""
    return zarr.create_array(
        folder, data=data, chunks=chunks, fill_value=0, config={"write_empty_chunks": True}, **layout
    )


def stored(folder: Path) -> dict[str, bytes]:
    documents = {"zarr.json", ".zarray", ".zattrs"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in documents
    }


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_layout_has_the_bytes_that_zarr_stores(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    chunks = tuple(data.draw(st.integers(1, size)) for size in shape)
    zarr_format: Any = data.draw(st.sampled_from((2, 3)))
    sharded = zarr_format == 3 and data.draw(st.booleans())
    shards = tuple(chunk * data.draw(st.integers(1, 3)) for chunk in chunks) if sharded else None
    dtype = data.draw(st.sampled_from(("uint8", "uint16", "float32")))
    image = (np.random.default_rng(1).integers(0, 200, shape) * data.draw(st.sampled_from((0, 1)))).astype(dtype)
    compressor = make_compressor(data.draw(st.sampled_from(CODECS)), "auto", zarr_format, dtype)
    with TemporaryDirectory() as folder:
        array = make_array(Path(folder), image, chunks, compressors=compressor, zarr_format=zarr_format, shards=shards)
        encoder = Encoder("0", array)
        for _ in range(2):  # nothing of the first time is left
            encoded = encoder.encode(tuple(slice(0, size) for size in shape), image)
            assert encoded.name == "0"
            assert {key: bytes(value) for key, value in encoded.objects.items()} == stored(Path(folder))
        assert encoder._stored.keys() <= {"zarr.json", ".zarray", ".zattrs"}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("values", [np.arange(7.0), np.zeros(5), np.arange(3, dtype="uint32"), np.array([-1, -1])])
def test_a_column_is_what_zarr_stores(tmp_path: Path, zarr_format: Any, values: np.ndarray) -> None:
    make_array(tmp_path / "expected", values, values.shape, zarr_format=zarr_format, **naming(["frame"], zarr_format))
    expected = {
        path.relative_to(tmp_path / "expected").as_posix(): path.read_bytes()
        for path in (tmp_path / "expected").rglob("*")
        if path.is_file()
    }
    assert column_objects(zarr_format, values) == expected
    assert column_objects(zarr_format, values + 1) != expected  # of the same length and dtype


def test_threads_that_open_encoders_at_once_change_nothing_for_the_process(tmp_path: Path) -> None:
    image = np.zeros((4, 4), np.uint16)  # chunks that hold nothing but the fill value
    array = make_array(tmp_path / "a", image, (2, 2), shards=(4, 4))
    everything, expected = (slice(0, 4), slice(0, 4)), stored(tmp_path / "a")
    before = zarr.config.get("array"), zarr.config.get("codec_pipeline")
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(6) as threads:
            for _ in range(30):
                for encoder in threads.map(lambda _: Encoder("0", array), range(6)):
                    found = encoder.encode(everything, image).objects
                    assert {key: bytes(value) for key, value in found.items()} == expected
    finally:
        sys.setswitchinterval(usual)
    assert (zarr.config.get("array"), zarr.config.get("codec_pipeline")) == before
