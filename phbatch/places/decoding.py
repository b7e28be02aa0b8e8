"""zarr's own way of decoding, which looks at every chunk first: also those inside of shards and on object stores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Self

import zarr
from zarr.abc.codec import ArrayBytesCodec, BytesBytesCodec, Codec, CodecPipeline
from zarr.codecs import ShardingCodec
from zarr.registry import get_pipeline_class, register_pipeline

from phbatch.places.guard import WIDEST_FILTER, require_size, stated_bytes

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer

    class _PipelineOfZarr(CodecPipeline): ...
else:
    # Whatever the host has chosen: the pipeline is zarr's default one, which any of its versions names.
    with zarr.config.set({"codec_pipeline.path": zarr.config.defaults[0]["codec_pipeline"]["path"]}):
        _PipelineOfZarr = get_pipeline_class()


class GuardedCodecPipeline(_PipelineOfZarr):
    """zarr's pipeline; a chunk that says that it decodes to more than a chunk is refused with `InputError`."""

    @classmethod
    def from_codecs(cls, codecs: Iterable[Codec], **options: Any) -> Self:  # noqa: D102
        return super().from_codecs([_guard(codec) for codec in codecs], **options)


register_pipeline(GuardedCodecPipeline)  # type: ignore[type-abstract]


def _guard(codec: Codec) -> Codec:
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=tuple(_guard(inner) for inner in codec.codecs))
    if isinstance(codec, BytesBytesCodec) and not isinstance(codec, _Guarded):
        return _GuardedCodec(codec)
    if isinstance(codec, ArrayBytesCodec) and hasattr(codec, "compressor"):
        return _GuardedChain(codec)
    return codec


@dataclass(frozen=True)
class _Guarded:
    """A codec that looks before it decodes; all else is left to the codec that it holds."""

    codec: Any
    is_fixed_size = False

    def _looked_at(self) -> tuple[Any, int]:
        """Codec that made the chunk's first bytes, and how far others may have widened the pixels before."""
        return self.codec, 1

    # The two that zarr asks the author of a codec for; what comes and goes has the types of the codec that is held.
    async def _decode_single(self, chunk_data: Buffer, chunk_spec: Any) -> Any:
        codec, widening = self._looked_at()
        encoded = chunk_data.as_numpy_array()
        stated = stated_bytes(codec, encoded[:18].tobytes(), encoded[-4:].tobytes())
        size = prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize
        require_size("a chunk", stated, size * widening)
        (decoded,) = await self.codec.decode([(chunk_data, chunk_spec)])
        return decoded

    async def _encode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        (encoded,) = await self.codec.encode([(chunk_data, chunk_spec)])
        return encoded

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        return int(self.codec.compute_encoded_size(input_byte_length, chunk_spec))

    def resolve_metadata(self, chunk_spec: Any) -> Any:
        return self.codec.resolve_metadata(chunk_spec)

    def evolve_from_array_spec(self, array_spec: Any) -> Self:
        return replace(self, codec=self.codec.evolve_from_array_spec(array_spec))

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = self.codec.to_dict()
        return found


class _GuardedCodec(_Guarded, BytesBytesCodec):
    """A compressor of Zarr 3."""


class _GuardedChain(_Guarded, ArrayBytesCodec):
    """All codecs of Zarr 2 in one."""

    def _looked_at(self) -> tuple[Any, int]:
        return self.codec.compressor, WIDEST_FILTER if self.codec.filters else 1
