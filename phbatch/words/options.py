"""The settings that each function takes, typed as a person writes them; what would do nothing is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from phbatch.words.errors import UsageError
from phbatch.words.settings import (
    SETTING_NAMES,
    Backend,
    BadFrames,
    Codec,
    IlluminationMode,
    NanPolicy,
    Network,
    OutputDtype,
    Precision,
    RunSettings,
    Scope,
    Shuffle,
    parse_settings,
)

GivenStorageOptions = Mapping[str, Any] | str | Sequence[Mapping[str, Any] | str]
"""Credentials and endpoint of object stores, see `phbatch.words.settings.parse_storage_options`."""


class SampleOptions(TypedDict, total=False):
    """What `phbatch.illumination` acts on; None is as if it were not given."""

    axes: str | None
    channel: int | str | None
    frames: str | None
    memory: int | str | None
    storage_options: GivenStorageOptions | None


class CompareOptions(SampleOptions, total=False):
    """What `phbatch.compare_rules` acts on."""

    model: str | Path | None
    sigma: float | None
    pmin: float | None
    pmax: float | None
    value: float | None
    illumination: str | Path | None
    illumination_mode: IlluminationMode | None
    downscale: int | None


class StatisticsOptions(SampleOptions, total=False):
    """What `phbatch.statistics` acts on."""

    sigma: float | None
    pmin: float | None
    pmax: float | None
    percentiles: Sequence[float] | str | None
    scope: Scope | None
    smooth_time: int | None
    illumination: str | Path | None
    illumination_mode: IlluminationMode | None
    downscale: int | None
    workers: int | None
    threads: int | None
    scheduler: str | None
    retries: int | None


class RunOptions(StatisticsOptions, total=False):
    """What `phbatch.run` and `phbatch.plan` act on: the fields of `phbatch.RunSettings`."""

    model: str | Path | None
    normalize: str | None
    factor: float | None
    value: float | None
    stats: str | Path | None
    upscale_back: bool | None
    dtype: OutputDtype | None
    rescale: bool | None
    range: str | tuple[float, float] | None
    scale: float | None
    uncertainty: bool | None
    nan: NanPolicy | None
    bad_frames: BadFrames | None
    tile: int | str | None
    batch: int | str | None
    backend: Backend | None
    network: Network | None
    precision: Precision | None
    precision_bound: float | None
    codec: Codec | None
    shuffle: Shuffle | None
    shard: int | str | None
    overwrite: bool | None


class NormalizeOptions(TypedDict, total=False):
    """What `phbatch.normalize` acts on besides `normalize`."""

    factor: float | None
    sigma: float | None
    pmin: float | None
    pmax: float | None
    value: float | None


class RestoreOptions(NormalizeOptions, total=False):
    """What `phbatch.restore` acts on besides `model`."""

    normalize: str | None
    illumination: str | None
    illumination_mode: IlluminationMode | None
    downscale: int | None
    upscale_back: bool | None
    dtype: OutputDtype | None
    rescale: bool | None
    range: str | tuple[float, float] | None
    scale: float | None
    tile: int | str | None
    batch: int | str | None
    backend: Backend | None
    network: Network | None
    precision: Precision | None
    memory: int | str | None


class RedoOptions(TypedDict, total=False):
    """What `phbatch.verify` and `phbatch.repair` act on."""

    input: str | Path | None
    model: str | Path | None
    memory: int | str | None
    workers: int | None
    scheduler: str | None
    retries: int | None
    storage_options: GivenStorageOptions | None


ACTED_ON: dict[str, frozenset[str]] = {
    name: frozenset(kind.__optional_keys__) | more
    for name, kind, more in (
        ("run", RunOptions, set[str]()),
        ("plan", RunOptions, set()),
        ("statistics", StatisticsOptions, set()),
        ("illumination", SampleOptions, set()),
        ("compare_rules", CompareOptions, set()),
        ("normalize", NormalizeOptions, {"normalize"}),
        ("restore", RestoreOptions, {"model"}),
        ("verify", RedoOptions, set()),
        ("repair", RedoOptions, set()),
    )
}
"""The settings that each public function acts on."""


def parse_options(function: str, options: Mapping[str, Any]) -> RunSettings:
    """Settings of a public function from options as a person wrote them.

    Raises
    ------
    UsageError
        One that the function does not act on, or a value that is not valid.

    Examples
    --------
    >>> parse_options("normalize", {"sigma": 3, "factor": None}).sigma
    3.0
    """
    given = {name: value for name, value in options.items() if value is not None}
    require_acted_on(function, given)
    return parse_settings(given)


def require_acted_on(function: str, names: Mapping[str, Any]) -> None:
    """Refuse settings, by their names, that a function does not act on; names of no setting are left to others."""
    ignored = sorted((names.keys() & SETTING_NAMES) - ACTED_ON[function])
    if ignored:
        raise UsageError(
            f"--{ignored[0].replace('_', '-')} does nothing in `phbatch.{function}`, which acts on"
            f" {', '.join(sorted(ACTED_ON[function]))}; leave it out."
        )
