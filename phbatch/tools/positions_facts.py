"""What a report says of many images: of all together, of each well, and of some of them looked at closely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.table import StatisticsTable
from phbatch.kernels.downsample import area_average
from phbatch.places.plates import plate_of
from phbatch.places.refusals import ome_attributes
from phbatch.running.told import flagged_frames, frame_pixels
from phbatch.tools.finished_positions import PositionsRun, commonest
from phbatch.tools.finished_run import FinishedRun
from phbatch.tools.report_pictures import as_uri, gray
from phbatch.tools.run_facts import (
    CHANNELS,
    CURVES,
    POINTS,
    failed_units,
    flagged_facts,
    limits_of,
    memory,
    model_facts,
    plain,
    provenance_facts,
    speed,
)
from phbatch.words.axes import FrameKey
from phbatch.words.wells import canonical_well

_THUMBNAILS = 1_200_000
"""Pixels of all thumbnails together: a page stays under 5 MB."""

_SIDES = (16, 96)
_DRAWN = 1536
"""Wells that are drawn."""


def positions_facts(run: PositionsRun) -> dict[str, Any]:
    """What the ledger, the statistics and the provenance of an output of many images say; no pixel is read."""
    provenance, finished, geometries = run.provenance, run.finished, run.geometries
    tables = finished.tables.items()
    flagged = [(f"{path}/{key}", words) for path, table in tables for key, words in flagged_frames(table).items()]
    frames = sum(geometry.frames for geometry in geometries.values())
    pixels = sum(geometry.frames * frame_pixels(geometry) for geometry in geometries.values())
    failed = failed_units(run.accounts, finished) | dict(provenance.get("aside") or {})
    facts = {
        "output": run.output.path,
        "status": provenance.get("status"),
        "images": {"all": len(geometries), "aside": len(provenance.get("aside") or {})},
        "frames": {"all": frames, "finished": finished.frames},
        "units": {"all": finished.total, "finished": len(finished)},
        "image": _shapes(run),
        "normalization": provenance["normalization"],
        "model": model_facts(provenance),
        "flagged": flagged_facts(flagged),
        "clipped": {"pixels": finished.clipped, "units": dict(run.times.clipped)},
        "failed": failed,
        "positions": list(geometries),
        "statistics": _series(run),
        "speed": speed(run.times, pixels / max(1, frames)),
        "memory": memory(run.accounts),
        "provenance": provenance_facts(provenance),
    }
    return facts | {"overview": _overview(run, failed)}


def _shapes(run: PositionsRun) -> dict[str, Any]:
    paths = commonest(run)
    geometry, kinds = run.geometries[paths[0]], run.provenance["kinds"]
    return {
        "axes": kinds[run.provenance["positions"][paths[0]]["kind"]]["axes"],
        "shape": list(geometry.shape),
        "output_shape": list(geometry.output_shape),
        "dtype": run.provenance["settings"]["dtype"],
        "others": len(run.geometries) - len(paths),
    }


def _series(run: PositionsRun) -> list[dict[str, Any]]:
    """Medians over the frames of each image, in the order of the images."""
    tables = list(run.finished.tables.values())
    taken = np.unique(np.linspace(0, len(tables) - 1, min(len(tables), POINTS)).round().astype(int)).tolist()
    found = []
    for channel in run.geometries[commonest(run)[0]].channels[:CHANNELS]:
        columns = {name: plain(np.array([_middle(tables[at], name, channel) for at in taken])) for name in CURVES}
        words = {at: sorted({word for each in _flags(tables[at], channel) for word in each}) for at in taken}
        found.append(
            {"channel": channel, "t": taken, **columns, "flags": {at: each for at, each in words.items() if each}}
        )
    return found


def _middle(table: StatisticsTable, name: str, channel: int) -> float:
    if name not in table.names:
        return float("nan")
    values = table.column(name)[table.column("c") == channel]
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")


def _flags(table: StatisticsTable, channel: int) -> list[list[str]]:
    chosen = np.flatnonzero((table.flag_bits != 0) & (table.column("c") == channel))
    return [table[int(index)]["flags"] for index in chosen[:64]]


def _overview(run: PositionsRun, failed: Mapping[str, str]) -> dict[str, Any]:
    """Every well, or every image where there are none, with what is known of it."""
    plate = plate_of(ome_attributes(run.output))
    images: dict[str, list[str]] = {}
    for path in run.geometries:
        images.setdefault(path.rpartition("/")[0] if plate is not None else path, []).append(path)
    places = {} if plate is None else {well.path: (well.row, well.column) for well in plate.wells}
    wells = []
    for name, paths in images.items():
        tables = [run.finished.tables[path] for path in paths]
        channel = run.geometries[paths[0]].restored[0]
        row, column = places.get(name, (None, None))
        medians, focus = (np.array([_middle(table, each, channel) for table in tables]) for each in ("median", "focus"))
        wells.append(
            {
                "name": name if plate is None else canonical_well(name),
                "row": row,
                "column": column,
                "images": paths,
                "frames": sum(run.geometries[path].frames for path in paths),
                "finished": sum(table.known for table in tables),
                "flagged": sum(int(np.count_nonzero(table.flag_bits)) for table in tables),
                "failed": sum(key.startswith(f"{name}/") or key == name for key in failed),
                "median": plain(medians),
                "focus": plain(focus),
            }
        )
    return {
        "rows": None if plate is None else list(plate.rows),
        "columns": None if plate is None else list(plate.columns),
        "wells": wells,
    }


def draw_overview(run: PositionsRun, facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """One thumbnail of each well before and after, in the same grays, of its first finished image's middle frame."""
    wells = facts["overview"]["wells"][:_DRAWN]
    side = int(min(_SIDES[1], max(_SIDES[0], sqrt(_THUMBNAILS / (2 * max(1, len(wells)))))))
    small = [_small(run, well["images"], side) for well in wells]
    drawn = [after.ravel() for _, after in small if after is not None]
    limits = limits_of(np.concatenate(drawn or [np.zeros(1, np.float32)]))
    names = ("before", "after")
    return [
        {name: as_uri(gray(image, limits)) for name, image in zip(names, pair, strict=True) if image is not None}
        for pair in small
    ]


