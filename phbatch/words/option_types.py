"""What each function takes, typed as a person writes it; `phbatch.shell.settings_types` writes this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from phbatch.words.choices import (
    BackendChoice,
    BadFrames,
    Codec,
    IlluminationMode,
    LevelMethod,
    Loss,
    NanPolicy,
    Network,
    OmeZarr,
    Others,
    OutputDtype,
    Precision,
    Scope,
    Shuffle,
    Target,
)


class SampleOptions(TypedDict, total=False):
    """What `phbatch.illumination` is given; None is as if it were not."""

    axes: str | None
    wells: str | Sequence[str] | None
    fields: str | int | Sequence[int] | None
    channel: int | str | Sequence[int | str] | None
    frames: int | str | None
    pattern: str | None
    position: int | str | None
    storage_options: Mapping[str, Any] | str | Sequence[Mapping[str, Any] | str] | None
    memory: int | str | None


class CompareOptions(TypedDict, total=False):
    """What `phbatch.compare_rules` is given; None is as if it were not."""

    axes: str | None
    wells: str | Sequence[str] | None
    fields: str | int | Sequence[int] | None
    channel: int | str | Sequence[int | str] | None
    frames: int | str | None
    pattern: str | None
    position: int | str | None
    storage_options: Mapping[str, Any] | str | Sequence[Mapping[str, Any] | str] | None
    sigma: float | None
    pmin: float | None
    pmax: float | None
    value: float | None
    illumination: str | Path | None
    illumination_mode: IlluminationMode | None
    downscale: int | None
    model: str | Path | None
    memory: int | str | None


class EvaluateOptions(TypedDict, total=False):
    """What `phbatch.evaluate` is given; None is as if it were not."""

    axes: str | None
    wells: str | Sequence[str] | None
    fields: str | int | Sequence[int] | None
    storage_options: Mapping[str, Any] | str | Sequence[Mapping[str, Any] | str] | None


class ExportOptions(TypedDict, total=False):
    """What `phbatch.export` is given; None is as if it were not."""

    axes: str | None
    wells: str | Sequence[str] | None
    fields: str | int | Sequence[int] | None
    storage_options: Mapping[str, Any] | str | Sequence[Mapping[str, Any] | str] | None


class StatisticsOptions(TypedDict, total=False):
    """What `phbatch.statistics` is given; None is as if it were not."""

    axes: str | None
    wells: str | Sequence[str] | None
    fields: str | int | Sequence[int] | None
    channel: int | str | Sequence[int | str] | None
    frames: int | str | None
    pattern: str | None
    position: int | str | None
    storage_options: Mapping[str, Any] | str | Sequence[Mapping[str, Any] | str] | None
    sigma: float | None
    pmin: float | None
    pmax: float | None
    percentiles: Sequence[float] | str | None
    scope: Scope | None
    smooth_time: int | None
    illumination: str | Path | None
    illumination_mode: IlluminationMode | None
    downscale: int | None
    memory: int | str | None
    workers: int | None
    threads: int | None
    scheduler: str | Path | None
    wait_workers: float | str | None
    retries: int | None


class RunOptions(TypedDict, total=False):
    """What `phbatch.run` and `phbatch.plan` is given; None is as if it were not."""

    axes: str | None
    wells: str | Sequence[str] | None
    fields: str | int | Sequence[int] | None
    channel: int | str | Sequence[int | str] | None
    others: Others | None
    frames: int | str | None
    pattern: str | None
    position: int | str | None
    pixel_size: float | str | Sequence[float] | None
    interval: float | str | None
    channel_names: Sequence[str] | str | None
    storage_options: Mapping[str, Any] | str | Sequence[Mapping[str, Any] | str] | None
    normalize: str | None
    factor: float | None
    sigma: float | None
    pmin: float | None
    pmax: float | None
    value: float | None
    percentiles: Sequence[float] | str | None
    scope: Scope | None
    smooth_time: int | None
    stats: str | Path | None
    illumination: str | Path | None
    illumination_mode: IlluminationMode | None
    downscale: int | None
    nan: NanPolicy | None
    bad_frames: BadFrames | None
    model: str | Path | None
    uncertainty: bool | None
    tile: int | str | None
    batch: int | str | None
    backend: BackendChoice | None
    network: Network | None
    precision: Precision | None
    precision_bound: float | None
    dtype: OutputDtype | None
    rescale: bool | None
    range: str | tuple[float, float] | None
    scale: float | None
    upscale_back: bool | None
    codec: Codec | None
    shuffle: Shuffle | None
    shard: int | str | None
    levels: int | str | None
    level_method: LevelMethod | None
    ome_zarr: OmeZarr | None
    overwrite: bool | None
    follow: bool | None
    follow_timeout: float | str | None
    follow_until: str | Path | None
    memory: int | str | None
    workers: int | None
    threads: int | None
    scheduler: str | Path | None
    wait_workers: float | str | None
    devices: str | int | Sequence[str | int] | None
    retries: int | None


class ConvertOptions(TypedDict, total=False):
    """What `phbatch.convert` is given; None is as if it were not."""

    axes: str | None
    wells: str | Sequence[str] | None
    fields: str | int | Sequence[int] | None
    channel: int | str | Sequence[int | str] | None
    frames: int | str | None
    pattern: str | None
    position: int | str | None
    pixel_size: float | str | Sequence[float] | None
    interval: float | str | None
    channel_names: Sequence[str] | str | None
    storage_options: Mapping[str, Any] | str | Sequence[Mapping[str, Any] | str] | None
    codec: Codec | None
    shuffle: Shuffle | None
    shard: int | str | None
    levels: int | str | None
    level_method: LevelMethod | None
    ome_zarr: OmeZarr | None
    overwrite: bool | None
    memory: int | str | None
    workers: int | None
    threads: int | None
    scheduler: str | Path | None
    wait_workers: float | str | None
    retries: int | None


class NormalizeOptions(TypedDict, total=False):
    """What `phbatch.normalize` is given; None is as if it were not."""

    factor: float | None
    sigma: float | None
    pmin: float | None
    pmax: float | None
    value: float | None


class RestoreOptions(TypedDict, total=False):
    """What `phbatch.restore` is given; None is as if it were not."""

    normalize: str | None
    factor: float | None
    sigma: float | None
    pmin: float | None
    pmax: float | None
    value: float | None
    illumination: str | Path | None
    illumination_mode: IlluminationMode | None
    downscale: int | None
    tile: int | str | None
    batch: int | str | None
    backend: BackendChoice | None
    network: Network | None
    precision: Precision | None
    dtype: OutputDtype | None
    rescale: bool | None
    range: str | tuple[float, float] | None
    scale: float | None
    upscale_back: bool | None
    memory: int | str | None


class RedoOptions(TypedDict, total=False):
    """What `phbatch.verify` and `phbatch.repair` is given; None is as if it were not."""

    storage_options: Mapping[str, Any] | str | Sequence[Mapping[str, Any] | str] | None
    model: str | Path | None
    memory: int | str | None
    workers: int | None
    scheduler: str | Path | None
    wait_workers: float | str | None
    retries: int | None


class PartOptions(TypedDict, total=False):
    """What `phbatch.run_part` is given; None is as if it were not."""

    storage_options: Mapping[str, Any] | str | Sequence[Mapping[str, Any] | str] | None
    model: str | Path | None
    memory: int | str | None
    workers: int | None
    threads: int | None
    retries: int | None


class TrainOptions(TypedDict, total=False):
    """What `phbatch.train` is given; None is as if it were not."""

    axes: str | None
    wells: str | Sequence[str] | None
    fields: str | int | Sequence[int] | None
    channel: int | str | Sequence[int | str] | None
    frames: int | str | None
    pattern: str | None
    position: int | str | None
    pixel_size: float | str | Sequence[float] | None
    storage_options: Mapping[str, Any] | str | Sequence[Mapping[str, Any] | str] | None
    normalize: str | None
    factor: float | None
    sigma: float | None
    pmin: float | None
    pmax: float | None
    value: float | None
    illumination: str | Path | None
    illumination_mode: IlluminationMode | None
    downscale: int | None
    backend: BackendChoice | None
    overwrite: bool | None
    memory: int | str | None
    threads: int | None
    clean: str | Path | None
    degrade: Sequence[str] | str | None
    simulate: int | None
    dims: int | str | None
    together: bool | None
    depth: int | None
    kernel: int | None
    filters: int | None
    probabilistic: bool | None
    residual: bool | None
    activation: str | None
    loss: Loss | None
    target: Target | None
    epochs: int | None
    steps: int | None
    batch: int | None
    patch: int | None
    patch_depth: int | None
    background: float | None
    rate: float | None
    validation: float | None
    register: bool | None
    seed: int | None
