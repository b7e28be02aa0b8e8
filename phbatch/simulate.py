"""A seeded phase-contrast time-lapse with known truth: cells, ring optics, lamp and camera.

Every frame is a pure function of (settings, t), so frames can be made alone, in any order, on any worker.

1. *Cells* are phase objects ``exp(i phi)``, ``phi = 2 pi / wavelength * sum(index difference * thickness)``: rods that
   grow from a fixed pole and divide, round cells that bud, adherent cells with arms, nucleus and granules, and debris.
2. *Optics* is an Abbe sum (Born and Wolf, Principles of Optics, 7th ed., section 10.6; 10.1017/CBO9781139644181): each
   point of the condenser annulus lights the object coherently, and the intensities add. A ring in the pupil dims and
   shifts by a quarter wave the direct light (Zernike 1942, 10.1016/S0031-8914(42)80035-X). The ring also catches light
   diffracted by small angles; that is the origin of halo and shade-off (Yin, Kanade and Chen 2012,
   10.1016/j.media.2011.12.006).
3. *Lamp*: a smooth uneven field, times the flicker and the occasional jumps of the level.
4. *Camera*: Poisson electrons, Gaussian read noise, gain, offset, 16 bits (EMVA Standard 1288, release 4.0).

Lengths are micrometres inside this module and pixels at its border.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from math import ceil, floor, isfinite, pi, sin
from typing import Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

__all__ = ["PhaseContrast"]

Float = NDArray[np.float32]
Kind = Literal["rods", "round", "adherent", "mixed"]

_INDEX_DIFFERENCE = {"rods": 0.035, "round": 0.03, "adherent": 0.02}  # cell minus medium
_LUT_SIZE = 1 << 14
_DARK = 1e-20  # of the pupil: its square is nothing beside what float32 holds
_FITTING = 0.3  # of the area: more cells lie over each other
_LEAST_PHASE = 0.02  # radians, of a pixel that is of a cell
_WHITE = 65535


@dataclass(frozen=True)
class PhaseContrast:
    """A phase-contrast time-lapse, described completely by its settings.

    Parameters
    ----------
    shape
        Height and width of a frame in pixels.
    n_frames
        Number of frames.
    seed
        Seed of everything that is random.
    kind
        The cells: "rods", "round", "adherent", or "mixed".
    density
        Fraction of the area that cells cover, 0 to 0.6. The rest is background. Above 0.3 cells lie over each other
        where no more fit beside each other.
    pixel_size_um
        Edge of a pixel in the sample, micrometres. At most wavelength_um / (2 na): the pupil must fit the grid.
    na, wavelength_um
        Numerical aperture of the objective, wavelength of the light in micrometres.
    ring_radius, ring_width
        Middle and full width of the phase ring, as fractions of the pupil radius. A wider ring: a tighter halo.
    ring_transmission
        Fraction of the light intensity that the ring lets through.
    contrast
        "positive" (cells dark on grey) or "negative" (cells bright).
    source_points
        Points on the condenser annulus. An odd number gives that many directions.
    defocus_um
        Distance of the cells from the focal plane.
    debris_per_mm2, roughness_rad
        Specks per square millimetre; standard deviation of the phase of the medium and glass.
    speed_um, cycle_frames
        Typical drift per frame; frames from one division to the next.
    illumination
        Largest deviation of the uneven field from 1, relative.
    flicker, jump, jump_probability
        Standard deviation of the lamp from frame to frame, size of a jump (both relative), chance of one per frame.
    background_electrons
        Photo-electrons per pixel in the background: the exposure. Its shot noise is 1/sqrt of it.
    gain, offset, read_noise_electrons
        Counts per electron, counts in the dark, standard deviation of the read-out in electrons.

    Examples
    --------
    >>> movie = PhaseContrast(shape=(64, 65), n_frames=3, seed=7)
    >>> noisy, clean = movie.pair(2)
    >>> noisy.shape, noisy.dtype.name, clean.dtype.name
    ((64, 65), 'uint16', 'float32')
    >>> bool((movie.frame(2) == noisy).all())
    True
    """

    shape: tuple[int, int] = (512, 512)
    n_frames: int = 100
    seed: int = 0
    kind: Kind = "mixed"
    density: float = 0.1
    pixel_size_um: float = 0.1625
    na: float = 0.75
    wavelength_um: float = 0.55
    ring_radius: float = 0.5
    ring_width: float = 0.12
    ring_transmission: float = 0.25
    contrast: Literal["positive", "negative"] = "positive"
    source_points: int = 9
    defocus_um: float = 0.0
    debris_per_mm2: float = 2000.0
    roughness_rad: float = 0.01
    speed_um: float = 0.05
    cycle_frames: float = 60.0
    illumination: float = 0.15
    flicker: float = 0.02
    jump: float = 0.2
    jump_probability: float = 0.02
    background_electrons: float = 60.0
    gain: float = 2.0
    offset: float = 100.0
    read_noise_electrons: float = 1.6

    def __post_init__(self) -> None:
        """Refuse settings that describe no microscope."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and not isfinite(value):
                raise ValueError(f"{field.name} is {value}; it must be finite")
        low_high: dict[str, tuple[float, float]] = {
            "n_frames": (1, 10**7), "seed": (0, 2**63), "density": (0, 0.6), "pixel_size_um": (1e-3, 100),
            "na": (0.01, 1.7), "wavelength_um": (0.2, 2), "ring_radius": (0.05, 0.95), "ring_width": (0.01, 0.5),
            "ring_transmission": (0.01, 1), "source_points": (1, 999), "debris_per_mm2": (0, 1e6),
            "roughness_rad": (0, 0.5), "speed_um": (0, 100), "cycle_frames": (2, 1e9), "illumination": (0, 0.9),
            "flicker": (0, 0.2), "jump": (0, 0.8), "jump_probability": (0, 1), "background_electrons": (1, 1e6),
            "gain": (1e-3, 1e3), "offset": (0, 1e4), "read_noise_electrons": (0, 1e3),
        }  # fmt: skip
        for name, (low, high) in low_high.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in {low:g} to {high:g}")
        if len(self.shape) != 2 or min(self.shape) < 8:
            raise ValueError(f"shape is {self.shape}; it must be (height, width) of at least 8 pixels each")
        if self.kind not in ("rods", "round", "adherent", "mixed"):
            raise ValueError(f"kind is {self.kind!r}; it must be rods, round, adherent or mixed")
        if self.contrast not in ("positive", "negative"):
            raise ValueError(f"contrast is {self.contrast!r}; it must be positive or negative")
        if self.pixel_size_um > self.wavelength_um / (2 * self.na):
            raise ValueError(
                f"pixel_size_um is {self.pixel_size_um}; the pupil fits only up to wavelength_um / (2 na) = "
                f"{self.wavelength_um / (2 * self.na):.4f}; lower na or pixel_size_um"
            )

    @property
    def light_field(self) -> Float:
        """The true uneven illumination relative to its middle, the same in every frame: (y, x) float32."""
        return _illumination(self)

    def clean(self, t: int) -> Float:
        """Make the noise-free frame `t`, in the counts of the noisy one.

        The truth keeps optics, uneven illumination, this frame's lamp level, the camera's offset and saturation: only
        shot noise, read noise and rounding are missing. A statistic such as the smoothed median therefore agrees
        between a noisy frame and its truth.

        Returns
        -------
        ndarray
            (y, x) float32, counts.
        """
        if not 0 <= t < self.n_frames:
            raise ValueError(f"frame {t} does not exist; the time-lapse has frames 0 to {self.n_frames - 1}")
        pad = _pad_px(self)
        height, width = self.shape
        seen = _intensity(self, _phase(self, t))[pad : pad + height, pad : pad + width]
        light = seen * _illumination(self) * np.float32(_lamp(self)[t] * self.background_electrons * self.gain)
        return np.asarray(np.minimum(light + np.float32(self.offset), _WHITE), np.float32)

    def cells(self, t: int) -> NDArray[np.bool_]:
        """Tell where the cells of frame `t` lie, without halo and debris: (y, x) bool."""
        pad, (height, width) = _pad_px(self), self.shape
        away = np.abs(_phase(self, t) - _static_phase(self)) > _LEAST_PHASE
        return np.asarray(away[pad : pad + height, pad : pad + width], bool)

    def frame(self, t: int) -> NDArray[np.uint16]:
        """Make the noisy frame `t`: (y, x) uint16, counts."""
        return self.pair(t)[0]

    def pair(self, t: int) -> tuple[NDArray[np.uint16], Float]:
        """Make the noisy frame `t` and its truth; the optics is computed once."""
        clean = self.clean(t)
        rng = np.random.default_rng([self.seed, 1, t])
        electrons = rng.poisson((clean - np.float32(self.offset)) / np.float32(self.gain)).astype(np.float32)
        if self.read_noise_electrons:
            electrons += np.float32(self.read_noise_electrons) * rng.standard_normal(self.shape, np.float32)
        counts = np.rint(electrons * np.float32(self.gain) + np.float32(self.offset))
        return np.clip(counts, 0, _WHITE).astype(np.uint16), clean


