"""Tables of the study in Markdown: means over seeds, half their range, and a star where a difference exceeds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import exp, log
from statistics import fmean

from .cells import BASE, BY_NOISY, FACTORS, LONGER, PERCENTILE, RULES
from .results import Results
from .significance import Difference, differences

RULE_COLUMNS = {
    "psnr": "PSNR, dB",
    "psnr_cells": "on cells",
    "psnr_background": "on background",
    "ssim_cells": "SSIM on cells",
    "ssim_background": "on background",
    "psnr_dim": "PSNR, half the light",
}
STEADY_COLUMNS = {
    "empty_error": "empty frames: error, %",
    "empty_blobs": "of it larger than noise, %",
    "empty_offset": "their offset, %",
    "empty_std_ratio": "their std over the truth's",
    "drift": "drift over the colony, %",
    "seen_drift": "drift seen, of the contrast",
    "seen_stretch": "noise stretched, x",
}
REAL_COLUMNS = {
    "real:stretch_seen": "noise stretched, x",
    "real:drift_seen": "drift seen, of the contrast",
    "real:drift": "drift restored, %",
    "real:noise_left": "noise left, %",
    "real:removed": "removed, of the noise",
    "real:lag_1": "its autocorrelation",
    "real:structured": "windows with structure removed",
}
FACTOR_COLUMNS = {
    "psnr": "PSNR, dB",
    "psnr_cells": "on cells",
    "psnr_background": "on background",
    "empty_error": "empty frames: error, %",
    "empty_blobs": "of it larger than noise, %",
    "drift": "drift over the colony, %",
}

RATIOS = {"empty_error", "empty_blobs", "empty_offset", "drift", "real:drift", "real:noise_left", "real:removed"}
"""Measures that spread in proportion to what they are: compared as ratios, by their logarithms."""

Values = Callable[[str, str], list[float]]
"""Of a condition and a measure, seed by seed."""


def tables(results: Results) -> Iterator[str]:
    """All that can be made of what was computed, each with a title."""

    def of(group: str) -> Values:
        return lambda condition, measure: results.values(group, condition, measure)

    rules = results.conditions("rules")
    if BASE in rules:
        others = [condition for condition in rules if condition != BASE]
        for title, columns in (("Rules: fidelity", RULE_COLUMNS), ("Rules: steadiness", STEADY_COLUMNS)):
            yield f"{title}\n\n{_table(of('rules'), BASE, others, columns)}"
        if results.cells_of("rules", BASE)[0]["real"]:
            yield f"Real frames\n\n{_table(of('rules'), BASE, others, REAL_COLUMNS)}"
    for title, words, pairs in (
        ("Patches with background against without", "with against without", _with_and_without()),
        ("The factor 10 against 1", "10 against 1", _ten_and_one()),
    ):
        if found := [pair for pair in pairs if set(pair) <= set(rules)]:
            yield f"{title}\n\n{_paired(results, words, found)}"
    complete = {c for c in results.conditions("shift") if len(results.cells_of("shift", c)) == _seeds(results)}
    if shifted := [
        r for r in (*RULES, BY_NOISY) if {f"{r}, trained {kind}" for kind in ("dense", "sparse")} <= complete
    ]:
        yield f"Shift\n\n{_shift(results, shifted)}"
    factors = [condition for condition in results.conditions("factors") if condition in FACTORS]
    if BASE in rules and factors:
        yield f"One factor at a time\n\n{_table(_either(results, 'factors'), BASE, factors, FACTOR_COLUMNS)}"
    longer, *others = LONGER
    if {longer, *others} <= set(results.conditions("factors")):
        yield f"Longer training\n\n{_table(of('factors'), longer, others, FACTOR_COLUMNS)}"
    for base, condition in (
        (BASE, "trained median, restored percentile"),
        (PERCENTILE, "trained percentile, restored median"),
    ):
        if base in rules and condition in results.conditions("mismatch"):
            yield f"Mismatch\n\n{_table(_either(results, 'mismatch'), base, [condition], FACTOR_COLUMNS)}"


def _seeds(results: Results) -> int:
    return len(results.cells_of("rules", BASE))


def _either(results: Results, group: str) -> Values:
    """A group, and the rules for its base."""
    return lambda condition, measure: (
        results.values(group, condition, measure) or results.values("rules", condition, measure)
    )


def compare(values: Values, base: str, others: Sequence[str], measure: str) -> dict[str, Difference]:
    """Differences of the conditions that have as many seeds as the base; none of a single seed."""
    own = _comparable(values(base, measure), measure)
    found = {other: _comparable(values(other, measure), measure) for other in others}
    complete = {other: each for other, each in found.items() if len(each) == len(own)}
    return differences(own, complete) if len(own) > 1 and complete else {}


def _comparable(values: Sequence[float], measure: str) -> list[float]:
    return [log(value) if measure in RATIOS else value for value in values]


def _table(values: Values, base: str, others: Sequence[str], columns: Mapping[str, str]) -> str:
    found = {measure: compare(values, base, others, measure) for measure in columns}
    rows = [_row(["", *columns.values()]), "|---" * (1 + len(columns)) + "|"]
    for condition in (base, *others):
        cells = [_cell(values(condition, measure), found[measure].get(condition)) for measure in columns]
        rows.append(_row([f"**{condition}**" if condition == base else condition, *cells]))
    return "\n".join(rows)


def _cell(values: Sequence[float], difference: Difference | None = None) -> str:
    if not values:
        return "-"
    if len(values) > 1 and max(values) == min(values):  # of the frames, whatever was trained
        return _number(values[0])
    star = "*" if difference is not None and difference.exceeds else ""
    return f"{_number(fmean(values))} ± {_number((max(values) - min(values)) / 2)}{star}".replace("*", "\\*")


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _with_and_without() -> list[tuple[str, str]]:
    return [(f"{rule}, with background", f"{rule}, without background") for rule in RULES]


def _ten_and_one() -> list[tuple[str, str]]:
    kinds = [(rule, word) for rule in ("median", "mode") for word in ("with", "without")]
    return [(f"10 x {rule}, {word} background", f"{rule}, {word} background") for rule, word in kinds]


def _paired(results: Results, words: str, pairs: Sequence[tuple[str, str]]) -> str:
    """One of each pair of conditions against the other; each pair and seed a block."""
    columns = FACTOR_COLUMNS | {f"psnr_{group}": f"PSNR, {group} frames" for group in ("sparse", "dense")}
    rows = [_row([words, "mean", "of a pair of networks", "p"]), "|---|---|---|---|"]
    for measure, title in columns.items():
        one, other = (
            [value for pair in pairs for value in _comparable(results.values("rules", pair[at], measure), measure)]
            for at in (0, 1)
        )
        if len(one) == len(other) > 1:
            found = differences(other, {"one": one})["one"]
            mean, low, high = (
                f"x {exp(value):.2f}" if measure in RATIOS else f"{value:+.2f}"
                for value in (found.mean, found.low, found.high)
            )
            rows.append(_row([title, mean, f"{low} to {high}", f"{found.p:.2g}"]))
    return "\n".join(rows)


def loss_by_shift(results: Results, rule: str, trained: str) -> list[float]:
    """PSNR that a network trained on dense or sparse frames lacks on the others, to one trained on all; by seed."""
    measure = "psnr_sparse" if trained == "dense" else "psnr_dense"
    own = results.values("shift", f"{rule}, trained {trained}", measure)
    of_all = results.values("rules", f"{rule}, with background", measure) or results.values("factors", rule, measure)
    return [one - all_ for one, all_ in zip(own, of_all, strict=False)]


def _shift(results: Results, rules: Sequence[str]) -> str:
    words = {"dense": "trained on dense, tested on sparse", "sparse": "trained on sparse, tested on dense"}
    columns = [f"{title}: {what}" for title in words.values() for what in ("PSNR, dB", "to trained on all, dB")]
    base = "median" if "median" in rules else rules[0]
    rows = [_row(["", *columns]), "|---" * (1 + len(columns)) + "|"]
    found = {
        trained: compare(
            lambda rule, trained: loss_by_shift(results, rule, trained), base, [r for r in rules if r != base], trained
        )
        for trained in words
    }
    for rule in rules:
        cells = []
        for trained in words:
            measure = "psnr_sparse" if trained == "dense" else "psnr_dense"
            cells.append(_cell(results.values("shift", f"{rule}, trained {trained}", measure)))
            cells.append(_cell(loss_by_shift(results, rule, trained), found[trained].get(rule)))
        rows.append(_row([f"**{rule}**" if rule == base else rule, *cells]))
    return "\n".join(rows)
