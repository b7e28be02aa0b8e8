"""Workers, memory and tiles that are chosen where nobody asked for any, and what is taken of what was asked for."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import pytest
import zarr

from phbatch.inputs.image import Source, open_source
from phbatch.network.device import Device
from phbatch.network.model import Model, open_model
from phbatch.places.place import Place
from phbatch.planning.memory import UNITS_AHEAD
from phbatch.planning.resolve import ResolvedRun, resolve_run, resolve_statistics
from phbatch.words.errors import UsageError
from phbatch.words.settings import RunSettings
from tests.handmade import write_model


def image(folder: Path, shape: tuple[int, int, int]) -> Source:
    """Metadata alone."""
    path = folder / f"{'x'.join(map(str, shape))}.zarr"
    zarr.create_array(path, shape=shape, chunks=(1, *shape[1:]), dtype="uint16", dimension_names=list("tyx"))
    return open_source(Place.at(path))


def resolve(source: Source, model: Model | None = None, cores: int = 4, **options: Any) -> ResolvedRun:
    begun = {name: options.pop(name) for name in ("tile", "available_bytes", "device", "ahead") if name in options}
    settings = RunSettings(model="none" if model is None else model.folder, **options)
    return resolve_run(settings, source, model, cores=cores, **{"available_bytes": 64 << 30} | begun)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """Of a halo of 24 and a grid of 4: its smallest tile is 52."""
    found = open_model(write_model(tmp_path / "model"))
    assert 2 * found.config.halo + found.config.grid == 52
    return found


@pytest.mark.parametrize(("cores", "frames", "expected"), [(4, 30, 4), (100, 30, 16), (100, 3, 3), (1, 30, 1)])
def test_workers_are_cores_up_to_sixteen_and_no_more_than_units(
    tmp_path: Path, cores: int, frames: int, expected: int
) -> None:
    assert resolve(image(tmp_path, (frames, 1100, 1000)), cores=cores).workers == expected


def test_workers_are_no_more_than_fit_and_half_of_what_is_free_is_taken(tmp_path: Path) -> None:
    source = image(tmp_path, (30, 2048, 2048))
    free = resolve(source).memory
    taken = free.reserved_mem + free.table_mem + 3 * (free.unit_mem + free.waiting_mem)
    found = resolve(source, cores=16, available_bytes=2 * taken)
    assert found.workers == 3
    assert found.memory.allowed_mem == taken
    assert found.memory.projected_mem == found.memory.allowed_mem


def test_workers_of_statistics_are_those_that_were_asked_for(tmp_path: Path) -> None:
    source = image(tmp_path, (30, 1100, 1000))
    for asked, expected in ((3, 3), (None, 2)):
        settings = RunSettings(workers=asked)
        assert resolve_statistics(settings, source, available_bytes=64 << 30, cores=2).workers == expected


def test_a_tile_that_was_asked_for_is_rounded_to_the_grid_or_refused(tmp_path: Path, model: Model) -> None:
    source = image(tmp_path, (2, 200, 180))

    def tile_of(asked: int, source: Source = source) -> tuple[int, ...]:
        settings = RunSettings(model=model.folder, tile=asked)
        found = resolve_run(settings, source, model, available_bytes=64 << 30, cores=1).recipe.tiles
        assert found is not None
        return found.tile

    assert [tile_of(asked) for asked in (52, 49, 190, 999)] == [(52, 52), (52, 52), (192, 180), (200, 180)]
    with pytest.raises(UsageError, match="use 52 or more"):
        tile_of(48)
    assert tile_of(40, image(tmp_path, (2, 40, 36))) == (40, 36)


def test_a_run_is_continued_with_its_tile_where_it_fits(tmp_path: Path, model: Model) -> None:
    source = image(tmp_path, (2, 200, 180))
    for begun, expected in (((52, 52), True), ((52, 180), True), ((48, 52), False), ((200, 180), True)):
        tiles = resolve(source, model, tile=begun).recipe.tiles
        assert tiles is not None
        assert (tiles.tile == begun) == expected


def test_a_gpu_takes_whole_frames_in_its_own_memory(tmp_path: Path, model: Model) -> None:
    source = image(tmp_path, (9, 2048, 2048))
    large, small = (Device("a card", True, True, memory_bytes=gigabytes << 30) for gigabytes in (80, 1))
    on_cores = resolve(source, model, workers=2)
    on_gpu = resolve(source, model, workers=2, device=large, ahead=UNITS_AHEAD)
    cut = resolve(source, model, workers=2, device=small)
    assert on_cores.recipe.tiles is not None
    assert on_gpu.recipe.tiles is not None
    assert cut.recipe.tiles is not None
    assert len(on_cores.recipe.tiles.tiles) == 2
    assert on_gpu.recipe.tiles.tile == (2048, 2048)
    workspace = model.config.workspace_bytes_per_pixel
    assert prod(cut.recipe.tiles.tile) * workspace <= 1 << 29
    assert on_gpu.memory.network_mem == 3 * 2 * 4 * 2048**2, "three tiles of float32, up and down"
    assert on_gpu.memory.ahead == UNITS_AHEAD
    assert resolve(source, model, workers=2, ahead=UNITS_AHEAD).memory == on_cores.memory, "a processor has none ahead"
    single = resolve(source, model, workers=1, frames="0:2", device=large, ahead=UNITS_AHEAD)
    assert single.memory.ahead == 1, "there is no third unit"
    least = on_gpu.memory.reserved_mem + on_gpu.memory.unit_mem + on_gpu.memory.network_mem
    scarce = resolve(source, model, memory=least + 1_000_000, device=large, ahead=UNITS_AHEAD)
    assert (scarce.memory.ahead, scarce.workers) == (0, 1), "units ahead are given up before the run is refused"
    begun = resolve(source, model, workers=1, tile=(2048, 2048), memory=least + 1_000_000, device=large)
    assert begun.recipe.tiles is not None
    assert begun.recipe.tiles.tile == (2048, 2048), "nor is it refused when it is continued"


def test_tiles_are_as_large_as_memory_and_sense_have_it(tmp_path: Path, model: Model) -> None:
    source = image(tmp_path, (2, 4000, 4000))
    ample = resolve(source, model, workers=1)
    room = 100_000 * model.config.workspace_bytes_per_pixel
    scarce = resolve(source, model, workers=1, memory=ample.memory.reserved_mem + ample.memory.unit_mem + room)
    assert ample.recipe.tiles is not None
    assert scarce.recipe.tiles is not None
    assert 1_000_000 < prod(ample.recipe.tiles.tile) <= 2_200_000
    assert 50_000 < prod(scarce.recipe.tiles.tile) <= 100_000
    assert scarce.memory.projected_mem <= scarce.memory.allowed_mem