@dataclass(frozen=True)
class _Cell:
    """One cell: where it starts (y, x, in um on the padded field), how it drifts, and its own random numbers."""

    kind: str
    start_um: tuple[float, float]
    drift_um: tuple[float, float]
    size_um: float
    angle: float
    age: float
    dice: tuple[float, ...]  # 16 numbers in 0..1


def _pad_px(s: PhaseContrast) -> int:
    """Count the pixels to simulate around the frame: the reach of the halo, so that the FFT wraps round outside."""
    return max(16, min(128, ceil(s.wavelength_um / (s.ring_width * s.na) / s.pixel_size_um)))


def _canvas_shape(s: PhaseContrast) -> tuple[int, int]:
    height, width = (scipy.fft.next_fast_len(n + 2 * _pad_px(s)) for n in s.shape)
    return height, width


@lru_cache(maxsize=4)
def _cells(s: PhaseContrast) -> tuple[tuple[_Cell, ...], tuple[float, float]]:
    """Throw cells on a field larger than the canvas until `density` is reached; also return the field in um."""
    rng = np.random.default_rng([s.seed, 2])
    margin_um = 45.0 if s.kind in ("adherent", "mixed") else 15.0  # what wraps round the field does so out of sight
    field = tuple(n * s.pixel_size_um + margin_um for n in _canvas_shape(s))
    kinds = ("rods", "rods", "round", "adherent") if s.kind == "mixed" else (s.kind,)
    size = {"rods": (1.6, 3.2), "round": (1.8, 3.0), "adherent": (7.0, 12.0)}
    cells: list[_Cell] = []
    place = np.empty((0, 3))
    whole = field[0] * field[1]
    wanted, covered = s.density * whole, 0.0
    misses = 0
    while misses < 200 or s.density > _FITTING:
        kind = kinds[int(rng.integers(len(kinds)))]
        size_um = float(rng.uniform(*size[kind]))
        area = {"rods": 3.0 * size_um, "round": 4.0 * size_um**2, "adherent": 1.7 * size_um**2}[kind]
        if covered + area / 2 > wanted:
            break
        at = rng.uniform((0, 0), field)
        if kind != "adherent" and cells and rng.random() < 0.6:  # colonies
            at = (place[rng.integers(len(cells)), :2] + rng.normal(0, 3 * size_um, 2)) % field
        away = np.hypot(*(place[:, :2] - at).T) if cells else np.empty(0)
        reach = {"rods": 1.0, "round": 1.05, "adherent": 1.5}[kind] * size_um
        crowded = misses >= 200
        if not crowded and (away < place[: len(cells), 2] + reach).any():
            misses += 1
            continue
        misses = misses if crowded else 0
        place = np.vstack([place, (*at, reach)])
        drift = rng.normal(0, s.speed_um, 2)
        start, speed = (float(at[0]), float(at[1])), (float(drift[0]), float(drift[1]))
        angle, age, *dice = rng.random(18).tolist()
        cells.append(_Cell(kind, start, speed, size_um, 2 * pi * angle, age, tuple(dice)))
        covered += area * (1 - covered / whole) if crowded else area
    return tuple(cells), (float(field[0]), float(field[1]))


