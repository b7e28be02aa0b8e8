"""The residual check: what a restoration removed should look like noise; frames are judged one by one."""

from __future__ import annotations

import heapq
from dataclasses import asdict, dataclass, field
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.downsample import area_average
from phbatch.kernels.residual import CORRELATED, FrameResidual, judge_residual
from phbatch.tools.report_pictures import as_uri, gray

_LISTED = 12
_NAMED = 3
_DRAWN = 1000
_SIDE = 480
_SHARE = 0.005  # of the windows that may look like structure by chance
_BARELY = 0.05  # of the noise: what is removed below it is nothing


@dataclass(frozen=True)
class RemovedPlace:
    """A window that structure was removed from.

    Attributes
    ----------
    frame : str
        Its key, such as ``"t0/c0"``.
    y, x, side : int
        First row and column and side, in pixels of the output.
    autocorrelation : float
        Of what was removed there, one or two pixels apart, whichever is larger.
    excess : float
        Removed variance there over that of the input's noise.
    """

    frame: str
    y: int
    x: int
    side: int
    autocorrelation: float
    excess: float


@dataclass(frozen=True, eq=False)
class ResidualCheck:
    """Whether what was removed (input - output) looks like noise.

    Attributes
    ----------
    frames : tuple of str
        That were looked at.
    lag_1, lag_2 : float
        Autocorrelation of what was removed, one and two pixels apart; 0 of noise, below it where some noise stayed.
    structure : float
        Correlation of the removed variance with the local gradient of what was kept, the median over the frames.
    removed : float
        Standard deviation of what was removed over that of the input's noise.
    intensity, over_noise : tuple of float
        Intensities, from dark to bright, and the removed variance there over that of the measured photon curve: even,
        and 1 at most, of noise.
    windows, structured : int
        That were judged, and that structure was removed from.
    places : tuple of RemovedPlace
        The worst of them.
    picture : str
        What was removed from the worst frame, as a data URI; gray is nothing.
    boxes : tuple of (x, y, width, height)
        The places in that picture, in percent of it.
    """

    frames: tuple[str, ...]
    lag_1: float
    lag_2: float
    structure: float
    removed: float
    intensity: tuple[float, ...]
    over_noise: tuple[float, ...]
    windows: int
    structured: int
    places: tuple[RemovedPlace, ...]
    picture: str = field(default="", repr=False)
    boxes: tuple[tuple[float, float, float, float], ...] = field(default=(), repr=False)

    @property
    def verdict(self) -> str:
        """``"noise"``, ``"structure"`` or ``"nothing"``."""
        if self.structured > _SHARE * self.windows or (self.lag_1 > CORRELATED and self.removed > 0.5):
            return "structure"
        return "noise" if self.removed > _BARELY else "nothing"

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        numbers = (
            f"autocorrelation {self.lag_1:.2f} at one pixel and {self.lag_2:.2f} at two, {self.removed:.2f} times the"
            " noise of the input"
        )
        if self.verdict == "nothing":
            return f"nothing: what was removed is {self.removed:.2f} times the noise of the input."
        if self.verdict == "noise":
            return f"noise: {numbers}."
        named = [f"{place.frame} y {place.y} x {place.x}" for place in self.places[:_NAMED]]
        more = f" and {self.structured - len(named)} more windows" if self.structured > len(named) else ""
        at = f", at these places: {', '.join(named)}{more} of {self.windows}" if named else ""
        return f"structure was removed{at} ({numbers})."

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; without the picture."""
        facts = {name: value for name, value in asdict(self).items() if name not in ("picture", "boxes")}
        return {"verdict": self.verdict, "sentence": self.sentence, **facts}


@dataclass(frozen=True, eq=False)
class _Curve:
    """What is kept of a frame."""

    structure: float
    intensity: NDArray[np.float64]
    over_noise: NDArray[np.float64]


class ResidualChecker:
    """Judges frames one by one, and keeps a few numbers of each."""

    def __init__(self) -> None:
        self._frames: list[str] = []
        self._curves: list[_Curve] = []
        self._lags = np.zeros(3)
        self._noise = self._windows = self._structured = 0.0
        self._places: list[tuple[float, int, RemovedPlace]] = []
        self._worst: tuple[float, str, tuple[tuple[float, float, float, float], ...]] | None = None

    def add(
        self,
        frame: str,
        before: NDArray[np.floating],
        after: NDArray[np.floating],
        corner: tuple[int, int] = (0, 0),
    ) -> None:
        """Judge a frame, or the part of it that starts at a corner."""
        found = judge_residual(before, after)
        if found is None:
            return
        self._frames.append(frame)
        self._lags += found.lags
        self._noise += float(found.noise.mean())
        self._windows += found.windows
        self._structured += len(found.places)
        self._curves.append(_Curve(found.structure, found.intensity, found.removed / found.noise))
        for place in found.places[:_LISTED]:
            named = RemovedPlace(
                frame, place.y + corner[0], place.x + corner[1], place.side, place.autocorrelation, place.excess
            )
            score = max(place.autocorrelation, 0.0) * place.excess + place.excess / 10
            entry = (score, -len(self._frames), named)
            if len(self._places) < _LISTED:
                heapq.heappush(self._places, entry)
            elif entry[:2] > self._places[0][:2]:
                heapq.heapreplace(self._places, entry)
        badness = len(found.places) / max(found.windows, 1)
        if self._worst is None or badness > self._worst[0]:
            self._worst = (badness, *draw_removed(before, after, found))

    def result(self) -> ResidualCheck | None:
        """What was found; None where no frame could be judged."""
        if not self._frames or self._worst is None:
            return None
        power = float(self._lags[0])
        lags = self._lags / power if power > 0 else self._lags
        bins = min(len(found.intensity) for found in self._curves)
        intensity, over_noise = (
            tuple(float(value) for value in np.mean([_resampled(values, bins) for values in curves], axis=0))
            for curves in ([c.intensity for c in self._curves], [c.over_noise for c in self._curves])
        )
        return ResidualCheck(
            frames=tuple(self._frames),
            lag_1=float(lags[1]),
            lag_2=float(lags[2]),
            structure=float(np.median([curve.structure for curve in self._curves])),
            removed=sqrt(power / self._noise) if self._noise > 0 else 0.0,
            intensity=intensity,
            over_noise=over_noise,
            windows=int(self._windows),
            structured=int(self._structured),
            places=tuple(place for *_, place in sorted(self._places, key=lambda entry: entry[:2], reverse=True)),
            picture=self._worst[1],
            boxes=self._worst[2],
        )


def draw_removed(
    before: NDArray[np.floating], after: NDArray[np.floating], found: FrameResidual
) -> tuple[str, tuple[tuple[float, float, float, float], ...]]:
    """What was removed, made small: averages of noise fade and structure stays; and its places in percent."""
    removed = np.nan_to_num(np.asarray(before, np.float32) - np.asarray(after, np.float32))
    reach = 3 * sqrt(max(float(found.lags[0]), 1e-30))
    small = area_average(removed, max(1, -(-max(removed.shape) // _SIDE)))
    height, width = removed.shape
    boxes = tuple(
        (100 * place.x / width, 100 * place.y / height, 100 * place.side / width, 100 * place.side / height)
        for place in found.places[:_DRAWN]
    )
    return as_uri(gray(small, (-reach, reach))), boxes


def _resampled(values: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    return np.array([part.mean() for part in np.array_split(values, bins)])
