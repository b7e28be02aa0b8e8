"""Frames that are restored in bands are those that are restored whole, to the byte, whatever happens between."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import phbatch
from phbatch.planning import fit
from phbatch.planning.fit import Fit
from phbatch.running import begin
from phbatch.words.events import UnitFinished
from tests.models import Case, make_model
from tests.ome_inputs import write_ome
from tests.outputs import statistics_of


@contextmanager
def cutting(rows: int) -> Iterator[None]:
    """While inside, frames are cut into bands of some rows, though memory would hold them."""
    choose = Fit.choose
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fit, "choose", lambda self, geometry, recipe, band: choose(self, geometry, recipe, band or rows))
        yield


@contextmanager
def tiles_of_bands(rows: int) -> Iterator[None]:
    """While inside, whole frames are restored by the tiles that restore bands of some rows."""
    resolve = fit.resolve_tiles
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            fit,
            "resolve_tiles",
            lambda settings, geometry, *given: resolve(settings, replace(geometry, band=rows), *given),
        )
        yield


def arrays_of(output: str) -> dict[str, np.ndarray]:
    """Pixels of every level, and of the uncertainty."""
    names = [str(path.relative_to(output)) for path in sorted(Path(output).glob("**/zarr.json"))]
    nodes = {name.removesuffix("/zarr.json"): name for name in names if not name.startswith(("statistics", "illum"))}
    found = {name: zarr.open(output, path=name, mode="r") for name in nodes if name.endswith(("0", "image"))}
    return {name: np.asarray(array[...]) for name, array in found.items() if isinstance(array, zarr.Array)}


def assert_same(whole: str, cut: str) -> None:
    ours, theirs = arrays_of(cut), arrays_of(whole)
    assert ours.keys() == theirs.keys()
    for name, pixels in theirs.items():
        np.testing.assert_array_equal(ours[name], pixels, err_msg=name)
    assert statistics_of(cut) == statistics_of(whole)
    ome: list[Any] = [zarr.open_group(output, mode="r").attrs.asdict() for output in (whole, cut)]
    assert ome[0].get("ome") == ome[1].get("ome")
    assert ome[0].get("omero") == ome[1].get("omero")


def phase(shape: tuple[int, int], frames: int, dtype: str = "uint16", border: int = 0) -> np.ndarray:
    """Cells on a background that is uneven, perhaps with a black border."""
    movie = phbatch.PhaseContrast(shape=shape, n_frames=frames, seed=4)
    images = np.stack([movie.frame(t) for t in range(frames)]).astype(np.float64)
    images = images / images.max() * (200 if dtype == "uint8" else 4000)
    images[:, :border] = 0
    return images.astype(dtype)


numbers = itertools.count()

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "normalize": st.sampled_from(["percentile", "zscore", "none"]),
        "downscale": st.integers(2, 3),
        "rescale": st.just(True),
        "bad_frames": st.sampled_from(["copy", "skip"]),
        "scope": st.just("series"),
        "shard": st.sampled_from(["auto", 1]),
        "level_method": st.just("mode"),
        "sigma": st.sampled_from([0.0, 7.0]),
    },
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(st.integers(70, 300), st.integers(8, 90)),
    st.tuples(st.integers(10, 300), st.integers(5, 90)),
    st.sampled_from(["uint8", "uint16", "int16"]),
    st.sampled_from([16, 32, 64]),
    st.integers(2, 5),
    st.sampled_from([0, 13]),
    OPTIONS,
)
def test_bands_equal_whole_frames_to_the_byte(
    tmp_path: Path,
    shape: tuple[int, int],
    chunks: tuple[int, int],
    dtype: str,
    rows: int,
    levels: int,
    border: int,
    options: dict[str, Any],
) -> None:
    folder = tmp_path / str(next(numbers))
    frames = phase(shape, 2, dtype, border)
    hints = {"omero": {"channels": [{"label": "PH"}]}}
    chunk = (1, 1, *(min(pair) for pair in zip(chunks, shape, strict=True)))
    write_ome(folder / "in.zarr", frames[:, np.newaxis], "tcyx", "0.5", attributes=hints, chunks=chunk)
    given: dict[str, Any] = {"model": "none", "workers": 1, "levels": levels} | options
    whole = phbatch.run(folder / "in.zarr", folder / "whole.zarr", **given)
    with cutting(rows):
        cut = phbatch.run(folder / "in.zarr", folder / "cut.zarr", **given)
    height = -(-shape[0] // options.get("downscale", 1))
    assert cut.units == whole.units * -(-height // rows)
    assert (cut.frames, cut.flagged, cut.clipped) == (whole.frames, whole.flagged, whole.clipped)
    assert_same(whole.output, cut.output)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    cases = {
        "plain": Case(),
        "uncertain": Case(probabilistic=True),
        "two": Case(channels=(2, 2), residual=False),
    }
    for name, case in cases.items():
        make_model(folder / name, case)
    return {name: folder / name for name in cases}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain", {}),
        ("plain", {"tile": 72}),
        ("plain", {"batch": 3, "tile": 80}),
        ("plain", {"downscale": 2, "rescale": True, "dtype": "uint16"}),
        ("plain", {"illumination": "profile"}),
        ("plain", {"bad_frames": "copy", "normalize": "zscore"}),
        ("plain", {"channel": "0", "others": "copy", "rescale": True, "dtype": "uint16"}),
        ("uncertain", {"uncertainty": True}),
        ("two", {}),
    ],
    ids=str,
)
def test_a_network_gives_the_same_bytes_by_the_same_tiles(
    tmp_path: Path, models: dict[str, Path], name: str, options: dict[str, Any]
) -> None:
    frames = np.stack([phase((203, 97), 2), phase((203, 97), 2)[::-1]], axis=1)
    frames[1, 1] = np.where(np.arange(97) > 60, 40, 0)  # its median gives no scale
    write_ome(tmp_path / "in.zarr", frames, "tcyx", "0.5", chunks=(1, 1, 64, 97))
    if "illumination" in options:
        light = np.linspace(900, 1100, 203 * 97, dtype=np.float32).reshape(203, 97)
        zarr.create_array(tmp_path / "light.zarr", data=light)
        options = options | {"illumination": str(tmp_path / "light.zarr")}
    given: dict[str, Any] = {"model": models[name], "workers": 2, "levels": 3, "precision": "float32"} | options
    with tiles_of_bands(32):
        whole = phbatch.run(tmp_path / "in.zarr", tmp_path / "whole.zarr", **given)
    with cutting(32):
        cut = phbatch.run(tmp_path / "in.zarr", tmp_path / "cut.zarr", **given)
    assert cut.units > 2 * whole.units
    assert cut.clipped == whole.clipped
    assert_same(whole.output, cut.output)


def test_a_network_differs_by_rounding_from_that_of_whole_tiles(tmp_path: Path, models: dict[str, Path]) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=phase((203, 97), 1)[0], chunks=(64, 97))
    given: dict[str, Any] = {"model": models["plain"], "axes": "yx", "precision": "float32"}
    whole = phbatch.run(tmp_path / "in.zarr", tmp_path / "whole.zarr", **given)
    with cutting(32):
        cut = phbatch.run(tmp_path / "in.zarr", tmp_path / "cut.zarr", **given)
    expected, found = arrays_of(whole.output)["0"], arrays_of(cut.output)["0"]
    assert np.abs(found - expected).max() <= 1e-5 * expected.std()


@pytest.mark.parametrize("options", [{}, {"normalize": "none", "dtype": "input"}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "uint32"])
def test_wide_pixels_equal_whole_frames_where_their_statistics_are_given(
    tmp_path: Path, dtype: str, options: dict[str, Any]
) -> None:
    """Of floats that are measured in pieces the statistics are within a stated error."""
    zarr.create_array(tmp_path / "in.zarr", data=phase((203, 97), 1, dtype)[0], chunks=(64, 97))
    given: dict[str, Any] = {"model": "none", "axes": "yx", "levels": 2} | options
    whole = phbatch.run(tmp_path / "in.zarr", tmp_path / "whole.zarr", **given)
    with cutting(32):
        own = phbatch.run(tmp_path / "in.zarr", tmp_path / "own.zarr", **given)
        if not options:
            given["stats"] = whole.output
        cut = phbatch.run(tmp_path / "in.zarr", tmp_path / "cut.zarr", **given)
    for name, pixels in arrays_of(whole.output).items():
        np.testing.assert_array_equal(arrays_of(cut.output)[name], pixels)
        np.testing.assert_allclose(arrays_of(own.output)[name], pixels, rtol=2e-5)


@pytest.mark.parametrize("done", [1, 4])
def test_a_run_that_is_stopped_between_bands_goes_on_with_them(tmp_path: Path, done: int) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=phase((203, 97), 1)[0], chunks=(64, 97))
    given: dict[str, Any] = {"model": "none", "axes": "yx", "levels": 3, "workers": 1}
    heard: list[object] = []

    def stop() -> bool:
        time.sleep(0.25)  # units are told in groups, and not all may be one
        return sum(isinstance(event, UnitFinished) for event in heard) >= done

    with cutting(16):
        straight = phbatch.run(tmp_path / "in.zarr", tmp_path / "straight.zarr", **given)
        with pytest.raises(phbatch.InterruptedRunError, match="of 13 units"):
            phbatch.run(tmp_path / "in.zarr", tmp_path / "cut.zarr", listener=heard.append, stop=stop, **given)
    cut = phbatch.run(tmp_path / "in.zarr", tmp_path / "cut.zarr", **given)  # memory would hold whole frames now
    assert done <= cut.units_skipped < 13
    assert cut.units_skipped + cut.units_done == 13
    assert_same(straight.output, cut.output)
    assert phbatch.verify(cut.output, deep=3).damages == ()


def test_a_band_that_is_damaged_is_named_and_done_again_alone(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=phase((203, 97), 1)[0], chunks=(64, 97))
    with cutting(32):
        cut = phbatch.run(tmp_path / "in.zarr", tmp_path / "cut.zarr", model="none", axes="yx", levels=3)
    before = arrays_of(cut.output)
    (tmp_path / "cut.zarr/1/image/c/2/0").write_bytes(b"damaged")
    (damage,) = phbatch.verify(cut.output).damages
    assert (damage.unit, damage.frames) == ("t0/c0/y64-95", ("t0/c0/z0",))
    assert phbatch.repair(cut.output).units_done == 1
    for name, pixels in before.items():
        np.testing.assert_array_equal(arrays_of(cut.output)[name], pixels)
    assert phbatch.verify(cut.output, deep=7).damages == ()


def test_tasks_of_an_array_share_the_bands_of_a_frame(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "in.zarr", data=phase((203, 97), 1)[0], chunks=(64, 97))
    given: dict[str, Any] = {"model": "none", "axes": "yx", "levels": 3}
    with cutting(32):
        straight = phbatch.run(tmp_path / "in.zarr", tmp_path / "straight.zarr", **given)
        begun = phbatch.begin_parts(tmp_path / "in.zarr", tmp_path / "cut.zarr", parts=2, **given)
    assert begun.passes == 1
    first, second = (phbatch.run_part(begun.output, part=part) for part in (1, 2))
    assert (first.units_done, second.units_done, second.complete) == (4, 3, True)
    assert_same(straight.output, begun.output)


def test_the_input_of_a_frame_may_not_change_between_its_bands(tmp_path: Path) -> None:
    frame = phase((203, 97), 1)[0]
    array = zarr.create_array(tmp_path / "in.zarr", data=frame, chunks=(64, 97))
    given: dict[str, Any] = {"model": "none", "axes": "yx", "workers": 1}
    heard: list[object] = []
    with cutting(32):
        with pytest.raises(phbatch.InterruptedRunError):
            phbatch.run(
                tmp_path / "in.zarr",
                tmp_path / "cut.zarr",
                listener=heard.append,
                stop=lambda: time.sleep(0.25) or any(isinstance(event, UnitFinished) for event in heard),
                **given,
            )
        array[150:] = 7
        with pytest.raises(phbatch.OutputError, match="begun differently"):
            phbatch.run(tmp_path / "in.zarr", tmp_path / "cut.zarr", **given)


def planned(folder: Path, shape: tuple[int, ...], chunks: tuple[int, ...], **options: Any) -> phbatch.PlanReport:
    """Plan of an image of which there are metadata alone."""
    path = folder / f"{'x'.join(map(str, shape))}.zarr"
    if not path.exists():
        zarr.create_array(path, shape=shape, chunks=chunks, dtype="uint16", dimension_names=list("zyx"[-len(shape) :]))
    return phbatch.plan(path, **options)


@pytest.mark.parametrize("memory", ["1.5GB", "2GB", "3GB"])
def test_a_mosaic_is_cut_where_a_frame_does_not_fit_and_nowhere_else(tmp_path: Path, memory: str) -> None:
    shape, chunks = (20_000, 20_000), (1024, 1024)
    plan = planned(tmp_path, shape, chunks, model="phase-2d-real", memory=memory, dtype="uint16", scale=1000)
    assert plan.units > 1
    assert plan.projected_mem <= plan.allowed_mem
    assert (plan.passes, plan.frames) == (2, 1)
    assert 1 <= plan.tile_overhead < 1.7
    assert any("do not fit the memory" in notice for notice in plan.notices)
    whole = planned(tmp_path, shape, chunks, model="phase-2d-real", memory="30GB", dtype="uint16", scale=1000)
    assert (whole.units, whole.passes) == (1, 1)
    assert whole.output_chunks == (1, 1, 1, 1000, 1000)


def test_what_needs_the_whole_frame_is_refused_as_before(tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": "none", "memory": "1GB"}
    for options in ({"illumination": "gaussian"}, {"downscale": 2, "upscale_back": True}):
        with pytest.raises(phbatch.MemoryLimitError, match="most of it is a unit"):
            planned(tmp_path, (20_000, 20_000), (1024, 1024), **given, **options)
    assert planned(tmp_path, (20_000, 20_000), (1024, 1024), **given).units > 1


def test_more_workers_than_fit_are_refused_and_frames_stay_whole(tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": "none", "memory": "900MB"}
    assert planned(tmp_path, (4, 5000, 5000), (1, 1024, 1024), **options).units == 4
    with pytest.raises(phbatch.MemoryLimitError, match="workers"):
        planned(tmp_path, (4, 5000, 5000), (1, 1024, 1024), workers=4, **options)


def test_a_plan_of_whole_frames_is_tried_on_every_worker_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    def refuse(*, band: int | None, **_: object) -> None:
        asked.append(band)
        raise phbatch.MemoryLimitError("no")

    for recorded, expected in ((None, [0, None]), (0, [0]), (64, [64])):
        asked.clear()
        with pytest.raises(phbatch.MemoryLimitError):
            begin._resolve(refuse, phbatch.RunSettings(), recorded, lambda: False, 1)
        assert asked == expected