@lru_cache(maxsize=2)
def _static_phase(s: PhaseContrast) -> Float:
    """Draw what does not move, in radians: rough medium and glass, and specks of debris."""
    rng = np.random.default_rng([s.seed, 3])
    shape = _canvas_shape(s)
    phase = gaussian_filter(rng.standard_normal(shape, np.float32), 1.0 / s.pixel_size_um, mode="wrap")
    phase *= np.float32(s.roughness_rad / max(float(phase.std()), 1e-9))
    area_mm2 = shape[0] * shape[1] * s.pixel_size_um**2 * 1e-6
    for _ in range(int(rng.poisson(s.debris_per_mm2 * area_mm2))):
        at = rng.uniform((0, 0), np.asarray(shape) * s.pixel_size_um)
        _add_blob(phase, s, at, float(rng.uniform(0.12, 0.5)), float(rng.normal(0.05, 0.2)))
    return phase


def _phase(s: PhaseContrast, t: int) -> Float:
    """Draw the sample at frame `t`, in radians, on the padded canvas."""
    phase = _static_phase(s).copy()
    cells, field = _cells(s)
    for cell in cells:
        wobble = 4 * s.speed_um * sin(2 * pi * (t / (20 + 40 * cell.dice[0]) + cell.dice[1]))
        at = np.array([(p + d * t + wobble) % f for p, d, f in zip(cell.start_um, cell.drift_um, field, strict=True)])
        at -= (np.asarray(field) - np.asarray(phase.shape) * s.pixel_size_um) / 2
        {"rods": _add_rod, "round": _add_round, "adherent": _add_adherent}[cell.kind](phase, s, cell, at, t)
    return phase


