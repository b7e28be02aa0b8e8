"""What is looked at while a microscope writes it: one image, or those of a plate, a collection or a pattern."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from phbatch.inputs.arrival import Arrival, Arrived
from phbatch.inputs.opening import open_input
from phbatch.inputs.positions import Positions, find_positions, name_images
from phbatch.microscopes.store import RecordingPlace
from phbatch.microscopes.tiff_folder import TiffFolder
from phbatch.running.accept_positions import AcceptedPositions, geometries_of
from phbatch.running.begin import AcceptedRun
from phbatch.running.growth import pools_over_time
from phbatch.words.errors import InputError, UsageError
from phbatch.words.settings import RunSettings

_NOTHING = Arrived(0, 0, changed=False, full=False)


@dataclass
class WatchedImage:
    """One image: what looks at it, and what the last look found.

    Attributes
    ----------
    arrival : Arrival
        Looks.
    together : int
        Frames along t that are restored together.
    held : range
        Frames along t of its output of an earlier call, which does not get shorter.
    seen : Arrived
        Nothing before the first look.
    """

    arrival: Arrival
    together: int
    held: range = range(0)
    seen: Arrived = _NOTHING

    @classmethod
    def of(cls, run: AcceptedRun, held: range) -> WatchedImage:
        """The image of a run."""
        geometry = run.resolved.geometry
        opening = partial(open_input, run.source.path, run.settings)
        return cls(Arrival(opening, geometry.channels), geometry.time_groups.length, held)

    def look(self) -> bool:
        """Look once more; whether anything came.

        Raises
        ------
        InputError
            Its metadata are being written, or its server is away.
        """
        self.seen = self.arrival.look()
        return self.seen.changed

    def ready(self, settings: RunSettings) -> range:
        """Frames along t that can be restored now."""
        return settings.select_frames(self.seen.frames // self.together * self.together)

    def whole(self, settings: RunSettings) -> range:
        """Frames along t up to the last of which anything is there; what its output has, where that is more."""
        found = settings.select_frames(self.arrival.count())
        return found if len(found) >= len(self.held) else self.held

    def limit(self, settings: RunSettings, frames: range) -> str | None:
        """Some frames as a setting; None where the settings select the same."""
        same = settings.select_frames(self.seen.length) == frames
        return None if same else f"{frames.start}:{frames.stop}:{frames.step}"


class Watch:
    """One image, that an output is made of.

    Attributes
    ----------
    images : dict of str to WatchedImage
        By their names; that of one alone is empty.
    absent : int
        How many images are still to come.
    """

    def __init__(self, images: dict[str, WatchedImage]) -> None:
        self.images, self.absent = images, 0

    def look(self) -> bool:
        """Look once more; whether anything came.

        Raises
        ------
        InputError
            The metadata are being written, or the server is away.
        """
        moved = [image.look() for image in self.images.values()]
        return any(moved)

    @property
    def full(self) -> str:
        """What says that all frames are there of an input that was made as large as it will be; empty while not."""
        (image,) = self.images.values()
        return f"all {image.seen.length} frames that it was made for are there" if image.seen.full else ""

    @property
    def missing(self) -> dict[str, str]:
        """What is listed and was never begun, each with a sentence."""
        return {}

    def reached(self, last: int) -> bool:
        """Whether a frame is there of every image."""
        return not self.absent and all(image.seen.frames > last for image in self.images.values())

    def whole(self, settings: RunSettings) -> dict[str, range]:
        """All frames along t of every image, once nothing comes any more."""
        return {name: image.whole(settings) for name, image in self.images.items()}


class PositionsWatch(Watch):
    """Many images, to which others may come where the metadata or folders of the input grow.

    Parameters
    ----------
    accepted : AcceptedPositions
        The images that are there.
    accept : callable
        Accepts images that came.
    """

    def __init__(self, accepted: AcceptedPositions, accept: Callable[[Positions], AcceptedPositions]) -> None:
        super().__init__({})
        self.positions = accepted.positions
        self._settings, self._accept = accepted.settings, accept
        self._listed, self._steady, self._ahead = _listing(accepted.positions), True, False
        self._held = _held(accepted.recorded)
        self._take_up(accepted)

    def look(self) -> bool:
        """As of one image; those that came are taken up."""
        found = find_positions(self.positions.input, self._settings)
        names = {} if found is None else name_images(found.paths)
        if found is None or not self.images.keys() <= names.keys():
            raise InputError(f"{self.positions.input} does not list all that it did; wait, or mend its metadata.")
        moved = found.paths != self.positions.paths
        self.positions = found
        if new := names.keys() - self.images.keys():
            moved |= self._try(found.only(name for name in names if name in new))
        for image in self.images.values():
            try:
                moved |= image.look()
            except InputError:  # it is being written: the next look will tell
                continue
        self.absent = len(names) - len(self.images) + len(found.bare)
        self._judge(_listing(found))
        return moved

    @property
    def full(self) -> str:
        """As of one image, where the input listed all wells, or images of a collection, before they had frames."""
        each = [image.seen for image in self.images.values()]
        listed = self._ahead and self._steady and self.positions.kind != "images"
        full = not self.absent and all(0 < seen.frames == seen.length for seen in each)
        if not (listed and full and any(seen.full for seen in each)):
            return ""
        return f"all frames that its {len(each)} images were made for are there"

    @property
    def missing(self) -> dict[str, str]:
        """Wells that the input lists, of which no field came."""
        return {well: f"no field of it came; call again when {well} is written." for well in self.positions.bare}

    def whole(self, settings: RunSettings) -> dict[str, range]:
        """As of one image; of one that cannot be opened, nothing."""
        found = {}
        for name, image in self.images.items():
            with suppress(InputError):
                found[name] = image.whole(settings)
        return found

    def chosen(self, names: Collection[str]) -> Positions:
        """Some of the images, and those that an output of an earlier call has."""
        listed = name_images(self.positions.paths)
        return self.positions.only(name for name in listed if name in names or name in self._held)

    def _judge(self, listing: Mapping[str, Collection[str]]) -> None:
        """Find out whether what is listed is all that will come: it stays, and is listed before it has frames."""
        before = self._listed
        self._steady &= before.keys() == listing.keys()
        self._steady &= all(not images or images == listing.get(group) for group, images in before.items())
        self._listed = listing
        begun = {name for name, image in self.images.items() if image.seen.frames}
        self._ahead |= bool(begun) and any(begun.isdisjoint(images) for images in listing.values())

    def _try(self, positions: Positions) -> bool:
        """Take up those of some images that can be opened by now."""
        try:
            accepted = self._accept(positions)
        except InputError:
            return False
        self._take_up(accepted)
        return True

    def _take_up(self, accepted: AcceptedPositions) -> None:
        for name, run in accepted.runs.items():
            if name not in self.images:
                require_followable(run)
                self.images[name] = WatchedImage.of(run, self._held.get(name, range(0)))


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


def watch_image(accepted: AcceptedRun) -> Watch:
    """What looks at the one image of a run."""
    recorded = accepted.recorded if accepted.continued else None
    held = range(*recorded["fingerprint"]["settings"]["frames"]) if recorded else range(0)
    return Watch({"": WatchedImage.of(accepted, held)})


def _listing(positions: Positions) -> Mapping[str, Collection[str]]:
    """Images of every well, or, of a collection, every image as a group of its own."""
    found: dict[str, list[str]] = {well: [] for well in positions.bare}
    for name in name_images(positions.paths):
        found.setdefault(name.rpartition("/")[0] if positions.kind == "plate" else name, []).append(name)
    return found


def _held(recorded: Mapping[str, Any] | None) -> dict[str, range]:
    """Frames along t of the images of an output, of what its root says."""
    if recorded is None or "fingerprint" not in recorded:
        return {}
    return {path: geometry.times for path, geometry in geometries_of(recorded).items()}
