"""Simulated images as files: a time-lapse, or a plate of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.outputs.creation import ArrayLayout, create_output, group_documents, make_documents
from phbatch.outputs.writer import Sink
from phbatch.places.ome import ImageMetadata, make_image_attributes
from phbatch.places.own import PRIVATE
from phbatch.places.place import Place
from phbatch.places.plates import make_group_attributes
from phbatch.simulate import PhaseContrast
from phbatch.words.axes import to_region
from phbatch.words.errors import OutputError, UsageError
from phbatch.words.wells import row_letters

PLATES = {6: (2, 3), 12: (3, 4), 24: (4, 6), 48: (6, 8), 96: (8, 12), 384: (16, 24), 1536: (32, 48)}
"""Rows and columns of plates, by their number of wells (ANSI SLAS 4-2004 for those of 96 and more)."""

_AXES = "tyx"
_MARK = {"phbatch": {"simulated": True}}


def write_time_lapse(path: str | Path, simulation: PhaseContrast, *, clean: bool = False) -> None:
    """Stream a simulated time-lapse to an OME-Zarr 0.5, one frame in memory at a time.

    Parameters
    ----------
    path : str or Path
        Of the image to create.
    simulation : PhaseContrast
        What to simulate.
    clean : bool
        Whether to write the truth (float32) instead of the noisy frames (uint16).

    Raises
    ------
    OutputError
        Something is there, or nothing can be written.
    """
    place = _require_new(path)
    attributes, layout = _describe(simulation, Path(place.name).stem, clean=clean)
    create_output(place, 3, {"": attributes | _MARK}, [layout])
    _write(Sink(place), layout.path, simulation, clean=clean)


def write_plate(
    path: str | Path, simulation: PhaseContrast, *, wells: int = 96, fields: int = 1, clean: bool = False
) -> None:
    """Stream a simulated plate to an OME-Zarr 0.5: a time-lapse of each field, each with cells of its own.

    Parameters
    ----------
    path : str or Path
        Of the plate to create.
    simulation : PhaseContrast
        Of the first field; the seed of each one after it is one more.
    wells : int
        How many, row by row, of the smallest plate that has so many: 6, 12, 24, 48, 96, 384 or 1536.
    fields : int
        Of every well.
    clean : bool
        Whether to write the truth (float32) instead of the noisy frames (uint16).

    Raises
    ------
    UsageError
        There is no plate of so many wells, or a well of no field.
    OutputError
        Something is there, or nothing can be written.

    Examples
    --------
    >>> import tempfile, phbatch
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_plate(folder / "p.zarr", PhaseContrast(shape=(32, 32), n_frames=1), wells=3, fields=2)
    >>> phbatch.info(folder / "p.zarr")["first"]
    ['A/1/0', 'A/1/1', 'A/2/0', 'A/2/1']
    """
    if not 1 <= wells <= max(PLATES) or fields < 1:
        raise UsageError(f"a plate has 1 to {max(PLATES)} wells of 1 field or more; {wells} of {fields} is none.")
    place = _require_new(path)
    rows, columns = next(PLATES[count] for count in PLATES if count >= wells)
    places = [(index // columns, index % columns) for index in range(wells)]
    paths = {f"{row_letters(row)}/{column + 1}": (row, column) for row, column in places}
    plate = {
        "name": Path(place.name).stem,
        "rows": [{"name": row_letters(row)} for row in range(rows)],
        "columns": [{"name": str(column + 1)} for column in range(columns)],
        "wells": [{"path": well, "rowIndex": row, "columnIndex": column} for well, (row, column) in paths.items()],
    }
    images = [{"path": str(field)} for field in range(fields)]
    named = [f"{well}/{field}" for well in paths for field in range(fields)]
    attributes = make_group_attributes("plate", {"plate": plate}, dict.fromkeys(paths, images), named, "0.5")
    rows_of: dict[str, dict[str, Any]] = {well.partition("/")[0]: {} for well in paths}
    simulated, layout = _describe(simulation, None, clean=clean)
    image = make_documents(3, {"": simulated}, [layout])
    root = group_documents(3, attributes.pop("") | _MARK)
    for group, found in (rows_of | attributes).items():
        place.write_together({f"{group}/{name}": data for name, data in group_documents(3, found).items()})
    for index, field in enumerate(named):
        place.write_together({f"{field}/{name}": data for name, data in image.items()})
        _write(Sink(place), f"{field}/{layout.path}", replace(simulation, seed=simulation.seed + index), clean=clean)
    place.remove_folder(PRIVATE)
    place.write_together(root)


def _require_new(path: str | Path) -> Place:
    place = Place.at(path)
    if place.exists() and set(place.names()) - {PRIVATE}:
        raise OutputError(f"{place} exists; give the path of what is to be made, or remove it.")
    return place


def _describe(simulation: PhaseContrast, name: str | None, *, clean: bool) -> tuple[dict[str, Any], ArrayLayout]:
    """Attributes of an image, and its array."""
    height, width = simulation.shape
    layout = ArrayLayout(
        "0", _AXES, (simulation.n_frames, height, width), (1, height, width), "float32" if clean else "uint16"
    )
    scale = (1.0, simulation.pixel_size_um, simulation.pixel_size_um)
    metadata = ImageMetadata(_AXES, scale, (0.0,) * 3, ("second", "micrometer", "micrometer"), name=name)
    return make_image_attributes(metadata, "0.5"), layout


def _write(sink: Sink, array: str, simulation: PhaseContrast, *, clean: bool) -> None:
    make: Callable[[int], NDArray[Any]] = simulation.clean if clean else simulation.frame
    for t in range(simulation.n_frames):
        region = to_region((t, 0, 0, 0, 0), (t + 1, 1, 1, *simulation.shape))
        sink.write(array, _AXES, region, make(t)[np.newaxis, np.newaxis, np.newaxis])
    sink.remove_scratch()
