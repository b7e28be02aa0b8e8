"""What a run will do, in numbers: of one image, or of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from phbatch.planning.units import source_reads
from phbatch.running.accept_positions import AcceptedPositions
from phbatch.running.begin import AcceptedRun, must_scan
from phbatch.words.events import Notice
from phbatch.words.results import PlanReport


def report_plan(accepted: AcceptedRun, notices: Sequence[Notice]) -> PlanReport:
    """The plan of one image."""
    resolved, recipe, source = accepted.resolved, accepted.resolved.recipe, accepted.source
    geometry = resolved.geometry
    scan = must_scan(accepted)
    itemsize = np.dtype(recipe.dtype).itemsize + (4 if recipe.uncertainty else 0)
    return PlanReport(
        input=source.path,
        output=accepted.output.path,
        axes=accepted.image.metadata.axes,
        shape=source.shape,
        output_shape=geometry.output_shape,
        output_chunks=geometry.output_chunks,
        dtype=recipe.dtype,
        model=accepted.model.name if accepted.model else None,
        normalization=recipe.rule.describe(),
        preparation=recipe.preparation.describe(upscaled=recipe.upscale_to is not None),
        units=len(geometry.units),
        frames=geometry.frames,
        passes=scan + recipe.passes,
        passes_reason=f"{recipe.reason}{'; a float input is searched for NaN first' if scan else ''}",
        bytes_read=source_reads(geometry) * source.dtype.itemsize * (scan + recipe.passes),
        bytes_written=geometry.output_pixels * itemsize,
        tile=recipe.tiles.tile if recipe.tiles else None,
        tiles_per_frame=len(recipe.tiles.tiles) if recipe.tiles else 0,
        halo=recipe.tiles.halo if recipe.tiles else 0,
        tile_overhead=recipe.tiles.overhead if recipe.tiles else 0.0,
        batch=recipe.batch,
        network=recipe.network if accepted.model else None,
        workers=resolved.workers,
        projected_mem=resolved.memory.projected_mem,
        allowed_mem=resolved.memory.allowed_mem,
        levels=tuple(level.shape[3:] for level in geometry.output_levels),
        notices=tuple(notice.text for notice in notices),
    )


def report_plans(accepted: AcceptedPositions, notices: Sequence[Notice]) -> PlanReport:
    """The plan of many images: units, frames and bytes are of all, and shapes of the largest."""
    each = [report_plan(run, ()) for run in accepted.runs.values()]
    return replace(
        report_plan(accepted.whole, notices),
        input=accepted.positions.input,
        units=len(accepted.units),
        frames=sum(report.frames for report in each),
        bytes_read=sum(report.bytes_read for report in each),
        bytes_written=sum(report.bytes_written for report in each),
    )
