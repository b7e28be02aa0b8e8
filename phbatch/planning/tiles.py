"""How frames are cut for the network: by what was asked for, or what memory has room for."""

from __future__ import annotations

from phbatch.kernels.bands import BandedTiles, window_of_band
from phbatch.kernels.tiling import TilePlan, choose_tile
from phbatch.network.device import Device, tile_room
from phbatch.network.model import Model
from phbatch.planning.units import Geometry
from phbatch.words.errors import UsageError
from phbatch.words.settings import RunSettings

_TILE_PIXELS = {2: 2_200_000, 3: 3_000_000}  # per number of dimensions; larger tiles save little halo and cost memory


def resolve_tiles(
    settings: RunSettings,
    geometry: Geometry,
    model: Model,
    spare_bytes: int,
    tile: tuple[int, ...] | None,
    device: Device | None,
    batch: int,
) -> TilePlan:
    """The tiles of a run.

    Parameters
    ----------
    settings, geometry, model, device
        Of the run.
    spare_bytes : int
        What the tensors of one tile may take.
    tile : tuple of int or None
        Of the run that is continued.
    batch : int
        Tiles per call.

    Raises
    ------
    UsageError
        What was asked for is all halo.
    """
    config, shape = model.config, geometry.network_frame_shape
    if geometry.band:
        shape = window_of_band(shape, config.halo, config.grid, geometry.band)
    padded = tuple(size + -size % config.grid for size in shape)
    smallest = 2 * config.halo + config.grid
    if settings.tile is not None:
        asked = -(-settings.tile // config.grid) * config.grid
        if asked < smallest and any(asked < size for size in padded):
            raise UsageError(
                f"--tile {settings.tile} leaves nothing inside the halo of {config.halo} pixels per side; use"
                f" {smallest} or more."
            )
        chosen = tuple(min(asked, size) for size in padded)
    elif tile is not None and all(
        length == size or smallest <= length < size for length, size in zip(tile, padded, strict=True)
    ):
        chosen = tile
    elif device is not None:
        fitting = spare_bytes // config.staging_bytes_per_pixel
        chosen = choose_tile(shape, config.halo, config.grid, min(fitting, tile_room(config, device, batch)))
    else:
        fitting = spare_bytes // config.workspace_bytes_per_pixel
        chosen = choose_tile(shape, config.halo, config.grid, min(fitting, _TILE_PIXELS[config.n_dim]))
    whole = geometry.network_frame_shape
    if geometry.band:
        return BandedTiles(whole, chosen, config.halo, config.grid, geometry.band)
    return TilePlan(whole, chosen, config.halo, config.grid)
