"""What `compare` recommends: least drift, of rules that apply, and in the words of the user's model and clock."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import zarr

import phbatch
from phbatch.network.model import DEFAULT_MODEL
from phbatch.tools.compare import compare_rules
from phbatch.tools.comparison import STUDY, STUDY_DB, Comparison, recommend, study_says
from phbatch.words.errors import UsageError
from tests.handmade import CommandLine, write_model


def movie(n: int = 6, level: float = 2000.0, lamp: float = 0.1, side: int = 96) -> np.ndarray:
    """Flat background under a lamp that flickers, with more cells in every frame."""
    draw = np.random.default_rng(5)
    frames = np.empty((n, side, side))
    y, x = np.mgrid[:side, :side]
    for t in range(n):
        frames[t] = level * (1 + lamp * (-1) ** t) + draw.normal(0, 20, (side, side))
        for _ in range(1 + t):
            distance = np.hypot(y - draw.uniform(0, side), x - draw.uniform(0, side))
            frames[t] += 500 * np.exp(-((distance - 6) ** 2) / 8) - 400 * np.exp(-(distance**2) / 20)
    return frames


def write(path: Path, frames: np.ndarray, **metadata: Any) -> Path:
    zarr.create_array(path, data=frames, chunks=(1, *frames.shape[1:]), dimension_names=("t", "y", "x"))
    return path


def write_ome(path: Path, frames: np.ndarray, seconds: float, unit: str) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("0", data=frames, chunks=(1, *frames.shape[1:]))
    axes = [{"name": "t", "type": "time", "unit": unit}, *({"name": name, "type": "space"} for name in "yx")]
    scale = [{"type": "scale", "scale": [seconds, 1.0, 1.0]}]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}], "name": "in"}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    return path


def row(rule: str, drift: float | None, stretch: float | None) -> Comparison:
    return Comparison(rule, 1, drift, 0.1, stretch, 1, 0, 1, (), ())


def test_least_drift_wins_and_stretch_only_breaks_ties() -> None:
    rows = [row("minmax", 0.5, 1.0), row("percentile", 0.06, 4.0), row("zscore", 0.055, 9.0)]
    assert recommend(rows)[0] is rows[1]
    assert recommend(rows[::-1])[0] is rows[1]
    assert recommend([row("median", 0.05, 1.04), row("mode", 0.05, 1.0)])[0].rule == "median"  # type: ignore[union-attr]
    assert recommend([row("a", 0.05, 1.0), row("b", 0.05, 1.04)], "b")[0].rule == "b"  # type: ignore[union-attr]
    assert recommend([row("a", 0.05, 1.0), row("b", 0.09, 1.0)], "b")[0].rule == "a"  # type: ignore[union-attr]


def test_rules_that_were_best_in_the_study_come_first() -> None:
    rows = [
        row("median, factor 1", 0.3, 1.0),
        row("mode, factor 1", 0.1, 1.0),
        row("percentile 2 to 99.8", 0.05, 9.0),
        row("zscore", 0.02, 1.0),
    ]
    best, _ = recommend(rows, "percentile 2 to 99.8")
    assert best is rows[1]
    says = study_says(best, rows)
    assert STUDY in says
    assert (Path(__file__).parents[1] / STUDY).exists()
    assert "percentile 2 to 99.8 drifts less here (0.050), but did worse in the study" in says
    assert "zscore drifts less here (0.020), but was not in the study" in says
    assert "drifts less here" not in study_says(rows[1], rows[:2])
    assert "does not tell of these" in study_says(rows[3], rows[2:])


def test_what_is_said_of_the_study_is_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    from benchmarks.normalization_study.results import Results
    from benchmarks.normalization_study.tables import compare

    results = Results.read()
    others = ["median", "mode", "fixed"]
    conditions = [f"{rule}, with background" for rule in (*others, "percentile")]
    base, *rest = conditions

    def values(condition: str, measure: str) -> list[float]:
        return results.values("rules", condition, measure)

    found = compare(values, base, rest, "psnr")
    assert [found[condition].exceeds for condition in rest] == [False, False, True]
    best = np.mean([values(condition, "psnr") for condition in conditions[:-1]])
    assert best - np.mean(values(conditions[-1], "psnr")) == pytest.approx(STUDY_DB, abs=0.05)


def test_one_frame_has_no_drift(phbatch_command: CommandLine, tmp_path: Path) -> None:
    source = write(tmp_path / "in.zarr", movie(1).astype("uint16"))
    found = compare_rules(str(source))
    assert [(entry.drift, entry.stretch) for entry in found] == [(None, None)] * len(found)
    assert found.recommendation[0] is None
    assert phbatch_command("compare", source, "-o", tmp_path / "page.html") == 0
    assert re.search(r"median, factor 1 +1 +- +0\.\d+ +- ", phbatch_command.out)
    assert "one frame shows no drift" in phbatch_command.out
    assert "<td>-</td>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert phbatch_command("compare", source, "--json") == 0
    record = json.loads(phbatch_command.out)
    assert (record["recommended"], record["rules"][0]["drift"]) == (None, None)


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_images_without_background_get_the_rules_that_apply(
    phbatch_command: CommandLine, tmp_path: Path, dtype: str
) -> None:
    frames = movie(5, lamp=0.0) - 2000
    frames[3] += 3  # above zero, by less than its noise
    source = write(tmp_path / "in.zarr", frames.astype(dtype))
    found = compare_rules(str(source))
    names = [entry.rule.split(" ")[0].rstrip(",") for entry in found]
    assert names == ["percentile", "minmax", "zscore", "fixed"]
    assert len(found.frames) == 5
    assert "median, factor 1" in found.notices[0]
    assert all(0 <= entry.drift < 2 and entry.contrast > 0 for entry in found if entry.drift is not None)
    expected = np.median([np.subtract(*np.percentile(frame, (99.8, 2))) for frame in frames.astype(dtype)])
    assert found[3].rule == f"fixed {float(f'{expected:.3g}'):g}"
    assert phbatch_command("compare", source) == 0
    assert "background not above zero" in phbatch_command.out


def test_a_black_frame_takes_no_rule_away(tmp_path: Path) -> None:
    frames = movie(6).astype("int16")
    frames[2] = np.random.default_rng(0).normal(0, 20, frames[2].shape)
    found = compare_rules(str(write(tmp_path / "in.zarr", frames)))
    assert len(found) == 6
    assert found.frames == (0, 1, 3, 4, 5)
    assert "frames 2 left out" in found.notices[0]


def test_a_value_is_compared_too(tmp_path: Path) -> None:
    source = write(tmp_path / "in.zarr", movie(4, lamp=0.2).astype("uint16"))
    found = {entry.rule: entry for entry in compare_rules(str(source), value=1000)}
    assert found["fixed 1000"].level == pytest.approx(2, rel=0.02)
    assert found["fixed 1000"].drift > 3 * found["median, factor 1"].drift  # type: ignore[operator]


def test_it_says_whose_rule_the_recommendation_is(phbatch_command: CommandLine, tmp_path: Path) -> None:
    source = write(tmp_path / "in.zarr", movie(4).astype("uint16"))
    report = compare_rules(str(source))
    assert (report.model, report.model_rule) == (DEFAULT_MODEL, "median, factor 1")
    other = replace(report, model="mine", model_rule="percentile 3 to 99")
    assert "mine was trained with percentile 3 to 99, which is another rule" in other.recommendation[1]
    model = write_model(tmp_path / "model")
    facts = {"normalization": {"method": "percentile", "pmin": 3, "pmax": 99}}
    (model / "phbatch.json").write_text(json.dumps(facts), encoding="utf-8")
    assert phbatch_command("compare", source, "--model", model) == 0
    assert "percentile 3 to 99" in phbatch_command.out
    assert "another rule" in phbatch_command.out
    assert phbatch_command("compare", source, "--model", "none") == 0
    assert "was trained with" not in phbatch_command.out


def test_frames_are_prepared_as_in_a_run(tmp_path: Path) -> None:
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    shaded = (movie(5) * (1 - 0.4 * (x**2 + y**2))).astype("uint16")
    source = write(tmp_path / "in.zarr", shaded)
    plain, corrected = (
        {entry.rule: entry for entry in compare_rules(str(source), illumination=method)}
        for method in ("none", "temporal")
    )
    assert abs(corrected["median, factor 1"].level - 1) < 0.02
    assert abs(plain["median, factor 1"].level - 1) > 2 * abs(corrected["median, factor 1"].level - 1)
    even = str(write(tmp_path / "even.zarr", movie(3, side=192).astype("uint16")))
    whole, halved = compare_rules(even, sigma=1)[0], compare_rules(even, sigma=1, downscale=2)[0]
    assert whole.rule == halved.rule == "median, factor 1, sigma 1 px"
    assert halved.noise * halved.contrast == pytest.approx(whole.noise * whole.contrast / 2, rel=0.1)
    output = phbatch.run(source, tmp_path / "out.zarr", model="none", illumination="temporal", downscale=2).output
    levels = zarr.open_array(f"{output}/0")[:]
    again = compare_rules(str(source), illumination="temporal", downscale=2)
    assert again[0].outside == pytest.approx(float(((levels < 0) | (levels > 1)).mean()), abs=1e-6)


@pytest.mark.parametrize("name", ["stats", "scope", "smooth_time", "dtype", "overwrite"])
def test_what_means_nothing_is_refused(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "in.zarr", movie(2).astype("uint16"))
    value = {"stats": "a.csv", "scope": "series", "smooth_time": 3, "dtype": "float16", "overwrite": True}[name]
    with pytest.raises(UsageError, match=name):
        compare_rules(str(source), **{name: value})


@pytest.mark.parametrize(
    ("step", "unit", "times", "shown"),
    [
        (300.0, "second", (0, 5, 10, 15, 20, 25), "minute"),
        (90.0, "minute", (0, 1.5, 3, 4.5, 6, 7.5), "hour"),
        (2.0, "second", (0, 2, 4, 6, 8, 10), "second"),
    ],
)
def test_times_are_those_of_the_image(
    tmp_path: Path, step: float, unit: str, times: tuple[float, ...], shown: str
) -> None:
    found = compare_rules(str(write_ome(tmp_path / "in.zarr", movie(6).astype("uint16"), step, unit)))
    assert found.times == pytest.approx(times)
    assert found.time_unit == shown
    assert shown in found.pictures[-1].title
    bare = compare_rules(str(write(tmp_path / "bare.zarr", movie(6).astype("uint16"))), frames="1::2")
    assert (bare.times, bare.time_unit) == ((1.0, 3.0, 5.0), None)


def test_the_page_shows_frames(phbatch_command: CommandLine, tmp_path: Path) -> None:
    source = write_ome(tmp_path / "in.zarr", movie(6, side=500).astype("uint16"), 300.0, "second")
    assert phbatch_command("compare", source, "-o", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", page)
    shapes = [matplotlib.image.imread(io.BytesIO(base64.b64decode(data))).shape for data in pictures]
    assert len(shapes) == 2
    assert min(min(shape[:2]) for shape in shapes) > 200
    found = compare_rules(str(source))
    assert len(found.pictures) == 4
    for picture in found.pictures:
        assert max(picture.image.shape) <= 240
        assert picture.image.mean() == pytest.approx(2000, rel=0.15)
        assert all(0 <= y < 240 and 0 <= x < 240 for y, x, _ in picture.patches)
