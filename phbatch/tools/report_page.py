"""The report on an output: one HTML file that needs nothing else, and the same facts as plain values.

Charts are drawn by uPlot, for it is the smallest well-kept library (52 kB) that draws series of ten thousand points at
once; the sliders are the web component img-comparison-slider (11 kB). Both are in `page/vendor` with their licences.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import sqrt
from pathlib import Path
from typing import Any

import jinja2

from phbatch.places.beside import place_beside
from phbatch.places.place import LocalPlace, Place
from phbatch.planning.memory import format_bytes
from phbatch.tools.finished_positions import PositionsRun, commonest, open_finished
from phbatch.tools.finished_run import FinishedRun
from phbatch.tools.positions_facts import choose_images, draw_overview, middle_key, positions_facts
from phbatch.tools.report_pictures import CROP, PIXELS, Crop
from phbatch.tools.residual import ResidualCheck
from phbatch.tools.run_facts import CHANNELS, Looked, choose_frames, limits_of, run_facts
from phbatch.words.axes import FrameKey
from phbatch.words.errors import OutputError
from phbatch.words.given import StorageOptions
from phbatch.words.settings import parse_settings

_PAGE = Path(__file__).parent / "page"
_FRAMES = 4


@dataclass(frozen=True)
class RunReport:
    """What `phbatch.write_report` found and wrote.

    Attributes
    ----------
    facts : mapping
        Plain values: statistics over time, histograms, light, seams, flags, clipping, failures, speed, memory,
        provenance.
    path : str or None
        The page; None where none was asked for.
    """

    facts: Mapping[str, Any]
    path: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"report": self.path, **self.facts}


def write_report(
    output: str | Path,
    path: str | Path | None = None,
    *,
    input: str | Path | None = None,
    storage_options: StorageOptions | Any = None,
) -> RunReport:
    """Write what became of a run as one HTML page, which works offline.

    A few frames are read, before and after, and the ledger; nothing of the output is changed.

    Parameters
    ----------
    output : str or Path
        Of `phbatch.run`, finished or not.
    path : str or Path, optional
        HTML file to write. Default: ``<stem>.report.html`` beside a local output, and in the current folder of others.
    input : str or Path, optional
        The input, where it was moved; without it there is nothing to compare with, and the page says so.
    storage_options : mapping, str or sequence of str, optional
        Credentials and endpoint of an object store.

    Returns
    -------
    RunReport
        Its `facts` are what the page shows, as plain values.

    Raises
    ------
    OutputError
        There is no output of phbatch, or the page cannot be written.

    Examples
    --------
    >>> import tempfile, numpy as np, zarr, phbatch
    >>> folder = Path(tempfile.mkdtemp())
    >>> frames = np.random.default_rng(0).normal(1000, 30, (2, 64, 64)).astype("uint16")
    >>> _ = zarr.create_array(folder / "a.zarr", data=frames)
    >>> result = phbatch.run(folder / "a.zarr", model="none", workers=1)
    >>> report = write_report(result.output)
    >>> Path(report.path).name, report.facts["frames"]
    ('a.phbatch.report.html', {'all': 2, 'finished': 2})
    """
    place = Place.at(output, parse_settings({"storage_options": storage_options}).storage_options)
    target = Path(path) if path is not None else default_page(place)
    run = open_finished(place, None if input is None else str(input))
    facts, pictures, removed = look_at(run)
    wells = draw_overview(run, facts) if isinstance(run, PositionsRun) else []
    try:
        target.write_text(_render(facts, pictures, removed, wells), encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"the report cannot be written to {target} ({error.strerror}); choose another place."
        ) from error
    return RunReport(facts, str(target))


def collect_report(
    output: str | Path, *, input: str | Path | None = None, storage_options: StorageOptions | Any = None
) -> RunReport:
    """As `write_report`, without a page."""
    place = Place.at(output, parse_settings({"storage_options": storage_options}).storage_options)
    return RunReport(look_at(open_finished(place, None if input is None else str(input)))[0])


def default_page(output: Place) -> Path:
    """Where the page of an output lies unless it is said."""
    if isinstance(output, LocalPlace):
        return Path(place_beside(output.path, ".report.html").path)
    return Path(f"{output.name.removesuffix('.zarr')}.report.html")


def look_at(run: FinishedRun | PositionsRun) -> tuple[dict[str, Any], list[dict[str, Any]], list[ResidualCheck]]:
    """Facts of a run, pictures of some frames, and what was removed from them; a frame is in memory at once."""
    facts = positions_facts(run) if isinstance(run, PositionsRun) else run_facts(run)
    pictures, looked, removed = list[dict[str, Any]](), list[dict[str, Any]](), list[ResidualCheck | None]()
    first = run.image(commonest(run)[0]) if isinstance(run, PositionsRun) else run
    channels = first.channels()[:CHANNELS]
    frames = [_frames_of(run, index, channel) for index, channel in channels]
    side = int(min(CROP, sqrt(PIXELS / max(1, sum(map(len, frames))))))
    problem = ""
    for (index, _), chosen in zip(channels, frames, strict=True):
        found, crops = Looked(first, index), []
        for name, image, key in chosen:
            pair = image.pair(key, index)
            problem = problem or image.input_problem
            found.add(pair, name)
            crops.append(Crop.of(pair, side, name))
        looked.append(found.facts())
        removed.append(found.residual())
        pictures += [crop.draw(limits_of(crop.pair.after) if crop.pair.unchanged else found.limits) for crop in crops]
    facts["looked_at"] = {"channels": looked, "input_problem": problem or None}
    facts["channels_shown"] = [len(channels), len(first.channels())]
    return facts, pictures, [check for check in removed if check is not None]


def _frames_of(run: FinishedRun | PositionsRun, index: int, channel: int) -> list[tuple[str, FinishedRun, FrameKey]]:
    """The frames of a channel that are shown, with their names and images."""
    if not isinstance(run, PositionsRun):
        keys = [run.frame_key(t, channel) for t in choose_frames(run, channel, _FRAMES)]
        return [(str(key), run, key) for key in keys]
    chosen = []
    for path in choose_images(run, _FRAMES):
        image = run.image(path)
        key = middle_key(image, index, flagged=True)
        if key is not None:
            chosen.append((f"{path}/{key}", image, key))
    return chosen


def _render(
    facts: Mapping[str, Any],
    pictures: list[dict[str, Any]],
    removed: list[ResidualCheck],
    wells: list[dict[str, str]],
) -> str:
    return _template().render(facts=facts, pictures=pictures, removed=removed, wells=wells, checks=_checks(facts))


@cache
def _template() -> jinja2.Template:
    """The page, with its style and scripts."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.filters |= {"bytes": lambda count: format_bytes(int(count)), "pretty": _pretty}
    environment.globals |= {
        "vendor": {path.name: path.read_text(encoding="utf-8") for path in (_PAGE / "vendor").iterdir()},
        "style": (_PAGE / "report.css").read_text(encoding="utf-8"),
        "script": (_PAGE / "report.js").read_text(encoding="utf-8"),
    }
    return environment.get_template("report.html.j2")


