"""What must be known before the first frame is restored: the light, a scale, and the statistics of others."""

from __future__ import annotations

from functools import partial

from phbatch.computing.tasks import Job
from phbatch.frames.table import StatisticsTable
from phbatch.running.begin import AcceptedRun
from phbatch.running.illumination import IlluminationResult, estimate_light, light_aside
from phbatch.running.measure import measure_before, measure_in_pieces
from phbatch.running.scale import require_good_frames, require_scale
from phbatch.words.events import Listener, StageStarted, Stop


def look_at_light(accepted: AcceptedRun, listener: Listener) -> tuple[AcceptedRun, IlluminationResult | None]:
    """Estimate the profile of a run that needs one, and say what is wrong with it."""
    if accepted.settings.illumination not in ("none", None):
        listener(StageStarted("looking at the light"))
    said = len(accepted.notices)
    accepted, light = estimate_light(accepted)
    for notice in accepted.notices[said:]:
        listener(notice)
    return accepted, light


def measure_first(
    accepted: AcceptedRun, light: IlluminationResult | None, stop: Stop, listener: Listener
) -> StatisticsTable | None:
    """Refuse a new run that no frame has a scale in; returns the statistics where they are known with that."""
    if accepted.given is not None or accepted.continued:
        return accepted.given
    if light is not None and accepted.settings.scheduler is not None:
        return None  # workers elsewhere read an estimated profile from the new output
    resolved = accepted.resolved
    with light_aside(accepted, light) as job:
        if resolved.recipe.passes > 1:
            return statistics_before(accepted, job, stop, listener)
        require_scale(
            job, resolved.geometry.units, workers=resolved.workers, scheduler=accepted.settings.scheduler, stop=stop
        )
    return None


def statistics_before(accepted: AcceptedRun, job: Job, stop: Stop, listener: Listener) -> StatisticsTable | None:
    """Statistics that must be known before the first frame is restored; None where each unit measures its own."""
    if accepted.given is not None or accepted.resolved.recipe.passes == 1:
        return accepted.given
    resolved = accepted.resolved
    listener(StageStarted("measuring", resolved.geometry.frames))
    if resolved.recipe.in_bands:
        measuring = partial(measure_in_pieces, job, accepted.source, resolved.geometry, workers=resolved.readers)
    else:
        measuring = partial(
            measure_before,
            job,
            resolved.geometry,
            accepted.source.dtype,
            workers=resolved.workers,
            scheduler=accepted.settings.scheduler,
        )
    table = measuring(stop=stop, listener=listener)
    require_good_frames(table, resolved.recipe)
    return table