def _window(
    phase: Float, s: PhaseContrast, at: NDArray[np.float64], reach_um: float
) -> tuple[tuple[slice, slice], Float, Float]:
    """Find the region of the canvas within `reach_um` of a point, and its y and x distances from it in um."""
    middle = at / s.pixel_size_um
    reach = reach_um / s.pixel_size_um + 1
    rows, columns = (
        slice(max(0, floor(m - reach)), max(0, min(n, ceil(m + reach) + 1)))
        for m, n in zip(middle, phase.shape, strict=True)
    )
    y = (np.arange(rows.start, rows.stop, dtype=np.float32) - np.float32(middle[0])) * np.float32(s.pixel_size_um)
    x = (np.arange(columns.start, columns.stop, dtype=np.float32) - np.float32(middle[1])) * np.float32(s.pixel_size_um)
    return (rows, columns), y[:, None], x[None, :]


def _radians(s: PhaseContrast, kind: str) -> float:
    """Give the phase per um of thickness of a kind of cell."""
    return 2 * pi / s.wavelength_um * _INDEX_DIFFERENCE[kind]


def _add_blob(phase: Float, s: PhaseContrast, at: NDArray[np.float64], sigma_um: float, peak: float) -> None:
    region, y, x = _window(phase, s, at, 3.5 * sigma_um)
    phase[region] += np.float32(peak) * np.exp((y * y + x * x) / np.float32(-2 * sigma_um**2))


def _add_spherocylinder(
    phase: Float, s: PhaseContrast, middle: NDArray[np.float64], angle: float, length: float, radius: float,
    bend: float, pinch: float, peak: float,
) -> None:  # fmt: skip
    """Add a bent rod of circular cross-section, `pinch` (0..1) narrower at its middle: chord length times `peak`."""
    region, y, x = _window(phase, s, middle, length / 2 + radius)
    along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    across = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
    across = across - np.float32(bend / length) * (along * along - np.float32(length * length / 12))
    beyond = np.maximum(np.abs(along) - np.float32(max(length / 2 - radius, 0.0)), 0)
    local = np.float32(radius) * (1 - np.float32(pinch) * np.exp(-((along / np.float32(0.45 * radius)) ** 2)))
    chord = 2 * np.sqrt(np.maximum(local * local - across * across - beyond * beyond, 0))
    phase[region] += np.float32(peak) * chord


