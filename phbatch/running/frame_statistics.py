"""Statistics of frames, of an image or of many; nothing is written."""

from __future__ import annotations

from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from phbatch.computing.machine import going_to, plan_for
from phbatch.computing.tasks import forget_open_stores
from phbatch.computing.versions import await_workers
from phbatch.frames.position_statistics import PositionStatistics
from phbatch.frames.table import StatisticsTable
from phbatch.inputs.opening import open_input
from phbatch.inputs.positions import find_positions
from phbatch.inputs.presence import require_chunks
from phbatch.planning.resolve import resolve_statistics
from phbatch.running.illumination import profile_of
from phbatch.running.measure import describe, measure_frames
from phbatch.running.measure_positions import measure_positions
from phbatch.running.told import uncorrected_light
from phbatch.words.events import Listener, Notice, RunStarted, Stop, ignore, logging_notices, never
from phbatch.words.option_types import StatisticsOptions
from phbatch.words.options import parse_options
from phbatch.words.settings import RunSettings

if TYPE_CHECKING:
    from distributed import Client


def statistics(
    input: str | Path,
    *,
    listener: Listener = ignore,
    stop: Stop = never,
    client: Client | None = None,
    **options: Unpack[StatisticsOptions],
) -> StatisticsTable | PositionStatistics:
    """Statistics of every frame of an image, or of many.

    Parameters
    ----------
    input : str or Path
        As for `run`.
    listener : callable
        Called with every event.
    stop, client
        As for `run`.
    **options
        `axes`, `wells`, `fields`, `channel`, `frames`, `pattern`, `position`, `sigma`, `pmin`, `pmax`, `percentiles`,
        `smooth_time`, `scope`, `illumination`, `illumination_mode`, `downscale`, `memory`, `workers`, `threads`,
        `scheduler`, `wait_workers`, `retries`, `storage_options`.

    Returns
    -------
    StatisticsTable or PositionStatistics
        A sequence with one dict per frame, in the order of t, c, z: ``t``, ``c``, ``z``, ``median``, ``mode``,
        ``mad``, ``mean``, ``std``, ``min``, ``max``, percentiles as ``p2`` and ``p99.8``, ``saturated``, ``zero``,
        ``focus``, ``background``, ``padding`` (`phbatch.kernels.stats.FrameStatistics` says what they are), with
        `smooth_time` also ``median_smooth`` and ``mode_smooth``, with another `scope` than ``image`` also
        ``pooled_median`` and so on, and ``flags``, a list of words that is empty when the frame is good. Statistics of
        frames with NaN or infinity are None. Of a plate, a collection or a pattern rows begin with ``position``, the
        path of the image; `tables` has the table of each, and `left_out` says which could not be measured, and why.

    Raises
    ------
    InputError
        The input cannot be read, or a frame cannot be measured.
    InterruptedRunError
        `stop` said so.
    """
    settings, listener = parse_options("statistics", options), logging_notices(listener)
    positions = find_positions(str(input), settings)
    if positions is None:
        open_input(input, settings)  # before workers are awaited
    with going_to(client, settings.scheduler, stop, listener) as scheduler:
        settings = settings.model_copy(update={"scheduler": scheduler})
        await_workers(settings, stop, listener)
        if positions is not None:
            return measure_positions(positions, settings, stop, listener)
        return _statistics(input, settings, listener, stop)


def _statistics(input: str | Path, settings: RunSettings, listener: Listener, stop: Stop) -> StatisticsTable:
    source = open_input(input, settings)
    resolved = plan_for(settings.scheduler, partial(resolve_statistics, settings, source), stop)
    geometry = resolved.geometry
    for text in (*source.notices, *require_chunks(source, geometry.times, geometry.channels)):
        listener(Notice(text))
    listener(RunStarted("", len(geometry.units), 0, geometry.frames, 0, prod(source.shape[3:])))
    with profile_of(settings, source, geometry, listener) as profile:
        forget_open_stores()
        table = measure_frames(resolved, source, settings, profile, stop, listener)
    table.measured = describe(source, resolved.recipe)
    if uncorrected := uncorrected_light(table):
        listener(uncorrected)
    return table
