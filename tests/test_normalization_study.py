"""The study of normalizations: its design is whole, it goes on after a kill, and its test is the textbook's."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from phbatch.training.pairs import Pair
from phbatch.training.patches import PatchPlan, draw_corners
from phbatch.words.errors import OutputError

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.delenv("PHBATCH_DATA", raising=False)
    from benchmarks.normalization_study import frames, real

    monkeypatch.setattr(frames, "SIDE", 64)
    monkeypatch.setattr(frames, "COLONY", 3)
    monkeypatch.setattr(frames, "_PER_KIND", 1)
    for cached in (frames._sample, frames.held_frames, real.real_series):
        cached.cache_clear()


def test_the_design_has_every_cell_that_was_asked_for() -> None:
    from benchmarks.normalization_study.cells import BASE, RULES, Training, design

    cells = design()
    assert len({cell.name for cell in cells}) == len(cells)
    assert {cell.training.seed for cell in cells} == {0, 1, 2}
    per_condition = Counter((cell.group, cell.condition) for cell in cells)
    assert set(per_condition.values()) == {3}
    main = {(cell.training.rule, cell.training.background) for cell in cells if cell.group == "rules"}
    assert main == {(rule, background) for rule in RULES for background in (True, False)}
    assert set(RULES) == {"percentile", "fixed", "median", "mode", "10 x median", "10 x mode"}
    assert (RULES["percentile"].pmin, RULES["percentile"].pmax) == (2, 99.8)
    shifted = {(cell.training.rule, cell.training.densities) for cell in cells if cell.group == "shift"}
    assert shifted == {(rule, densities) for rule in RULES for densities in ("dense", "sparse")}
    assert {cell.training.target for cell in cells if cell.group == "rules"} == {"auto"}  # CSBDeep's
    base = next(cell.training for cell in cells if cell.condition == BASE)
    assert base == Training()
    one_factor = [
        {"light": True}, {"probabilistic": True}, {"patch": 32}, {"patch": 128}, {"downscale": 2},
    ]  # fmt: skip
    trained = [replace(cell.training, seed=0) for cell in cells if cell.group == "factors"]
    assert all(replace(base, **change) in trained for change in one_factor)
    mismatched = {(cell.training.rule, cell.rule) for cell in cells if cell.group == "mismatch"}
    assert mismatched == {("median", "percentile"), ("percentile", "median")}
    assert all(cell.rule == cell.training.rule for cell in cells if cell.group != "mismatch")


def test_it_goes_on_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.normalization_study import compute as computing
    from benchmarks.normalization_study.cells import choose, design
    from benchmarks.normalization_study.results import Results
    from benchmarks.normalization_study.tables import tables
    from benchmarks.normalization_study.train import Effort

    effort = Effort(steps=2, filters=2, frames=18)
    cells = choose(design([0, 1]), ["rules-median-with-*", "mismatch-trained-median-*"])
    assert len(cells) == 4

    def kill(text: str) -> None:
        if text.startswith("2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        computing.compute(tmp_path, cells, effort, kill)
    written = {path.name: path.read_bytes() for path in (tmp_path / "cells").iterdir()}
    assert len(written) == 2
    said = list[str]()
    records = computing.compute(tmp_path, cells, effort, said.append)
    assert [text.split()[0] for text in said if "/" in text.split()[0]] == ["3/4", "4/4"]
    for name, content in written.items():
        assert (tmp_path / "cells" / name).read_bytes() == content
    assert len(list((tmp_path / "models").iterdir())) == 2  # what is restored by another rule is trained once

    again = computing.compute(tmp_path / "whole", cells[:1], effort, said.append)
    assert again[0]["measures"] == records[0]["measures"]
    with pytest.raises(OutputError, match="other settings"):
        computing.compute(tmp_path, cells, replace(effort, steps=3), said.append)

    results = Results.collect(records)
    results.write(tmp_path / "results.json")
    assert list(tables(Results.read(tmp_path / "results.json"))) == list(tables(results))
    json.loads((tmp_path / "results.json").read_text())


def test_the_page_has_the_tables_of_the_results() -> None:
    from benchmarks.normalization_study.cells import design
    from benchmarks.normalization_study.results import Results
    from benchmarks.normalization_study.tables import tables

    results = Results.read()
    assert {(cell["group"], cell["condition"], cell["seed"]) for cell in results.cells} == {
        (cell.group, cell.condition, cell.training.seed) for cell in design()
    }
    page = (ROOT / "docs/benchmarks/normalization-study.md").read_text(encoding="utf-8")
    for table in tables(results):
        assert table.split("\n\n", 1)[1] in page, table.splitlines()[0]


def test_patches_without_background_hold_cells() -> None:
    from benchmarks.normalization_study.frames import training_samples

    random = np.random.default_rng(0)
    for sample in training_samples("all", 0, empty=False, count=18):
        pair = Pair(*(2 * [sample.truth[..., np.newaxis]]), (0, 0), (1, 1), sample.cells)
        corners, sparse = draw_corners(pair, PatchPlan((32, 32), 0.0, 4, 0, 1), 4, random)
        if sample.covered > 0.2:
            assert sparse == 0
            assert all(sample.cells[y : y + 32, x : x + 32].mean() >= 0.05 for y, x in corners)


def test_of_two_conditions_it_is_the_paired_t_test() -> None:
    from benchmarks.normalization_study.significance import differences

    random = np.random.default_rng(1)
    one, other = random.normal(size=(2, 5)) + np.arange(5)
    found = differences(one, {"other": other})["other"]
    assert found.p == pytest.approx(stats.ttest_rel(other, one).pvalue)
    assert found.mean == pytest.approx(np.mean(other - one))


def test_a_difference_that_is_not_there_is_rarely_found() -> None:
    from benchmarks.normalization_study.significance import differences, holm

    random = np.random.default_rng(2)
    alarms = 0
    for _ in range(400):
        table = random.normal(size=(7, 3)) + 10 * random.normal(size=3)
        found = differences(table[0], {str(row): values for row, values in enumerate(table[1:])})
        alarms += any(each.exceeds for each in found.values())
    assert alarms / 400 < 0.07
    raw = random.random(8)
    assert holm(raw) == pytest.approx(_holm_by_definition(raw))


def _holm_by_definition(raw: np.ndarray) -> list[float]:
    ordered = sorted(raw)
    return [
        min(1.0, max((len(raw) - rank) * value for rank, value in enumerate(ordered) if value <= own)) for own in raw
    ]
