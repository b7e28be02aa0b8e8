"""The end of an output: its statistics table, and the windows in which viewers show it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.recipe import Recipe
from phbatch.frames.table import StatisticsTable
from phbatch.kernels.display import Extent
from phbatch.kernels.intensity import cast
from phbatch.kernels.stats import FLAG_NAMES
from phbatch.outputs.creation import read_output_attributes
from phbatch.outputs.image import OutputImage, commit_metadata, forget_tasks
from phbatch.outputs.writer import Sink
from phbatch.places.display import complete_channels
from phbatch.places.table_file import STATISTICS

_ROWS_OF_WINDOWS = 1 << 22

_STATISTICS_OF_ENDS = ("min", "p2", "p99.8", "max")
"""What of a frame of the input becomes an end of its window (`phbatch.kernels.display.Extent`)."""


def finish_image(sink: Sink, image: OutputImage, table: StatisticsTable, shown: StatisticsTable | None = None) -> None:
    """Write the statistics table and the windows of what is shown, and say that the output is complete."""
    columns = ((name, table.flag_bits if name == "flags" else table.column(name)) for name in table.names)
    sink.write_table(
        STATISTICS, columns, {"flag_bits": list(FLAG_NAMES), "rows": len(table), "frame_axes": ["t", "c", "z"]}
    )
    attributes = read_output_attributes(sink.output) or {}
    attributes["status"] = "complete"
    if isinstance(attributes.get("statistics"), Mapping):  # of an output of before, which is mended
        attributes["statistics"] = {name: table.plain_column(name) for name in table.names}
    else:
        attributes["statistics"] = f"see the arrays of the group {STATISTICS}"
    sink.update_attributes(attributes, display_windows(image, table, shown) if needs_windows(image) else None)
    sink.remove_scratch()
    forget_tasks(sink.output)
    commit_metadata(sink.output, complete=True)


def needs_windows(image: OutputImage) -> bool:
    """Whether the display windows of an output are to be found."""
    windowed = all("window" in channel for channel in image.metadata.channels)
    return bool(image.metadata.channels) and not (image.rescaled and windowed)


def measures_shown(image: OutputImage, recipe: Recipe, *, given: bool) -> bool:
    """Whether what is written must be measured for that: else it is what was measured, multiplied.

    Averages and corrected pixels are counted in steps, and are measured for it, too.

    Parameters
    ----------
    image, recipe
        Of the output.
    given : bool
        Whether statistics are given in a table, which need not hold percentiles.
    """
    changed = recipe.tiles is not None or recipe.preparation.changes_pixels or recipe.upscale_to is not None
    computed = not (changed or recipe.copied or given)
    return needs_windows(image) and (recipe.copies or not computed)


def display_windows(
    image: OutputImage, table: StatisticsTable, shown: StatisticsTable | None = None
) -> list[dict[str, Any]]:
    """OMERO channels whose window fits the intensities: medians over frames of their percentiles 2 and 99.8 and range.

    They are those of the frames as written: measured, or, where nothing but a multiplication was done, computed from
    those of the input. Of more than four million frames, evenly spaced ones are taken. In the input's counts, and of
    channels that are copied, the input's own windows stay.
    """
    channels: list[Mapping[str, Any]] = []
    rows = table if shown is None else shown
    grid = rows.grid
    _, n_c, n_z = grid.shape
    steps = count(-(-len(grid) // _ROWS_OF_WINDOWS))
    some = slice(None, None, next(step for step in steps if gcd(step, n_c * n_z) == 1))  # else a channel may be missed
    indices = rows.column("c")[some]
    for index, channel in zip(grid.channels, image.metadata.channels, strict=True):
        if (image.rescaled or index in image.copied) and "window" in channel:
            channels.append(channel)
            continue
        frames, window = indices == index, {}
        for end, name, default in zip(Extent._fields, _STATISTICS_OF_ENDS, (0.0, 0.0, 1.0, 1.0), strict=True):
            measured = np.empty(0)
            if shown is not None and shown.known == len(shown):
                measured = _finite(shown.column(end)[some][frames])
            if measured.size:
                window[end] = float(np.median(measured))
            else:
                computed = _finite(_written(image, table, name, some)[frames]) if grid == table.grid else measured
                window[end] = _stored(image, float(np.median(computed)) if computed.size else default)
        channels.append(dict(channel) | {"window": window})
    return complete_channels(channels)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _stored(image: OutputImage, value: float) -> float:
    """What stands for a value in the output."""
    if image.packing is None:
        return value
    stored, _ = cast(np.array([value], np.float32), np.dtype(image.dtype), image.packing)
    return float(stored.item())


def _written(image: OutputImage, table: StatisticsTable, name: str, some: slice) -> NDArray[np.float64]:
    """What a statistic of the input is in the output; NaN where a frame was not normalized, or it is unknown."""
    if name not in table.names:
        return np.full(len(table), np.nan)[some]
    values, divisor = np.array(table.column(name)[some]), table.column("divisor")[some]
    values[~np.isfinite(divisor)] = np.nan
    if not image.rescaled:
        values = (values - table.column("offset")[some]) / divisor
    return values
