"""Whether a rule finds a scale in any frame of a run: where it finds none, the run is refused before it writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phbatch.computing.engine import execute
from phbatch.computing.measuring import find_scale
from phbatch.computing.tasks import Job
from phbatch.frames.recipe import Recipe
from phbatch.frames.table import StatisticsTable
from phbatch.kernels.intensity import make_affine
from phbatch.kernels.stats import FLAG_NAMES, flag_bits
from phbatch.planning.unit import Unit
from phbatch.running.measure import Stop
from phbatch.words.errors import InputError, InterruptedRunError

_KEPT_AS_THEY_ARE = flag_bits(("constant", "nonfinite"))


def require_scale(job: Job, units: Sequence[Unit], *, workers: int, scheduler: str | None, stop: Stop) -> None:
    """Refuse a run whose rule scales no frame, from the frames themselves: the first that it scales ends the search.

    Frames that are constant or not finite have no scale by any rule, and units that cannot be read are reported by the
    run: a run of nothing else is not refused.

    Raises
    ------
    InputError
        With the remedy.
    InterruptedRunError
        `stop` said so.
    """
    if job.recipe.rule.method in ("fixed", "none"):
        return
    unscaled = None
    for part in (units[:1], units[1:]):
        searched = 0
        for outcome in execute(find_scale, job, part, workers=workers, scheduler=scheduler, stop=stop):
            searched += 1
            if outcome.result is None or outcome.result.scaled:
                return
            unscaled = unscaled or outcome.result.unscaled
        if searched < len(part):
            raise InterruptedRunError(
                "stopped while frames were searched for a scale, and nothing is written; call the same command again"
                " to start."
            )
    if unscaled is not None:
        raise _no_scale(job.recipe, unscaled)


def require_good_frames(table: StatisticsTable, recipe: Recipe) -> None:
    """The same, from statistics that are known; where bad frames are not normalized, one must be good, too.

    Raises
    ------
    InputError
        With the remedy.
    """
    restored = ~np.isin(_channels_of(table), recipe.copied)
    if table.flag_bits[restored].all() and recipe.bad_frames != "normalize":
        words = [name for name in sorted(FLAG_NAMES) if (table.flag_bits & flag_bits((name,))).any()]
        raise InputError(
            f"every one of the {restored.sum()} frames is flagged ({', '.join(words)}), and --bad-frames"
            f" {recipe.bad_frames} normalizes none of them; correct the flags with --stats, or leave it out."
        )
    measured = restored & (table.flag_bits & _KEPT_AS_THEY_ARE == 0)
    keys = (table.grid.key(index) for index in range(len(table)) if measured[index])
    if measured.any() and not any(make_affine(table.statistics(key), recipe.rule) is not None for key in keys):
        raise _no_scale(recipe, str(table.grid.key(int(np.argmax(measured)))))


def _channels_of(table: StatisticsTable) -> NDArray[np.intp]:
    """Channel of every frame."""
    times, _, planes = table.grid.shape
    return np.tile(np.repeat(np.array(table.grid.channels, np.intp), planes), times)


def _no_scale(recipe: Recipe, frame: str) -> InputError:
    rule = recipe.rule
    others = [name for name in ("percentile", "zscore") if name != rule.method]
    return InputError(
        f"no frame has a scale by the rule {rule.describe()}, which must divide by more than 0 (frame {frame} is the"
        f" first of them): as where a background was subtracted; use --normalize {' or '.join(others)}.",
        frame=frame,
    )
