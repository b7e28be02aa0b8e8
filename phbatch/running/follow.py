"""Following a microscope: frames are restored as they come, round by round, until no more come.

A round is a run over the frames that are there, of an output that is extended (`phbatch.running.growth`): whatever
moment it is killed at, the same call goes on, and so does a plain run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

from phbatch.inputs.image import MAX_FRAMES
from phbatch.inputs.opening import open_input
from phbatch.inputs.positions import find_positions
from phbatch.places.place import Place
from phbatch.running.watching import Watch
from phbatch.words.durations import format_duration
from phbatch.words.errors import InputError, InterruptedRunError
from phbatch.words.events import Listener, Notice, Stop
from phbatch.words.results import RunResult
from phbatch.words.settings import RunSettings

LOOK_S = 1.0
"""How long after a look that found nothing new the next one is."""

LOOK_AT_IMAGE_S = 0.05
"""The same for each of many images, if that is longer; a round takes some milliseconds for each of them."""

_SLICE_S = 0.1

Frames = Mapping[str, str | None]
"""Of some images, by their names, the frames along t that are restored; None where it is those of the settings."""

Round = Callable[[RunSettings, Frames, Listener, Collection[str] | None], RunResult]
"""A run of some images; where more will come, with the units that failed and are left for the end."""


def limits_in(frames: Frames) -> dict[str, str]:
    """Those frames that are not those of the settings."""
    return {name: limit for name, limit in frames.items() if limit is not None}


def await_input(path: str, settings: RunSettings, listener: Listener, stop: Stop) -> None:
    """Return once an input can be opened, or, of many images, one of them.

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
            _require_any(path, settings)
        except InputError as error:
            if ended or not (told or absent or _is_early(error)):
                raise
            if not told:
                text = f"waiting up to {format_duration(settings.follow_timeout)} for the input: {error}"
                listener(Notice(text))
                told = True
        else:
            return
        _wait(stop, f"stopped before {path} was there", LOOK_S)


def _require_any(path: str, settings: RunSettings) -> None:
    """Open an input, or, of many images, one of them."""
    positions = find_positions(path, settings)
    if positions is None:
        open_input(path, settings)
        return
    first_error: InputError | None = None
    for place in positions.places.values():
        try:
            open_input(place, settings)
        except InputError as error:
            first_error = first_error or error
        else:
            return
    raise InputError(f"no image of {path} can be opened: {first_error}") from FileNotFoundError(path)


def follow(watch: Watch, settings: RunSettings, path: str, again: Round, listener: Listener, stop: Stop) -> RunResult:
    """Restore frames as they come, and finish the output when no more come.

    Parameters
    ----------
    watch : Watch
        Looks at the input.
    settings : RunSettings
        Of the run.
    path : str
        Of the input.
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
    wanted = settings.select_frames(MAX_FRAMES)
    done, result, failed = dict[str, int](), None, dict[str, str]()
    changed = monotonic()
    while True:
        pause_s = max(LOOK_S, LOOK_AT_IMAGE_S * len(watch.images))
        stopped = f"stopped after {sum(done.values())} frames along t, with more to come"
        ended = _is_marked(settings)
        try:
            moved = watch.look()
        except InputError:  # its metadata are being written, or its server is away
            if monotonic() - changed > settings.follow_timeout:
                raise
            _wait(stop, stopped, pause_s)
            continue
        changed = monotonic() if moved else changed
        reason = _end(settings, watch, wanted, monotonic() - changed, marked=ended)
        now = settings if result is None else settings.model_copy(update={"overwrite": False})
        if reason:
            frames = _limits(settings, watch.whole(settings), watch)
            if not frames:
                raise InputError(f"no frame of {path} came ({reason}); call again when it is written.")
            listener(Notice(f"the input is taken as ended: {reason}."))
            last = again(now, frames, listener, None)
            return _together(result, replace(last, failed={**last.failed, **watch.missing}))
        ready = {name: image.ready(settings) for name, image in watch.images.items()}
        short = {name for name, image in watch.images.items() if len(ready[name]) < len(image.held)}
        if any(len(frames) > done.get(name, 0) for name, frames in ready.items() if name not in short):
            ready |= {name: watch.images[name].held for name in short}
            found = again(now, _limits(settings, ready, watch), listener, failed)
            failed |= found.failed
            done, result = {name: len(frames) for name, frames in ready.items()}, _together(result, found)
            if pause_s == LOOK_S:
                continue
        _wait(stop, stopped, pause_s)


def _limits(settings: RunSettings, frames: Mapping[str, range], watch: Watch) -> dict[str, str | None]:
    """Of the images that have any, the frames along t that are restored, where the settings do not select the same."""
    return {name: watch.images[name].limit(settings, some) for name, some in frames.items() if some}


def _end(settings: RunSettings, watch: Watch, wanted: range, quiet_s: float, *, marked: bool) -> str:
    """Why no more frames will come; empty while they may."""
    if marked:
        return f"{settings.follow_until} is there"
    if wanted.stop < MAX_FRAMES and watch.reached(wanted[-1]):
        return f"all frames of --frames {settings.frames} are there"
    if full := watch.full:
        return full
    if quiet_s > settings.follow_timeout:
        return f"nothing new came for {format_duration(settings.follow_timeout)}"
    return ""


def _is_early(error: InputError) -> bool:
    """Whether an input may only not be begun yet, and is not of a kind that is refused."""
    said = str(error)
    early = ("has length zero", "holds no image", "matches no Zarr array")
    return isinstance(error.__cause__, FileNotFoundError) or any(words in said for words in early)


def _is_marked(settings: RunSettings) -> bool:
    return settings.follow_until is not None and Path(settings.follow_until).expanduser().exists()


def _wait(stop: Stop, stopped: str, seconds: float) -> None:
    until = monotonic() + seconds
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
