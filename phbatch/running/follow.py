"""Following a microscope: frames are restored as they come, round by round, until no more come.

A round is a run over the frames that are there, of an output that is extended (`phbatch.running.growth`): whatever
moment it is killed at, the same call goes on, and so does a plain run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic, sleep

from phbatch.inputs.arrival import Arrival, Arrived
from phbatch.inputs.image import MAX_FRAMES
from phbatch.inputs.opening import open_input
from phbatch.microscopes.store import RecordingPlace
from phbatch.microscopes.tiff_folder import TiffFolder
from phbatch.places.place import Place
from phbatch.running.begin import AcceptedRun
from phbatch.running.growth import pools_over_time
from phbatch.words.durations import format_duration
from phbatch.words.errors import InputError, InterruptedRunError, UsageError
from phbatch.words.events import Listener, Notice, Stop
from phbatch.words.results import RunResult
from phbatch.words.settings import RunSettings

LOOK_S = 1.0
"""How long after a look that found nothing new the next one is."""

_SLICE_S = 0.1

Round = Callable[[RunSettings, Listener, "Collection[str] | None"], RunResult]
"""A run with some settings; where more will come, with the units that failed and are left for the end."""


def await_input(path: str, settings: RunSettings, listener: Listener, stop: Stop) -> None:
    """Return once an input can be opened.

    Raises
    ------
    InputError
        It cannot, and nothing came for as long as is waited.
    InterruptedRunError
        `stop` said so.
    """
    place, began, told = Place.at(path, settings.storage_options), monotonic(), False
    while True:
        ended = _is_marked(settings) or monotonic() - began > settings.follow_timeout
        absent = not place.exists()
        try:
            open_input(path, settings)
        except InputError as error:
            if ended or not (told or absent or _is_early(error)):
                raise
            if not told:
                text = f"waiting up to {format_duration(settings.follow_timeout)} for the input: {error}"
                listener(Notice(text))
                told = True
        else:
            return
        _wait(stop, f"stopped before {path} was there")


def require_followable(accepted: AcceptedRun) -> None:
    """Refuse to restore frames as they come where a frame depends on those that come later.

    Raises
    ------
    UsageError
        Says what it depends on.
    """
    settings = accepted.settings
    cause = pools_over_time(settings, accepted.resolved) or ("--stats" if settings.stats is not None else "")
    if cause:
        raise UsageError(
            f"--follow restores frames as they come, and {cause} needs all of them: leave one out, or run without"
            " --follow once all is there."
        )
    place = accepted.source.place
    if isinstance(place, RecordingPlace) and not isinstance(place.recording, TiffFolder):
        raise UsageError(
            f"--follow needs a file for each frame, or a Zarr, and {place} is {place.recording.kind}, whose frames"
            " share a file that changes with each; run without --follow once all is there."
        )
    if settings.frames is not None and "-" in settings.frames:
        raise UsageError(
            f"--frames {settings.frames} counts from the end, which --follow does not know: count from the first frame."
        )


def follow(accepted: AcceptedRun, again: Round, listener: Listener, stop: Stop) -> RunResult:
    """Restore frames as they come, and finish the output when no more come.

    Parameters
    ----------
    accepted : AcceptedRun
        Of the input as it is now.
    again : callable
        A run over the frames that are there.
    listener, stop
        As for `phbatch.run`.

    Returns
    -------
    RunResult
        Of all rounds together.

    Raises
    ------
    InputError
        No frame came.
    InterruptedRunError
        `stop` said so; what was finished is committed.
    """
    settings, geometry = accepted.settings, accepted.resolved.geometry
    together = geometry.time_groups.length
    arrival = Arrival(partial(open_input, accepted.source.path, settings), geometry.channels)
    wanted = settings.select_frames(MAX_FRAMES)
    done, result, failed = 0, None, dict[str, str]()
    held = _held(accepted)
    changed = monotonic()
    while True:
        ended = _is_marked(settings)
        try:
            seen = arrival.look()
        except InputError:  # its metadata are being written, or its server is away
            if monotonic() - changed > settings.follow_timeout:
                raise
            _wait(stop, f"stopped after {done} frames along t, with more to come")
            continue
        changed = monotonic() if seen.changed else changed
        reason = _end(settings, seen, wanted, monotonic() - changed, marked=ended)
        count = arrival.count() if reason else seen.frames // together * together
        frames = settings.select_frames(count)
        if reason:
            if not frames:
                raise InputError(f"no frame of {accepted.source.path} came ({reason}); call again when it is written.")
            listener(Notice(f"the input is taken as ended: {reason}."))
            last = again(_over(settings, frames, seen.length, begun=result is not None), listener, None)
            return _together(result, last)
        if len(frames) > done and len(frames) >= held:
            now = again(_over(settings, frames, seen.length, begun=result is not None), listener, failed)
            failed |= now.failed
            done, result = len(frames), _together(result, now)
            continue
        _wait(stop, f"stopped after {done} frames along t, with more to come")


def _held(accepted: AcceptedRun) -> int:
    """Frames along t of the output of an earlier call, which does not get shorter."""
    recorded = accepted.recorded if accepted.continued else None
    return len(range(*recorded["fingerprint"]["settings"]["frames"])) if recorded else 0


def _over(settings: RunSettings, frames: range, length: int, *, begun: bool) -> RunSettings:
    """Settings of a run over some frames; as they were given, where that selects the same."""
    changes: dict[str, object] = {"overwrite": False} if begun else {}
    if settings.select_frames(length) != frames:
        changes["frames"] = f"{frames.start}:{frames.stop}:{frames.step}"
    return settings.model_copy(update=changes)


def _end(settings: RunSettings, seen: Arrived, wanted: range, quiet_s: float, *, marked: bool) -> str:
    """Why no more frames will come; empty while they may."""
    if marked:
        return f"{settings.follow_until} is there"
    if wanted.stop < MAX_FRAMES and seen.frames > wanted[-1]:
        return f"all frames of --frames {settings.frames} are there"
    if seen.full:
        return f"all {seen.length} frames that it was made for are there"
    if quiet_s > settings.follow_timeout:
        return f"nothing new came for {format_duration(settings.follow_timeout)}"
    return ""


def _is_early(error: InputError) -> bool:
    """Whether an input may only not be begun yet, and is not of a kind that is refused."""
    return isinstance(error.__cause__, FileNotFoundError) or "has length zero" in str(error)


def _is_marked(settings: RunSettings) -> bool:
    return settings.follow_until is not None and Path(settings.follow_until).expanduser().exists()


def _wait(stop: Stop, stopped: str) -> None:
    until = monotonic() + LOOK_S
    while True:
        if stop():
            raise InterruptedRunError(f"{stopped}; call the same command again to continue.")
        left = until - monotonic()
        if left <= 0:
            return
        sleep(min(left, _SLICE_S))


def _together(before: RunResult | None, now: RunResult) -> RunResult:
    """Rounds as one run."""
    if before is None:
        return now
    stages = {name: before.stages.get(name, 0) + now.stages.get(name, 0) for name in {**before.stages, **now.stages}}
    return replace(
        now,
        units_done=before.units_done + now.units_done,
        units_skipped=before.units_skipped,
        seconds=before.seconds + now.seconds,
        pixels=before.pixels + now.pixels,
        restoring_seconds=before.restoring_seconds + now.restoring_seconds,
        stages=stages,
        notices=tuple(dict.fromkeys((*before.notices, *now.notices))),
    )
