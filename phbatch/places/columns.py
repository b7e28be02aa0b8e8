"""Columns of a table as zarr stores them, without asking zarr for each.

zarr takes some milliseconds to create an array, and the table of an output has twenty, of few dtypes and one length.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import zarr
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.storage import MemoryStore

from phbatch.places.direct import DirectChunks
from phbatch.places.encoding import Encoder
from phbatch.places.zarr_nodes import naming

_ROWS_OF_A_CHUNK = 1 << 22


def column_objects(zarr_format: Literal[2, 3], values: NDArray[Any]) -> dict[str, bytes]:
    """An array of one dimension, ``frame``: its documents and its chunks, by their keys within it.

    Examples
    --------
    >>> import numpy as np
    >>> sorted(column_objects(3, np.arange(9.0))), sorted(column_objects(2, np.arange(9.0)))
    (['c/0', 'zarr.json'], ['.zarray', '.zattrs', '0'])
    """
    documents, array, direct = _describe(zarr_format, values.dtype.str, len(values))
    rows = (slice(0, len(values)),)
    chunks = direct.encode(rows, values) if direct else Encoder("", array).encode(rows, values).objects
    return documents | {key: bytes(data) for key, data in chunks.items()}


@lru_cache(maxsize=64)
def _describe(
    zarr_format: Literal[2, 3], dtype: str, length: int
) -> tuple[dict[str, bytes], zarr.Array[Any], DirectChunks | None]:
    stored: dict[str, Buffer] = {}
    array = zarr.create_array(
        MemoryStore(stored),
        shape=(length,),
        chunks=(min(length, _ROWS_OF_A_CHUNK),),
        dtype=dtype,
        zarr_format=zarr_format,
        **naming(["frame"], zarr_format),
    )
    return {key: data.to_bytes() for key, data in stored.items()}, array, DirectChunks.of(array)
