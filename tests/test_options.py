"""Every setting acts in every function that takes it, and is refused by every other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

import phbatch
from phbatch.computing.tasks import Job
from phbatch.running import arrays as graph
from phbatch.words.option_types import RunOptions
from phbatch.words.options import ACTED_ON
from phbatch.words.settings import SETTINGS, RunSettings
from phbatch.words.training import TRAINING
from phbatch.words.wording import in_python

GIVEN: dict[str, Any] = {
    "model": "phase-2d",
    "normalize": "zscore",
    "factor": 3.0,
    "sigma": 5.0,
    "pmin": 20.0,
    "pmax": 70.0,
    "value": 30.0,
    "percentiles": (25.0,),
    "scope": "series",
    "stats": "table.csv",
    "illumination": "gaussian",
    "illumination_mode": "subtract",
    "downscale": 2,
    "upscale_back": True,
    "axes": "zyx",
    "wells": "A1",
    "fields": "0",
    "channel": 0,
    "others": "copy",
    "frames": "1:2",
    "dtype": "float16",
    "rescale": True,
    "range": "0:4",
    "scale": 500.0,
    "uncertainty": True,
    "nan": "skip",
    "smooth_time": 3,
    "bad_frames": "skip",
    "tile": 32,
    "batch": 2,
    "backend": "jax",
    "network": "upsampling",
    "precision": "tf32",
    "precision_bound": 0.5,
    "memory": "1MB",
    "workers": 2,
    "threads": 2,
    "scheduler": "tcp://127.0.0.1:1",
    "wait_workers": "1m",
    "devices": ("0", "1"),
    "retries": 7,
    "codec": "zstd",
    "shuffle": "bit",
    "shard": "1MB",
    "levels": 2,
    "level_method": "mode",
    "pattern": "t{t}.tif",
    "position": 1,
    "pixel_size": 0.325,
    "interval": "5min",
    "channel_names": ("PH",),
    "ome_zarr": "0.4",
    "storage_options": {"key": "value"},
    "overwrite": True,
    "follow": True,
    "follow_timeout": "1m",
    "follow_until": "ended",
}
"""A value of every setting that is valid and not its default."""

FUNCTIONS: dict[str, Callable[..., Any]] = {name: getattr(phbatch, name) for name in ACTED_ON if name != "info"}
FUNCTIONS["run_part"] = partial(phbatch.run_part, part=1)
FUNCTIONS["evaluate"] = partial(phbatch.evaluate, truth="nowhere.zarr")
FUNCTIONS["export"] = partial(phbatch.export, output="nowhere.tif")
LAZY = ("normalize", "restore")
NEEDS: dict[str, dict[str, Any]] = {
    "factor": {"normalize": "median"},
    "sigma": {"normalize": "median"},
    "pmin": {"normalize": "percentile"},
    "pmax": {"normalize": "percentile"},
    "value": {"normalize": "fixed"},
    "illumination_mode": {"illumination": "gaussian"},
    "upscale_back": {"downscale": 2},
    "others": {"channel": 0},
    "range": {"dtype": "uint16", "range": "0:2"},
    "scale": {"dtype": "uint16", "scale": 30.0},
    "level_method": {"levels": 3},
    "follow_timeout": {"follow": True},
    "follow_until": {"follow": True},
}
"""What a setting acts beside."""


def test_every_setting_is_tried_and_typed() -> None:
    assert GIVEN.keys() == SETTINGS.keys()
    assert RunOptions.__optional_keys__ == SETTINGS.keys()
    for name, value in GIVEN.items():
        beside = NEEDS.get(name, {}) | ({"downscale": 2} if name != "downscale" else {})
        field = SETTINGS[name].field
        assert getattr(RunSettings(**(beside | {name: value})), field) != RunSettings.model_fields[field].default


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_does_nothing_is_refused_before_anything_is_looked_at(tmp_path: Path, function: str) -> None:
    taken = {"train": TRAINING.keys(), "export": {"overwrite"}}.get(function, {"axes"} if function in LAZY else set())
    for name in GIVEN.keys() - ACTED_ON[function] - taken:
        arguments = [np.zeros((1, 8, 8), "uint16"), "tyx"] if function in LAZY else [tmp_path / "nowhere.zarr"]
        with pytest.raises(phbatch.UsageError, match=rf"^{name}(=True)? does nothing in `phbatch.{function}`"):
            FUNCTIONS[function](*arguments, **{name: GIVEN[name]})
    with pytest.raises(phbatch.UsageError, match="no setting"):
        FUNCTIONS[function](np.zeros((1, 8, 8), "uint16") if function in LAZY else tmp_path, colour="red")
    assert list(tmp_path.iterdir()) == []


def outcome(function: Callable[[], Any]) -> Any:
    """What a function gives, to be compared; an error is an outcome, too."""
    try:
        found = function()
    except phbatch.PhbatchError as error:
        return type(error).__name__
    return found


def pixels(array: Any) -> tuple[Any, ...]:
    found = array.compute(scheduler="synchronous")
    return found.shape, str(found.dtype), found.tobytes()


@pytest.mark.parametrize("name", sorted(ACTED_ON["normalize"] - {"normalize"}))
def test_settings_of_normalize_change_its_pixels(frames: np.ndarray, name: str) -> None:
    needs = NEEDS[name] if name != "value" else {"normalize": "fixed", "value": 1.0}
    plain = pixels(phbatch.normalize(da.from_array(frames), "tyx", **needs))
    assert pixels(phbatch.normalize(da.from_array(frames), "tyx", **(needs | {name: GIVEN[name]}))) != plain
    with pytest.raises(phbatch.UsageError, match="does nothing with normalize minmax"):
        phbatch.normalize(frames, "tyx", normalize="minmax", **{name: GIVEN[name]})  # type: ignore[arg-type]


CHANGED_BY_RESTORE = sorted(
    ACTED_ON["restore"] - {"model", "tile", "batch", "backend", "network", "precision", "value"}
)


@pytest.mark.parametrize("name", CHANGED_BY_RESTORE)
def test_settings_of_restore_change_its_pixels(frames: np.ndarray, name: str) -> None:
    needs = NEEDS.get(name, {})

    def restored(**options: Any) -> Any:
        return outcome(lambda: pixels(phbatch.restore(da.from_array(frames[:1]), "tyx", **options)))

    plain = restored(**needs)
    assert isinstance(plain, tuple)
    assert restored(**(needs | {name: GIVEN[name]})) != plain


def test_settings_of_the_network_reach_it(frames: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []

    def make(*arguments: Any, **options: Any) -> Job:
        jobs.append(Job(*arguments, **options))
        return jobs[-1]

    monkeypatch.setattr(graph, "Job", make)
    image = da.from_array(np.tile(frames, (1, 8, 8)))
    phbatch.restore(image, "tyx")
    phbatch.restore(image, "tyx", tile=128, batch=2, backend="jax", network="upsampling")
    plain, asked = jobs
    assert plain.recipe.tiles is not None
    assert asked.recipe.tiles is not None
    assert plain.recipe.tiles.tile != asked.recipe.tiles.tile == (128, 128)
    assert (plain.recipe.batch, plain.backend, plain.recipe.network) == (1, "tensorflow", "plain")
    assert (asked.recipe.batch, asked.backend, asked.recipe.network) == (2, "jax", "upsampling")
    with pytest.raises(phbatch.UsageError, match="precision"):
        phbatch.restore(image, "tyx", precision="tf32")
    with pytest.raises(phbatch.UsageError, match="lazy"):
        phbatch.restore(image, "tyx", illumination="temporal")


@pytest.mark.parametrize(
    "options",
    [
        {"factor": 3.0, "normalize": "percentile"},
        {"value": 3.0, "normalize": "median"},
        {"illumination_mode": "subtract"},
        *(
            {name: GIVEN[name]}
            for name in ("tile", "batch", "backend", "network", "precision", "precision_bound", "devices")
        ),
        {"uncertainty": True},
        {"percentiles": (5,), "stats": "table.csv"},
        {"shuffle": "bit", "codec": "zstd"},
        {"upscale_back": True},
    ],
    ids=str,
)
def test_run_and_plan_refuse_what_does_nothing_beside_the_rest(
    tmp_path: Path, frames: np.ndarray, options: dict[str, Any]
) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=frames)
    for function in (phbatch.run, phbatch.plan):
        with pytest.raises(phbatch.UsageError):
            function(tmp_path / "a.zarr", model="none", **options)  # type: ignore[operator]
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_verify_info_and_patches_refuse_what_does_nothing(tmp_path: Path, frames: np.ndarray) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=frames)
    output = phbatch.run(tmp_path / "a.zarr", model="none", workers=1).output
    for name in ("model", "memory", "scheduler", "retries"):
        with pytest.raises(phbatch.UsageError, match=f"^{name} acts on units"):
            phbatch.verify(output, **{name: GIVEN[name]})  # type: ignore[arg-type]
    assert phbatch.verify(output, deep=1, retries=2, memory="2GB", input=tmp_path / "a.zarr").damages == ()
    with pytest.raises(phbatch.UsageError, match="benchmark"):
        phbatch.info(output, backend="jax")
    with pytest.raises(phbatch.UsageError, match="factor"):
        phbatch.csbdeep.patch_normalization("percentile", factor=2.0)


STATISTICS = sorted(
    ACTED_ON["statistics"]
    - {"workers", "scheduler", "wait_workers", "storage_options", "threads", "retries", "channel", "illumination_mode"}
)


@pytest.mark.parametrize("name", STATISTICS)
def test_settings_of_statistics_change_the_table(tmp_path: Path, frames: np.ndarray, name: str) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=frames)

    def table(**options: Any) -> Any:
        return outcome(lambda: [*phbatch.statistics(tmp_path / "a.zarr", workers=1, **options)])

    assert table(**{name: GIVEN[name]}) != table()


USER = """
from pathlib import Path

