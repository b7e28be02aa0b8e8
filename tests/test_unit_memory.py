"""What a unit takes is what is planned for it, as NumPy asks for it; the bounds let no factor of two pass."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from phbatch.computing.tasks import Job, read_unit
from phbatch.frames.light import prepare_frame
from phbatch.frames.measure import measure_block
from phbatch.frames.restore import restore_block
from phbatch.inputs.image import Source, open_source
from phbatch.places.place import Place
from phbatch.planning.memory import UnitMemory, measuring_unit_memory, unit_memory
from phbatch.planning.resolve import ResolvedRun, resolve_run
from phbatch.words.settings import RunSettings

FRAME = (640, 640)

LEAST, MOST = 0.7, 1.3
"""Of what is planned: a plan of half or of twice as much meets neither."""


def traced(work: Callable[[], object]) -> int:
    """Most bytes that were asked for at once; of the second call, since the first one compiles and imports."""
    work()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@dataclass(frozen=True)
class Case:
    """An image of one unit of two frames, and how it is processed."""

    source: Source
    resolved: ResolvedRun
    block: np.ndarray

    @classmethod
    def make(cls, path: Path, kind: str, axes: str = "tyx", **options: Any) -> Case:
        pixels = np.random.default_rng(0).normal(120, 6, (2, *FRAME)).astype(kind)
        chunks = {"t": 1, "y": FRAME[0], "x": FRAME[1]}
        zarr.create_array(
            path,
            data=pixels.transpose(["tyx".index(axis) for axis in axes]),
            chunks=tuple(chunks[axis] for axis in axes),
            dimension_names=list(axes),
        )
        source = open_source(Place.at(path), axes)
        settings = RunSettings(model="none", memory="8GB", workers=1, **options)
        resolved = resolve_run(settings, source, None, available_bytes=8 << 30, cores=1)
        block, _ = read_unit(Job(Place.at(path), axes, resolved.recipe), resolved.geometry.units[0])
        return cls(source, resolved, np.ascontiguousarray(block))

    @property
    def written(self) -> int:
        """Bytes of the output."""
        t, c, z, *lengths = self.block.shape
        return t * c * z * prod(self.resolved.recipe.output_lengths(tuple(lengths))) * 4

    @property
    def planned(self) -> UnitMemory:
        geometry, recipe = self.resolved.geometry, self.resolved.recipe
        return unit_memory(geometry, recipe, self.source.dtype, network=False, copied=self.source.copied)


@pytest.mark.parametrize(("dtype", "size"), [("uint8", 1), ("uint16", 2), ("float32", 4), ("float64", 8)])
def test_raw_pixels_and_output_are_counted_to_the_byte(tmp_path: Path, dtype: str, size: int) -> None:
    case = Case.make(tmp_path / "in.zarr", dtype)
    assert case.planned.raw == case.block.nbytes == 2 * 640 * 640 * size
    assert case.written == 2 * 640 * 640 * 4
    assert case.written <= case.planned.waiting <= 1.01 * case.written  # and the rows of the table


def test_a_shard_is_put_together_of_what_is_encoded(tmp_path: Path) -> None:
    plain, sharded = Case.make(tmp_path / "a.zarr", "uint16"), Case.make(tmp_path / "b.zarr", "uint16", shard=10**8)
    assert plain.planned.encoding == 2 * plain.written  # pixels, and what they are encoded to
    assert sharded.planned.encoding == 3 * sharded.written
    assert 0 == sharded.planned.codecs < plain.planned.codecs


@pytest.mark.parametrize("axes", ["tyx", "yxt"])
def test_reading_holds_the_chunks_and_a_copy_where_axes_have_another_order(tmp_path: Path, axes: str) -> None:
    case = Case.make(tmp_path / "in.zarr", "uint16", axes)
    job = Job(case.source.place, axes, case.resolved.recipe)
    found = traced(lambda: read_unit(job, case.resolved.geometry.units[0]))
    assert case.planned.reading == (2 if axes == "tyx" else 3) * case.block.nbytes
    assert case.block.nbytes <= found <= 1.1 * case.planned.reading  # the chunk is decoded where nobody traces


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("float32", {}),
        ("float64", {}),
        ("int32", {}),
        ("float32", {"downscale": 2}),
        ("float32", {"illumination": "gaussian"}),
    ],
    ids=str,
)
def test_measuring_takes_what_is_planned(tmp_path: Path, dtype: str, options: dict[str, Any]) -> None:
    case = Case.make(tmp_path / "in.zarr", dtype, **options)
    recipe, geometry = case.resolved.recipe, case.resolved.geometry
    planned = measuring_unit_memory(geometry, recipe, case.source.dtype, copied=case.source.copied)
    found = traced(
        lambda: measure_block(case.block.copy(), recipe.preparation, 2.0, recipe.all_percentiles, volumes=False)
    )
    assert LEAST * planned.measuring <= found <= MOST * planned.measuring
    first = case.written // 2  # of the output, which is there when the second frame is measured
    assert case.planned.measuring == planned.measuring + first


def test_a_state_that_is_to_be_merged_takes_what_is_planned(tmp_path: Path) -> None:
    case = Case.make(tmp_path / "in.zarr", "float64", scope="series")
    preparation = case.resolved.recipe.preparation
    found = traced(lambda: prepare_frame(case.block.copy(), (0, 0, 0), preparation, None).state(2.0))
    planned = case.planned.measuring - case.written // 2
    assert LEAST * planned <= found <= MOST * planned


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rescale": True},
        {"dtype": "uint16", "range": "0:4"},
        {"dtype": "uint8", "rescale": True},
        {"downscale": 2},
        {"downscale": 2, "upscale_back": True},
        {"downscale": 2, "upscale_back": True, "dtype": "uint16", "rescale": True},
    ],
    ids=str,
)
def test_restoring_takes_what_is_planned(tmp_path: Path, dtype: str, options: dict[str, Any]) -> None:
    case = Case.make(tmp_path / "in.zarr", dtype, **options)
    recipe = case.resolved.recipe
    measured = restore_block(case.block, recipe, None).statistics
    found = traced(lambda: restore_block(case.block.copy(), recipe, None, measured))
    assert LEAST * case.planned.restoring <= found <= MOST * case.planned.restoring


def test_what_an_option_takes_besides_is_what_is_planned(tmp_path: Path) -> None:
    """Of the whole it is so little that the bounds would let it pass."""
    planned, found = list[int](), list[int]()
    for number, rescale in enumerate((False, True)):
        case = Case.make(tmp_path / f"{number}.zarr", "uint16", rescale=rescale)
        recipe = case.resolved.recipe
        measured = restore_block(case.block, recipe, None).statistics
        restore = partial(restore_block, recipe=recipe, predict=None, measured=measured)
        block = case.block
        found.append(traced(lambda restore=restore, block=block: restore(block.copy())))
        planned.append(case.planned.restoring)
    assert LEAST * (planned[1] - planned[0]) <= found[1] - found[0] <= MOST * (planned[1] - planned[0])


def test_the_whole_is_the_largest_part_with_what_the_heap_keeps() -> None:
    for name in ("reading", "measuring", "restoring", "encoding"):
        unit = UnitMemory(
            **{"raw": 1 << 20, "reading": 1 << 20, "measuring": 1 << 20} | {name: 40 << 20}, codecs=7 << 20
        )
        assert unit.worst == name
        assert 1.05 * (47 << 20) < unit.computing <= 1.05 * (107 << 20)
    small, large = (UnitMemory(raw, 400 << 20, 0).computing for raw in (1 << 20, 64 << 20))
    assert small > large  # larger pieces go back to the system
    assert 400 << 20 < large < small < 600 << 20