def _pretty(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=1)


def _checks(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """What a person looks for first, each good, to be looked at, or bad."""
    frames, flagged = facts["frames"], facts["flagged"]
    failed, clipped, speed, memory = facts["failed"], facts["clipped"]["pixels"], facts["speed"], facts["memory"]

    def check(title: str, value: str, words: str, state: str = "good") -> dict[str, str]:
        return {"title": title, "value": value, "words": words, "state": state}

    whole = frames["finished"] == frames["all"]
    found = [
        check(
            "frames",
            f"{frames['finished']:,} of {frames['all']:,}",
            "finished" if whole else "the run is not finished: call it again to continue",
            "good" if whole else "look",
        ),
        check("failed units", str(len(failed)), "see below" if failed else "none", "bad" if failed else "good"),
        check(
            "flagged frames",
            f"{flagged['frames']:,}",
            ", ".join(f"{count} {word}" for word, count in flagged["by_flag"].items()) or "none",
            "look" if flagged["frames"] else "good",
        ),
        check("clipped pixels", f"{clipped:,}", "outside of what the output holds", "look" if clipped else "good"),
    ]
    seams = [entry["seams"] for entry in facts["looked_at"]["channels"] if entry["seams"]]
    if seams:
        worst = max(seams, key=lambda score: float(score["worst"]))
        visible = any(score["visible"] for score in seams)
        words = f"gradient energy across tile edges; elsewhere up to {worst['ordinary']:.2f}"
        found.append(check("seams", f"{worst['worst']:.2f} x", words, "bad" if visible else "good"))
    else:
        found.append(check("seams", "none", "frames were not cut, or no network was used"))
    residuals = [entry["residual"] for entry in facts["looked_at"]["channels"] if entry["residual"]]
    if residuals:
        worst = max(residuals, key=lambda entry: float(entry["structured"]) / max(1, entry["windows"]))
        structured = any(entry["verdict"] == "structure" for entry in residuals)
        words = f"{worst['structured']:,} of {worst['windows']:,} windows look like structure"
        value = "structure" if structured else str(worst["verdict"])
        found.append(check("removed part", value, words, "look" if structured else "good"))
    if speed["over_time"]:
        rate = f"{speed['megapixels_per_s']:.3g} MPx/s"
        found.append(check("speed", rate, f"{speed['frames_per_s']:.3g} frames/s in {_duration(speed['work_s'])}"))
    if memory:
        over = memory["allowed_mem"] is not None and memory["peak_rss_bytes"] > memory["allowed_mem"]
        words = f"planned {format_bytes(memory['projected_mem'])}, allowed {format_bytes(memory['allowed_mem'])}"
        found.append(check("peak memory", format_bytes(memory["peak_rss_bytes"]), words, "look" if over else "good"))
    return found


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