import numpy as np
import phbatch

settings = phbatch.RunSettings(memory="4GB", model=Path("m"), stats=Path("t.csv"), tile="auto", percentiles="1,50")
phbatch.RunSettings(storage_options={"key": "a"}, shard=64_000_000, percentiles=[1, 50.0], channel="phase", tile=64)
memory: int | None = settings.memory
phbatch.run(Path("a.zarr"), memory="4GB", storage_options={"key": "a"}, percentiles=[1, 50], dtype="uint8")
phbatch.plan("a.zarr", memory=4_000_000_000, storage_options=["key=a", {"secret": "b"}], nan="skip")
phbatch.statistics("a.zarr", scope="series", memory="4GB").column("median").mean()
phbatch.verify("a.zarr", deep=2, input=Path("b.zarr"), memory="1GB")
phbatch.restore(np.zeros((2, 8, 8)), "tyx", model=Path("m"), memory="2GB", illumination="gaussian")
phbatch.run("a.zarr", colour="red")  # refused
phbatch.run("a.zarr", dtype="uint7")  # refused
phbatch.normalize(np.zeros((8, 8)), "yx", scope="series")  # refused
phbatch.RunSettings(workers="many")  # refused
"""


# What phbatch itself imports, but for NumPy and pydantic, is not looked into: that is two thirds of the time.
CHECKED = """
[mypy]
strict = True
plugins = pydantic.mypy
follow_imports = silent
ignore_missing_imports = True
[mypy-{others}]
follow_imports = skip
follow_imports_for_stubs = True
"""
OTHERS = [
    "PIL", "click", "dask", "distributed", "fsspec", "jinja2", "lazy_loader", "matplotlib", "nd2", "numcodecs",
    "obstore", "ome_types", "optype", "pandas", "psutil", "pyarrow", "rich", "scipy", "tifffile", "xarray", "xsdata",
    "yaml", "yaozarrs", "zarr",
]  # fmt: skip


def test_calls_of_users_type_check(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "mypy.ini").write_text(CHECKED.format(others=",".join(f"{name}.*" for name in OTHERS)))
    options = ["--cache-dir", os.devnull, "--config-file", str(tmp_path / "mypy.ini")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(tmp_path / "user.py")],
        capture_output=True,
        text=True,
        cwd=Path(phbatch.__file__).parents[1],
        check=False,
    )
    wrong = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert wrong == {at for at, line in enumerate(USER.splitlines(), 1) if "# refused" in line}, done.stdout


@pytest.mark.parametrize(
    ("typed", "python"),
    [
        ("--nan skip.", "nan='skip'."),
        ("--dtype=uint8 needs", "dtype='uint8' needs"),
        ("--tile=32 leaves", "tile=32 leaves"),
        ("as in --axes tyx.", "as in axes='tyx'."),
        ("leave --axes out.", "leave axes out."),
        ("lower --tile or --batch.", "lower tile or batch."),
        ("with --no-rescale", "with rescale=False"),
        ("see `phbatch run --help` for", "see `help(phbatch.run)` for"),
        ("pip install --no-deps basicpy", "pip install --no-deps basicpy"),
        ("--stats='a b.csv' is", "stats='a b.csv' is"),
    ],
)
def test_sentences_are_put_into_pythons_words(typed: str, python: str) -> None:
    assert in_python(typed) == python
