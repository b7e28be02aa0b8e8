"""The size of the input's pixels against that of the pixels that a model was trained on."""

from __future__ import annotations

from phbatch.inputs.image import Source
from phbatch.network.model import Model
from phbatch.words.events import Notice

MICROMETERS = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "um": 1.0, "\u00b5m": 1.0, "micron": 1.0}
"""Of the units of lengths, by their names."""

SECONDS = {
    "nanosecond": 1e-9,
    "microsecond": 1e-6,
    "millisecond": 1e-3,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
}
"""Of the units of times, by their names."""

_TOLERANCE = 0.15  # networks are trained on cells whose sizes differ as much


def pixel_size_notices(model: Model, source: Source, downscale: int) -> tuple[Notice, ...]:
    """A warning where both the model and the image say how large a pixel is, and they differ."""
    trained, metadata = model.facts.get("pixel_size_um"), source.metadata
    unit = metadata.units[metadata.axes.index("x")]
    if not isinstance(trained, int | float) or not trained > 0 or unit not in MICROMETERS:
        return ()
    size = metadata.scale[metadata.axes.index("x")] * MICROMETERS[unit]
    if not 0 < size < float("inf") or abs(size * downscale / trained - 1) <= _TOLERANCE:
        return ()
    nearest = max(1, round(trained / size))
    remedy = f"--downscale {nearest} comes nearest" if nearest != downscale else "no --downscale comes nearer"
    return (
        Notice(
            f"model {model.name} was trained on pixels of {trained:g} micrometers and these are"
            f" {size * downscale:.4g}: structures have another size to it, so compare with the input; {remedy}.",
            warning=True,
        ),
    )