_Small = NDArray[np.float32] | None


def _small(run: PositionsRun, paths: Sequence[str], side: int) -> tuple[_Small, _Small]:
    for path in paths:
        image = run.image(path)
        index = next(at for at, channel in image.channels() if channel in image.geometry.restored)
        key = middle_key(image, index, flagged=False)
        if key is None:
            continue
        pair = image.pair(key, index)
        factor = -(-max(pair.after.shape) // side)
        before = None if pair.before is None else area_average(pair.before, factor)
        return before, area_average(pair.after, factor)
    return None, None


def choose_images(run: PositionsRun, count: int) -> list[str]:
    """Images that are looked at closely, of the commonest kind: some all over, and two with flagged frames."""
    paths = [path for path in commonest(run) if run.finished.tables[path].known]
    some = np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)).tolist()
    flagged = [at for at, path in enumerate(paths) if run.finished.tables[path].flag_bits.any()]
    return [paths[at] for at in sorted({*some, *flagged[:2]})]


def middle_key(image: FinishedRun, index: int, *, flagged: bool) -> FrameKey | None:
    """The middle one of the finished frames of a channel of the output: of those flagged or not, if there are any."""
    channel, table = image.channels()[index][1], image.finished.table
    keys = [image.frame_key(t, channel) for t in image.geometry.times]
    done = [key for key in keys if table.knows(key)]
    wanted = [key for key in done if bool(table.flag_bits[table.grid.index(key)]) == flagged] or done
    return wanted[len(wanted) // 2] if wanted else None
