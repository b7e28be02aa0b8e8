"""The end of a run: tables, windows of what is shown, and that the output is complete."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.table import StatisticsTable
from phbatch.kernels.display import Extent, extent_of_blocks
from phbatch.outputs.completing import finish_image, measures_shown
from phbatch.outputs.creation import IMAGE
from phbatch.outputs.finished import Finished
from phbatch.outputs.writer import Sink
from phbatch.running.begin import AcceptedRun
from phbatch.words.axes import FrameKey, Region


def finish(accepted: AcceptedRun, finished: Finished) -> None:
    """Write what is left to write of an output whose units are all finished."""
    sink, shown, recipe = Sink(accepted.output), finished.shown, accepted.resolved.recipe
    if recipe.in_bands and measures_shown(accepted.image, recipe, given=accepted.settings.stats is not None):
        shown = _measure_shown(accepted, finished.table, sink)
    finish_image(sink, accepted.image, finished.table, shown)


def _measure_shown(accepted: AcceptedRun, table: StatisticsTable, sink: Sink) -> StatisticsTable:
    """Extents of frames that were written in bands, read back band by band."""
    geometry, axes = accepted.resolved.geometry, accepted.image.metadata.axes
    shown = StatisticsTable(geometry.shown_grid)
    for key in geometry.shown_grid:
        extent: Extent | None = None
        made_of = (key.c,) if geometry.keeps_channels else geometry.channels
        if any(_is_shown(accepted, table, FrameKey(key.t, c, key.z)) for c in made_of):
            regions = list(_bands_of(accepted, key))

            def read(regions: list[Region] = regions) -> Iterator[NDArray[np.generic]]:
                return (sink.read(IMAGE, axes, region) for region in regions)

            extent = extent_of_blocks(read)
        values = extent if extent is not None and np.isfinite(extent.max) else [None] * len(Extent._fields)
        shown.put({"t": key.t, "c": key.c, "z": key.z} | dict(zip(Extent._fields, values, strict=True)))
    return shown


def _is_shown(accepted: AcceptedRun, table: StatisticsTable, key: FrameKey) -> bool:
    """Whether a frame was restored or copied, and has no padding; see `phbatch.computing.tasks.extents_of`."""
    recipe, at = accepted.resolved.recipe, table.grid.index(key)
    passed = not np.isfinite(table.column("divisor")[at])
    passed |= bool(table.flag_bits[at]) and recipe.bad_frames != "normalize"
    return bool((not passed or key.c in recipe.copied) and not table.column("padding")[at] > 0)


def _bands_of(accepted: AcceptedRun, key: FrameKey) -> Iterator[Region]:
    """Where in the output the bands of a frame are."""
    geometry = accepted.resolved.geometry
    t = geometry.times.index(key.t)
    c = geometry.channels.index(key.c) if geometry.keeps_channels else key.c
    z = key.z or 0
    for band in range(geometry.bands):
        rows = geometry.band_rows(band)[1]
        yield slice(t, t + 1), slice(c, c + 1), slice(z, z + 1), rows, slice(0, geometry.output_shape[4])
