"""What a report says of a run, as plain values; pictures are drawn from the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.clock import STAGES
from phbatch.kernels.downsample import area_average
from phbatch.kernels.seams import SeamCheck
from phbatch.kernels.smoothing import smooth_float
from phbatch.outputs.finished import Finished
from phbatch.running.told import flagged_frames, frame_pixels
from phbatch.tools.finished_run import FinishedRun, FramePair
from phbatch.tools.residual import ResidualCheck, ResidualChecker
from phbatch.tools.unit_times import UnitTimes
from phbatch.words.settings import RunSettings

Accounts = Sequence[Mapping[str, Any]]

POINTS = 1200
"""Of a series that is drawn; of longer ones, evenly spaced frames and those that are flagged."""

CHANNELS = 3
"""That are looked at."""

_BINS = 120
_FLAGGED_LISTED = 200
CURVES = ("median", "mode", "background", "focus", "saturated", "zero")
_LIGHT_PIXELS = 96
_IDLE_S = 60.0


def run_facts(run: FinishedRun) -> dict[str, Any]:
    """What the ledger, the statistics and the provenance of an output say; no pixel is read."""
    provenance, geometry, finished = run.provenance, run.geometry, run.finished
    flagged = list(flagged_frames(run.finished.table).items())
    return {
        "output": run.output.path,
        "status": provenance.get("status"),
        "frames": {"all": geometry.frames, "finished": finished.frames},
        "units": {"all": finished.total, "finished": len(finished)},
        "image": {
            "axes": provenance["axes"],
            "shape": list(geometry.shape),
            "output_shape": list(geometry.output_shape),
            "dtype": run.settings["dtype"],
        },
        "normalization": provenance["normalization"],
        "model": model_facts(provenance),
        "flagged": flagged_facts(flagged),
        "clipped": {"pixels": finished.clipped, "units": dict(run.times.clipped)},
        "failed": failed_units(run.accounts, run.finished),
        "statistics": [series(run, channel) for channel in geometry.channels[:CHANNELS]],
        "speed": speed(run.times, frame_pixels(geometry)),
        "memory": memory(run.accounts),
        "provenance": provenance_facts(provenance),
    }


def model_facts(provenance: Mapping[str, Any]) -> dict[str, Any] | None:
    """Which network it was; None without one."""
    model = provenance.get("model")
    return {name: model[name] for name in ("name", "weights", "sha256")} if model else None


def provenance_facts(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of where an output comes from."""
    return {
        "command": provenance.get("command"),
        "input": provenance["input"],
        "settings": changed_settings(provenance["settings"]),
        "tile": provenance.get("tile"),
        "batch": provenance.get("batch"),
        "network": provenance.get("network"),
        "precision": (provenance.get("precision") or {}).get("precision"),
        "versions": provenance.get("versions"),
        "notices": provenance.get("notices", []),
    }


def flagged_facts(flagged: Sequence[tuple[str, list[str]]]) -> dict[str, Any]:
    """How many frames are flagged, with what, and the first of them."""
    return {
        "frames": len(flagged),
        "by_flag": dict(Counter(word for _, words in flagged for word in words)),
        "listed": dict(flagged[:_FLAGGED_LISTED]),
    }


def failed_units(accounts: Accounts, finished: Finished) -> dict[str, str]:
    """Errors of units that failed in a call and are not finished yet."""
    errors = {unit: error for account in accounts for unit, error in account.get("failed", {}).items()}
    return {unit: error for unit, error in errors.items() if finished.counts(unit) and unit not in finished}


