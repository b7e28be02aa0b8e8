"""What a run says of itself: where it begins, and of its frames at the end."""

from __future__ import annotations

from math import prod

import numpy as np

from phbatch.frames.table import StatisticsTable
from phbatch.outputs.finished import Finished
from phbatch.planning.units import Geometry
from phbatch.running.begin import AcceptedRun
from phbatch.words.axes import FrameKey
from phbatch.words.events import Event, Notice, RunStarted


def started_event(accepted: AcceptedRun, finished: Finished) -> Event:
    """Where a run begins."""
    geometry = accepted.resolved.geometry
    units, bands = len(geometry.units), geometry.bands
    planned = accepted.resolved.memory.projected_mem if accepted.settings.scheduler is None else 0
    return RunStarted(
        accepted.output.path,
        units,
        len(finished),
        geometry.frames * bands,
        finished.pieces,
        piece_pixels(geometry),
        planned,
        counted=counted_in(geometry),
    )


def piece_pixels(geometry: Geometry) -> int:
    """Pixels of one frame, or of a band of it, about."""
    return frame_pixels(geometry) // geometry.bands


def counted_in(geometry: Geometry) -> str:
    """What a run counts."""
    return "bands" if geometry.band else "frames"


def frame_pixels(geometry: Geometry) -> int:
    """Pixels of one frame."""
    return prod(geometry.shape[2 if geometry.volumes else 3 :])


def uncorrected_light(table: StatisticsTable) -> Notice | None:
    """What is said where the light of frames could not be corrected."""
    keys = [key for key, words in flagged_frames(table).items() if "uncorrected" in words]
    if not keys:
        return None
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return Notice(
        f"the light of {len(keys)} of {len(table)} frames ({', '.join(keys[:3])}{more}) is not corrected and they are"
        " flagged uncorrected: their background is not above 0, so that nothing can be divided by it; leave"
        " --illumination out for images whose background was subtracted, or take --illumination-mode subtract.",
        warning=True,
    )


def flagged_frames(table: StatisticsTable) -> dict[str, list[str]]:
    """Words of the frames that are flagged, by their keys."""
    rows = (table[int(index)] for index in np.flatnonzero(table.flag_bits))
    return {str(FrameKey(row["t"], row["c"], row["z"])): row["flags"] for row in rows}
