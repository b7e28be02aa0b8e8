"""Codecs of the output, for both formats of Zarr."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any, Literal

import numcodecs
import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from phbatch.places.place import Place
from phbatch.words.choices import Codec, Shuffle
from phbatch.words.errors import first_line

_LZ4_LEVEL, _ZSTD_LEVEL = 5, 1  # higher ones cost time and save less than 2 % of restored float32 frames


def make_compressor(codec: Codec, shuffle: Shuffle, zarr_format: Literal[2, 3], dtype: str) -> Any:
    """Compressor for `zarr.Group.create_array`; None where chunks are stored as they are.

    Parameters
    ----------
    codec : {"auto", "blosc-lz4", "blosc-zstd", "zstd", "none"}
        ``auto`` is Blosc with LZ4: the fastest to write, at nearly the size of the others.
    shuffle : {"auto", "byte", "bit"}
        Of Blosc; ``auto`` shuffles bits for Zstandard, and for LZ4 of 16 bit integers: counts of a camera, whose lower
        bits are noise, take less time and less room so. For LZ4 of others it shuffles bytes.
    zarr_format : {2, 3}
        Of the output.
    dtype : str
        Of the pixels.
    """
    if codec == "none":
        return None
    if codec == "zstd":
        return numcodecs.Zstd(level=3) if zarr_format == 2 else ZstdCodec(level=3)
    name: Literal["lz4", "zstd"] = "zstd" if codec == "blosc-zstd" else "lz4"
    level = _ZSTD_LEVEL if name == "zstd" else _LZ4_LEVEL
    bits = shuffle == "bit" or (shuffle == "auto" and (name == "zstd" or dtype in ("uint16", "int16")))
    if zarr_format == 2:
        return numcodecs.Blosc(name, level, numcodecs.Blosc.BITSHUFFLE if bits else numcodecs.Blosc.SHUFFLE)
    return BloscCodec(cname=name, clevel=level, shuffle="bitshuffle" if bits else "shuffle")


def try_codec(codec: Codec) -> str:
    """Write an image with a codec in both formats and read it as runs do; says what goes wrong, or nothing."""
    image = np.random.default_rng(0).normal(1000, 30, (64, 64)).astype("uint16")
    formats: tuple[Literal[2, 3], ...] = (2, 3)
    with TemporaryDirectory(prefix="phbatch-") as folder:
        try:
            for zarr_format in formats:
                place = Place.at(f"{folder}/{zarr_format}.zarr")
                compressor = make_compressor(codec, "auto", zarr_format, image.dtype.name)
                zarr.create_array(place.store(), data=image, zarr_format=zarr_format, compressors=compressor)
                with place.pipeline():
                    found = place.open()
                    if not isinstance(found, zarr.Array) or not np.array_equal(np.asarray(found[:]), image):
                        return "other pixels come back"
        except Exception as error:  # whatever a broken library raises
            return first_line(error)
    return ""