def _add_rod(phase: Float, s: PhaseContrast, cell: _Cell, pole: NDArray[np.float64], t: int) -> None:
    """Add a rod growing away from its old pole, and its last sister, which lifts off as the next one forms."""
    cycle = cell.age + t / s.cycle_frames
    part = cycle - floor(cycle)
    length = cell.size_um * 2.0**part
    radius = 0.4 + 0.15 * cell.dice[2]
    peak = _radians(s, "rods") * (0.8 + 0.4 * cell.dice[3])
    angle = cell.angle + 0.3 * sin(2 * pi * (t / 90 + cell.dice[4]))
    ahead = np.array([np.sin(angle), np.cos(angle)])
    pinch = 0.75 * max(0.0, (part - 0.6) / 0.4)
    bend = 1.4 * (cell.dice[5] - 0.5) * (cell.dice[6] > 0.5) * min(1.0, 4 * part * (1 - part))
    _add_spherocylinder(phase, s, pole + ahead * length / 2, angle, length, radius, bend, pinch, peak)
    turned = angle + part * sin(2.4 * floor(cycle) + 2 * pi * cell.dice[7])
    away = np.array([np.sin(turned), np.cos(turned)])
    middle = pole + ahead * (length + 0.3 * part) + away * length / 2
    _add_spherocylinder(phase, s, middle, turned, length, radius, 0.0, pinch, peak * min(1.0, (1 - part) / 0.2))


def _add_round(phase: Float, s: PhaseContrast, cell: _Cell, middle: NDArray[np.float64], t: int) -> None:
    """Add a round cell with a vacuole, and its bud, which grows and at the end of the cycle lifts off."""
    cycle = cell.age + t / s.cycle_frames
    part = cycle - floor(cycle)
    peak = _radians(s, "round") * (0.7 + 0.6 * cell.dice[3])
    length, radius = cell.size_um * (2.0 + 0.4 * cell.dice[2]), cell.size_um
    _add_spherocylinder(phase, s, middle, cell.angle, length, radius, 0.0, 0.0, peak)
    inside = 0.5 * radius * np.array([sin(7 * cell.dice[4]), sin(7 * cell.dice[5])])
    _add_blob(phase, s, middle + inside, radius * (0.2 + 0.15 * cell.dice[6]), -peak * radius * (0.2 + cell.dice[7]))
    _add_blob(phase, s, middle - inside, radius * 0.12, peak * radius * 0.5)
    angle = cell.angle + 2 * pi * (cell.dice[8] + 0.38 * floor(cycle))
    bud = radius * 0.85 * part**0.7
    if bud > 0.2:
        at = middle + np.array([np.sin(angle), np.cos(angle)]) * (radius + 0.8 * bud)
        _add_spherocylinder(phase, s, at, angle, 2.1 * bud, bud, 0.0, 0.0, peak * min(1.0, (1 - part) / 0.15))


def _outline(cell: _Cell, theta: Float, t: int) -> Float:
    """Measure a spread cell out to its edge in direction `theta`, in units of its size: two long arms, three short."""
    edge = np.full(theta.shape, 0.35, np.float32)
    for arm, (where, long, sharp) in enumerate(zip(cell.dice[:5], cell.dice[5:10], cell.dice[8:13], strict=True)):
        sway = sin(2 * pi * (t / (60 + 60 * sharp) + where))
        toward = cell.angle + (pi * arm + 0.8 * where if arm < 2 else 2 * pi * where) + 0.1 * sway
        reach = (0.9 + 1.2 * long if arm < 2 else 0.9 * long) * (1 + 0.15 * sway)
        edge += np.float32(reach) * np.exp(
            np.float32(-2 - 5 * sharp) * np.abs(np.sin((theta - np.float32(toward)) / 2)) * 2
        )
    return edge


def _add_adherent(phase: Float, s: PhaseContrast, cell: _Cell, middle: NDArray[np.float64], t: int) -> None:
    """Add a spread cell: a thin sheet drawn out into arms that come and go, a nucleus with nucleoli, and granules."""
    dice, size = cell.dice, cell.size_um
    region, y, x = _window(phase, s, middle, 2.6 * size)
    if phase[region].size == 0:
        return
    inside = np.maximum(1 - np.hypot(y, x) / (np.float32(size) * _outline(cell, np.arctan2(y, x), t)), 0)
    sheet = np.sqrt(inside) * np.float32(1.2 + dice[13]) + np.float32(0.5) * np.minimum(inside / np.float32(0.06), 1)
    phase[region] += np.float32(_radians(s, "adherent")) * sheet
    rng = np.random.default_rng(int(dice[15] * 2**53))
    _add_blob(phase, s, middle, 0.2 * size, 0.2 + 0.2 * dice[14])
    for _ in range(2):
        _add_blob(phase, s, middle + rng.normal(0, 0.12 * size, 2), 0.4 + 0.4 * rng.random(), 0.3 * rng.random() + 0.1)
    turns = rng.uniform(-pi, pi, int(1.5 * size**1.6)).astype(np.float32)
    for turn, edge in zip(turns, _outline(cell, turns, t), strict=True):
        orbit = 0.85 * size * edge * rng.random() ** 0.5
        jitter = 0.15 * np.sin(2 * pi * (t / 15 * rng.random(2) + rng.random(2)))
        at = middle + orbit * np.array([np.sin(turn), np.cos(turn)]) + jitter
        _add_blob(phase, s, at, 0.2 + 0.4 * rng.random(), 0.12 * rng.standard_normal() + 0.05)


