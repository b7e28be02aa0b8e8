"""Codecs of the output, for both formats of Zarr."""

from __future__ import annotations

from typing import Any, Literal

import numcodecs
from zarr.codecs import BloscCodec, ZstdCodec

from phbatch.words.settings import Codec, Shuffle

_LZ4_LEVEL, _ZSTD_LEVEL = 5, 1  # higher ones cost time and save less than 2 % of restored float32 frames


def make_compressor(codec: Codec, shuffle: Shuffle, zarr_format: Literal[2, 3]) -> Any:
    """Compressor for `zarr.Group.create_array`; None where chunks are stored as they are.

    Parameters
    ----------
    codec : {"auto", "blosc-lz4", "blosc-zstd", "zstd", "none"}
        ``auto`` is Blosc with LZ4: the fastest to write, at nearly the size of the others.
    shuffle : {"auto", "byte", "bit"}
        Of Blosc; ``auto`` shuffles bytes for LZ4 and bits for Zstandard.
    zarr_format : {2, 3}
        Of the output.
    """
    if codec == "none":
        return None
    if codec == "zstd":
        return numcodecs.Zstd(level=3) if zarr_format == 2 else ZstdCodec(level=3)
    name: Literal["lz4", "zstd"] = "zstd" if codec == "blosc-zstd" else "lz4"
    level = _ZSTD_LEVEL if name == "zstd" else _LZ4_LEVEL
    bits = shuffle == "bit" or (shuffle == "auto" and name == "zstd")
    if zarr_format == 2:
        return numcodecs.Blosc(name, level, numcodecs.Blosc.BITSHUFFLE if bits else numcodecs.Blosc.SHUFFLE)
    return BloscCodec(cname=name, clevel=level, shuffle="bitshuffle" if bits else "shuffle")
