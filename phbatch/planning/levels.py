"""How the output is cut: its resolutions, and what is stored in one object."""

from __future__ import annotations

from phbatch.places.ome import Version
from phbatch.planning.chunks import count_levels
from phbatch.planning.units import Geometry
from phbatch.words.errors import UsageError
from phbatch.words.settings import RunSettings

_SHARD_BYTES = 64_000_000


def shard_bytes(settings: RunSettings, version: Version | None) -> int:
    """Pixels, uncompressed, that are stored in one object, about; 0 where every chunk is an object."""
    if settings.shard == "auto":
        return 0 if version == "0.4" else _SHARD_BYTES
    return int(settings.shard or 0)


def resolve_levels(settings: RunSettings, geometry: Geometry, begun: int | None) -> int:
    """Resolutions of the output: those asked for, those of the run that is continued, or as many as suit its size."""
    lengths = geometry.output_shape[3:]
    most = 1 + (max(lengths) - 1).bit_length()
    if settings.levels is not None and settings.levels > most:
        raise UsageError(
            f"--levels {settings.levels} is more than {lengths[0]} x {lengths[1]} pixels can be halved; give {most} or"
            " fewer."
        )
    found = settings.levels or begun or count_levels(lengths)
    if found == 1 and settings.level_method != "mean":
        raise UsageError(f"--level-method {settings.level_method} does nothing with one level; add --levels 2 or more.")
    return found