@lru_cache(maxsize=8)
def _pupil(s: PhaseContrast) -> NDArray[np.complex64]:
    """Tabulate the pupil over squared radius 0 to 4 (1 = its edge): soft edges, ring, and defocus."""
    radius = np.sqrt(np.linspace(0, 4, _LUT_SIZE))
    inside = 1 / (1 + np.exp((radius - 1) / 0.01))
    ring = 1 / (1 + np.exp((np.abs(radius - s.ring_radius) - s.ring_width / 2) / 0.005))
    quarter = -0.5j * pi if s.contrast == "positive" else 0.5j * pi
    defocus = np.exp(-1j * pi * s.defocus_um * s.na**2 / s.wavelength_um * radius**2)
    through = 1 + (np.sqrt(s.ring_transmission) * np.exp(quarter) - 1) * ring
    pupil = np.asarray(inside * through * defocus, np.complex64)
    pupil[np.abs(pupil) < _DARK] = 0  # processors take many times as long for what is below the least normal number
    return pupil


def _intensity(s: PhaseContrast, phase: Float) -> Float:
    """Image the phase object: (y, x) float32 with 1 where there is nothing to see. One FFT in, `source_points` out."""
    pupil = _pupil(s)
    scale = np.float32(s.wavelength_um / s.na)
    frequency = [np.fft.fftfreq(n, s.pixel_size_um).astype(np.float32) * scale for n in phase.shape]
    spectrum = scipy.fft.fft2(np.exp(1j * phase).astype(np.complex64))
    total, direct = np.zeros(phase.shape, np.float32), 0.0
    for point in range(s.source_points):
        angle = 2 * pi * (point + 0.25) / s.source_points
        radius = s.ring_radius + s.ring_width * 0.5 * ((point * 0.618) % 1 - 0.5)
        squared = (frequency[0] + np.float32(radius * np.sin(angle)))[:, None] ** 2
        squared = squared + (frequency[1] + np.float32(radius * np.cos(angle)))[None, :] ** 2
        index = np.minimum(squared * np.float32((_LUT_SIZE - 1) / 4), _LUT_SIZE - 1).astype(np.int32)
        field = scipy.fft.ifft2(spectrum * pupil[index])
        total += field.real**2 + field.imag**2
        direct += abs(complex(pupil[round(radius**2 * (_LUT_SIZE - 1) / 4)])) ** 2
    return total / np.float32(direct)


@lru_cache(maxsize=4)
def _illumination(s: PhaseContrast) -> Float:
    """Make the uneven field, relative to its middle: a random quadratic of largest deviation `illumination`."""
    a = np.random.default_rng([s.seed, 4]).normal(size=5)
    y, x = (np.linspace(-1, 1, n) for n in s.shape)
    shape = a[0] * y[:, None] + a[1] * x + a[2] * y[:, None] ** 2 + a[3] * x**2 + a[4] * y[:, None] * x
    return np.asarray(1 + s.illumination * shape / np.abs(shape).max(), np.float32)


@lru_cache(maxsize=4)
def _lamp(s: PhaseContrast) -> NDArray[np.float64]:
    """List the level of the lamp in every frame, about 1: (t,) float64."""
    flicker = 1 + s.flicker * np.clip(np.random.default_rng([s.seed, 5]).standard_normal(s.n_frames), -3, 3)
    level, levels = 1.0, np.empty(s.n_frames)
    for t, (chance, size) in enumerate(np.random.default_rng([s.seed, 6]).random((s.n_frames, 2))):
        level = 1 + s.jump * (2 * size - 1) if chance < s.jump_probability else level
        levels[t] = level
    return flicker * levels
