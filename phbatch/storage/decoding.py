"""zarr's own way of decoding, which looks at every chunk first: also those inside of shards and on object stores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Self

from zarr.abc.codec import BytesBytesCodec, Codec
from zarr.codecs import ShardingCodec
from zarr.codecs._v2 import V2Codec
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.registry import register_pipeline

from phbatch.storage.guard import WIDEST_FILTER, require_size, stated_bytes

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer


@dataclass(frozen=True)
class GuardedCodecPipeline(BatchedCodecPipeline):
    """zarr's pipeline; a chunk that says that it decodes to more than a chunk is refused with `InputError`."""

    @classmethod
    def from_codecs(cls, codecs: Iterable[Codec], *, batch_size: int | None = None) -> Self:  # noqa: D102
        return super().from_codecs([_guard(codec) for codec in codecs], batch_size=batch_size)


register_pipeline(GuardedCodecPipeline)


def _guard(codec: Codec) -> Codec:
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=tuple(_guard(inner) for inner in codec.codecs))
    if isinstance(codec, V2Codec):
        return _GuardedV2Codec(codec.filters, codec.compressor)
    if isinstance(codec, BytesBytesCodec) and not isinstance(codec, _GuardedCodec):
        return _GuardedCodec(codec)
    return codec


@dataclass(frozen=True)
class _GuardedCodec(BytesBytesCodec):
    """A compressor of Zarr 3 that looks before it decodes."""

    codec: BytesBytesCodec

    @property
    def is_fixed_size(self) -> bool:  # type: ignore[override]
        return self.codec.is_fixed_size

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        _require_decodable(self.codec, chunk_data, chunk_spec, 1)
        return await self.codec._decode_single(chunk_data, chunk_spec)

    async def _encode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await self.codec._encode_single(chunk_data, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        return self.codec.compute_encoded_size(input_byte_length, chunk_spec)

    def resolve_metadata(self, chunk_spec: ArraySpec) -> ArraySpec:
        return self.codec.resolve_metadata(chunk_spec)

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> Self:
        return replace(self, codec=self.codec.evolve_from_array_spec(array_spec))

    def to_dict(self) -> dict[str, Any]:
        return self.codec.to_dict()


@dataclass(frozen=True)
class _GuardedV2Codec(V2Codec):
    """The codecs of Zarr 2, which look before they decode."""

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        _require_decodable(self.compressor, chunk_bytes, chunk_spec, WIDEST_FILTER if self.filters else 1)
        return await super()._decode_single(chunk_bytes, chunk_spec)


def _require_decodable(codec: Any, chunk: Buffer, spec: ArraySpec, widening: int) -> None:
    encoded = chunk.as_numpy_array()
    stated = stated_bytes(codec, encoded[:18].tobytes(), encoded[-4:].tobytes())
    require_size("a chunk", stated, prod(spec.shape) * spec.dtype.to_native_dtype().itemsize * widening)