def changed_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that are not at their defaults."""
    defaults = RunSettings().model_dump(mode="json", by_alias=True)
    return {name: value for name, value in settings.items() if name in defaults and value != defaults[name]}


def series(run: FinishedRun, channel: int) -> dict[str, Any]:
    """Statistics of the middle plane of a channel over time: those of some frames, where there are many."""
    grid, table = run.geometry.grid, run.finished.table
    _, n_c, n_z = grid.shape
    first = run.geometry.channels.index(channel) * n_z + n_z // 2
    bits = table.flag_bits[first :: n_c * n_z]
    count = len(bits)
    taken = np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int))
    if len(taken) < count:
        taken = np.union1d(taken, np.flatnonzero(bits)[:POINTS])
    names = [*CURVES, *(name for name in table.names if name[0] == "p" and name[1:2].isdecimal())]
    positions = first + taken * n_c * n_z
    columns = {name: plain(table.column(name)[positions]) for name in names if name in table.names}
    words = {int(grid.times[at]): table[int(first + at * n_c * n_z)]["flags"] for at in taken if bits[at]}
    return {"channel": channel, "t": [int(grid.times[at]) for at in taken], **columns, "flags": words}


def speed(times: UnitTimes, pixels: float) -> dict[str, Any]:
    """Where the time went, and frames per second over the time of work: idle times between calls are left out."""
    stages = {name: float(times.stages[name].sum()) for name in STAGES if times.stages[name].any()}
    if not len(times.at):
        return {"stages_s": stages, "work_s": 0.0, "calls": 0, "over_time": None}
    work, calls = _work_seconds(times)
    total = max(float(work[-1]), 1e-9)
    counted = float(times.frames.sum())
    return {
        "stages_s": stages,
        "work_s": total,
        "calls": calls,
        "frames_per_s": counted / total,
        "megapixels_per_s": counted * pixels / total / 1e6,
        "over_time": _over_time(times, work, total, list(stages)),
    }


def _work_seconds(times: UnitTimes) -> tuple[NDArray[np.float64], int]:
    """When each unit was committed, in seconds of work, and how many stretches of work there were."""
    gaps = np.diff(times.at)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    idle = gaps > max(_IDLE_S, 20 * usual, 5 * float(times.seconds.max()))
    start = float(times.seconds[0])
    gaps = np.where(idle, times.seconds[1:], gaps)
    return start + np.concatenate([[0.0], np.cumsum(gaps)]), int(idle.sum()) + 1


def _over_time(times: UnitTimes, work: NDArray[np.float64], total: float, stages: list[str]) -> dict[str, Any]:
    bins = int(min(_BINS, max(1, len(work) // 2)))
    edges = np.linspace(0.0, total, bins + 1)
    at = np.clip(np.searchsorted(edges, work, side="left") - 1, 0, bins - 1)
    frames = np.bincount(at, times.frames, bins)
    spent = {name: np.bincount(at, times.stages[name], bins) for name in stages}
    per_frame = {
        name: plain(np.where(frames > 0, values / np.maximum(frames, 1), np.nan)) for name, values in spent.items()
    }
    return {
        "seconds": plain((edges[1:] + edges[:-1]) / 2),
        "frames_per_s": plain(frames / (total / bins)),
        "stage_seconds_per_frame": per_frame,
    }


def memory(accounts: Accounts) -> dict[str, Any] | None:
    """Peak memory of the calls against what was planned; None where no call kept it."""
    accounts = [account for account in accounts if account.get("peak_rss_bytes")]
    if not accounts:
        return None
    largest = max(accounts, key=lambda account: float(account["peak_rss_bytes"]))
    names = ("peak_rss_bytes", "projected_mem", "allowed_mem", "workers")
    return {name: largest.get(name) for name in names} | {"calls": len(accounts)}


def choose_frames(run: FinishedRun, channel: int, count: int) -> list[int]:
    """Times of finished frames of a channel: the first, the last, some between, and two that are flagged."""
    grid, table = run.geometry.grid, run.finished.table
    _, n_c, n_z = grid.shape
    first = run.geometry.channels.index(channel) * n_z + n_z // 2
    done = np.arange(len(grid.times))
    if table.known < len(table):
        done = np.flatnonzero([table.knows(run.frame_key(t, channel)) for t in grid.times])
    if not len(done):
        return []
    taken = set(done[np.unique(np.linspace(0, len(done) - 1, count).round().astype(int))].tolist())
    flagged = table.flag_bits[first :: n_c * n_z] != 0
    taken |= set(done[flagged[done]][:2].tolist())
    return [grid.times[at] for at in sorted(taken)]


class Looked:
    """What is found by looking at frames of one channel: histograms, light and seams; a frame in memory at once."""

    def __init__(self, run: FinishedRun, index: int) -> None:
        self.channel, self._run = index, run
        self._seams: SeamCheck | None = None
        self._fields: dict[str, list[NDArray[np.float32]]] = {"before": [], "after": []}
        self._samples: dict[str, list[NDArray[np.float32]]] = {"before": [], "after": []}
        self._residual = ResidualChecker() if run.restores(index) else None
        self.frames: list[str] = []

    def add(self, pair: FramePair, name: str) -> None:
        """Take in a frame; one that was not treated as the others are tells nothing of them."""
        if pair.unchanged:
            return
        if self._seams is None:
            rows, columns = self._run.tile_edges()
            self._seams = SeamCheck(([row - pair.corner[0] for row in rows], [x - pair.corner[1] for x in columns]))
        self._seams.add(pair.after)
        self.frames.append(name)
        if self._residual is not None and pair.before is not None and pair.before.shape == pair.after.shape:
            self._residual.add(name, pair.before, pair.after, pair.corner)
        factor = max(1, -(-max(pair.after.shape) // _LIGHT_PIXELS))
        step = max(1, int(np.sqrt(pair.after.size / 250_000)))
        for name, image in (("before", pair.before), ("after", pair.after)):
            if image is not None and np.isfinite(image).all():
                self._fields[name].append(area_average(image, factor))
                self._samples[name].append(image[::step, ::step].ravel())

    @property
    def limits(self) -> tuple[float, float]:
        """Range of intensities that is shown."""
        return limits_of(np.concatenate(self._samples["after"] or [np.zeros(1, np.float32)]))

    def residual(self) -> ResidualCheck | None:
        """Whether what the network removed looks like noise; None where there is no network, or no input."""
        return self._residual.result() if self._residual is not None else None

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        residual = self.residual()
        seams = self._seams.score() if self._seams is not None else None
        return {
            "channel": self.channel,
            "frames": self.frames,
            "seams": None if seams is None else asdict(seams) | {"visible": seams.visible},
            "histogram": self._histogram(),
            "light": self._light(),
            "residual": None if residual is None else residual.as_dict(),
        }

    def _histogram(self) -> dict[str, Any] | None:
        if not self._samples["after"]:
            return None
        joined = {name: np.concatenate(values) for name, values in self._samples.items() if values}
        ends = np.percentile(np.concatenate([*joined.values()]), (0.02, 99.98))
        low, high = float(ends[0]), float(max(ends[1], ends[0] + 1e-6))
        counts = {name: np.histogram(values, 160, (low, high))[0] / values.size for name, values in joined.items()}
        edges = np.linspace(low, high, 161)
        return {"values": plain((edges[1:] + edges[:-1]) / 2)} | {name: plain(part) for name, part in counts.items()}

    def _light(self) -> dict[str, Any] | None:
        """Background over the field of view, relative to its median: what all frames share, smoothed."""
        found: dict[str, Any] = {}
        for name, fields in self._fields.items():
            field = smooth_field(fields)
            if field is not None:
                found[name] = {
                    "unevenness": float(np.ptp(np.percentile(field, (1, 99)))),
                    "along_x": plain(np.median(field, axis=0)),
                    "along_y": plain(np.median(field, axis=1)),
                }
        applied = self._profile()
        if found and applied is not None:
            count = next(iter(found.values()))
            along = [_resampled(np.median(applied, axis=axis), len(count[f"along_{'xy'[axis]}"])) for axis in (0, 1)]
            unevenness = float(np.ptp(np.percentile(applied, (1, 99))))
            found["profile"] = {"unevenness": unevenness, "along_x": plain(along[0]), "along_y": plain(along[1])}
        return found or None

    def _profile(self) -> NDArray[np.float32] | None:
        """Background that the frames were corrected by, over its median."""
        profile = self._run.profile
        if profile is None:
            return None
        channel = dict(self._run.channels())[self.channel]
        background = profile.background[profile.place(channel, self._run.geometry.shape[2] // 2)]
        return np.asarray(background / np.float32(max(float(np.median(background)), 1e-30)))


def _resampled(values: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    return np.asarray(np.interp(np.linspace(0, len(values) - 1, count), np.arange(len(values)), values))


def limits_of(pixels: NDArray[np.float32]) -> tuple[float, float]:
    """Range of intensities that shows nearly all pixels; NaN is not looked at."""
    finite = pixels[np.isfinite(pixels)]
    low, high = np.percentile(finite, (0.2, 99.8)) if finite.size else (0.0, 1.0)
    return float(low), float(high if high > low else low + 1)


def smooth_field(fields: Sequence[NDArray[np.float32]]) -> NDArray[np.float32] | None:
    """Median of small images, smoothed and over its median; None where that is not above zero."""
    if not fields:
        return None
    middle = np.median(np.stack(fields), axis=0).astype(np.float32)
    smooth = smooth_float(middle, max(1.0, min(middle.shape) / 16))
    level = float(np.median(smooth))
    return np.asarray(smooth / np.float32(level)) if level > 0 else None


def plain(values: NDArray[Any]) -> list[float | None]:
    """Numbers with six digits, for JSON; None where one is not finite."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]
