"""An input that has grown along t: its output is appended to, and what is in it stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phbatch.computing.identity import find_differences
from phbatch.planning.resolve import ResolvedRun
from phbatch.planning.units import Geometry
from phbatch.running.begin import AcceptedRun
from phbatch.words.choices import ESTIMATED_BACKGROUNDS, FRAME_BACKGROUNDS
from phbatch.words.errors import OutputError
from phbatch.words.settings import RunSettings

_OF_PIXELS = ("files", "bytes", "digest")  # of an input whose frames depend on each other: they change as it grows


def has_grown(accepted: AcceptedRun, recorded: Mapping[str, Any], mark: Mapping[str, Any]) -> bool:
    """Whether an output is of the same run, of the same input while that had fewer frames along t.

    Parameters
    ----------
    accepted : AcceptedRun
        What is asked for.
    recorded : mapping
        What the output says of its run.
    mark : mapping
        Fingerprint of what is asked for.

    Raises
    ------
    OutputError
        It is, and the frames that are finished depend on those that came since.
    """
    old, axes = recorded["fingerprint"], accepted.source.stored_axes
    shape, frames = old["input"].get("shape"), old.get("settings", {}).get("frames")
    if "t" not in axes or shape is None or frames is None or len(shape) != len(axes):
        return False
    length, first = shape[axes.index("t")], range(*frames)
    before = mark_before(accepted, mark, length, first)
    known = {name: value for name, value in old["input"].items() if name not in _OF_PIXELS}
    if before is None or find_differences(old | {"input": known}, before):
        return False
    require_appendable(accepted, first)
    return True


def mark_before(accepted: AcceptedRun, mark: Mapping[str, Any], length: int, first: range) -> dict[str, Any] | None:
    """Fingerprint of what is asked for as it was while the input had fewer frames along t.

    Parameters
    ----------
    accepted : AcceptedRun
        What is asked for, of one image.
    mark : mapping
        Its fingerprint.
    length : int
        Of the input along t before.
    first : range
        Frames of the output then.

    Returns
    -------
    dict or None
        None where nothing came since.
    """
    now, later = accepted.source.shape[0], accepted.resolved.geometry.times
    if "t" not in accepted.source.stored_axes or length > now or later[: len(first)] != first:
        return None
    if (length, len(first)) == (now, len(later)):
        return None
    identity = accepted.source.identity(pixels=False, times=length)
    frames = [first.start, first.stop, first.step]
    return {**mark, "input": identity, "settings": mark["settings"] | {"frames": frames}}


def require_appendable(accepted: AcceptedRun, first: range) -> None:
    """Refuse to append where the frames that are finished depend on those that came since.

    Raises
    ------
    OutputError
        Names the setting.
    """
    later = accepted.resolved.geometry.times
    if len(later) > len(first) and (cause := pools_over_time(accepted.settings, accepted.resolved)):
        raise OutputError(
            f"{accepted.output} holds {len(first)} frames along t and there are {len(later)} now; with {cause} those"
            " that came since change all others: start afresh with --overwrite, or choose another output."
        )


def pools_over_time(settings: RunSettings, resolved: ResolvedRun) -> str:
    """The setting that makes frames depend on others along t; empty where none does."""
    recipe = resolved.recipe
    if settings.illumination in ESTIMATED_BACKGROUNDS and settings.illumination not in FRAME_BACKGROUNDS:
        return f"--illumination {settings.illumination}"
    if recipe.given or not recipe.depends_on_series:
        return ""
    if recipe.scope != "image":
        return f"--scope {recipe.scope}"
    if recipe.smooth_time > 1:
        return f"--smooth-time {recipe.smooth_time}"
    return f"--bad-frames {recipe.bad_frames}"


def keeps_layout(geometry: Geometry, before: Geometry) -> bool:
    """Whether the chunks of an output are still right: of few small frames, all may lie in one that is too short."""
    return (before.output_chunks, before.output_shards) == (geometry.output_chunks, geometry.output_shards)
