"""Images as TIFF files for programs that read no Zarr: one file of an image, a folder of files of many."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Unpack

from phbatch.inputs.image import Source, open_source
from phbatch.inputs.positions import Positions, find_positions
from phbatch.outputs.creation import read_output_attributes
from phbatch.outputs.ledger import Ledger
from phbatch.places.place import LocalPlace, Place
from phbatch.planning.positions import PositionUnits, split_key
from phbatch.planning.units import Geometry, Units
from phbatch.tools.finished_positions import PositionsRun, find_whole
from phbatch.tools.tiff_file import form_of, write_tiff
from phbatch.words.errors import InputError, OutputError, UsageError
from phbatch.words.option_types import ExportOptions
from phbatch.words.options import parse_options
from phbatch.words.settings import RunSettings
from phbatch.words.wells import field_name

_SUFFIXES = (".tif", ".tiff")


def export(
    path: str | Path,
    output: str | Path,
    *,
    imagej: bool = False,
    overwrite: bool = False,
    **options: Unpack[ExportOptions],
) -> dict[str, Any]:
    """Write an image as one TIFF file, plane by plane, or each of many as one; memory holds one plane.

    Parameters
    ----------
    path : str or Path
        OME-Zarr image, Zarr array, or finished output of phbatch; a path or a URL. Of a plate, a collection or a
        pattern all images, or those that `wells` and `fields` choose.
    output : str or Path
        File to write, whose name ends in ``.tif`` or ``.tiff``; it is there once it is whole. For many images a folder,
        of a file for each that is named by its well and field, ``A01_f0.ome.tif``; files that are there are kept.
    imagej : bool
        ImageJ's hyperstack in place of an OME-TIFF: no pyramid, no compression, up to 4 GB of 8 or 16 bits or float32.
    overwrite : bool
        Replace files that exist.
    **options
        `axes`, `wells`, `fields`, `storage_options`: as for `phbatch.run`.

    Returns
    -------
    dict
        ``output``, ``form`` (``"ome-tiff"`` or ``"imagej"``), ``axes``, ``shape``, ``dtype``, ``levels``, ``bytes``. Of
        many images ``output``, ``form``, ``files`` (names by the paths of images), ``kept`` (how many of these were
        there), ``left_out`` (why an image has none, by its path), ``bytes``.

    Raises
    ------
    InputError
        There is no image, its run has not ended, or ImageJ has no such pixels.
    OutputError
        The file exists, or cannot be written.
    UsageError
        `output` is no name of a TIFF file.

    Examples
    --------
    >>> import tempfile, phbatch
    >>> folder = tempfile.mkdtemp()
    >>> _ = phbatch.write_time_lapse(f"{folder}/a.zarr", phbatch.PhaseContrast(shape=(64, 48), n_frames=3))
    >>> phbatch.export(f"{folder}/a.zarr", f"{folder}/a.ome.tif")["shape"]
    [3, 1, 1, 64, 48]
    """
    settings = parse_options("export", options)
    target = Path(output).expanduser()
    is_file = target.suffix.lower() in _SUFFIXES
    if (positions := find_positions(str(path), settings)) is not None:
        if is_file:
            raise UsageError(f"{output} is one file and {path} holds {len(positions.paths)} images; give a folder.")
        return _export_images(positions, target, settings, imagej=imagej, overwrite=overwrite)
    if not is_file:
        raise UsageError(f"{output} does not end in .tif or .tiff; give a name that does, such as cells.ome.tif.")
    source = open_source(Place.at(path, settings.storage_options), settings.axes)
    _require_finished(source)
    return write_tiff(target, source, imagej=imagej, overwrite=overwrite)


def _export_images(
    positions: Positions, folder: Path, settings: RunSettings, *, imagej: bool, overwrite: bool
) -> dict[str, Any]:
    """A file of each image; one that cannot be written as such is left out and named, unless all are."""
    if isinstance(positions.root, LocalPlace) and positions.root.holds(Place.at(folder)):
        raise OutputError(f"{folder} lies inside the input; choose another place.")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror}); choose another place.") from error
    unfinished = _unfinished(positions.root)
    files: dict[str, str] = {}
    left_out: dict[str, str] = {}
    first_error: InputError | None = None
    kept = size = 0
    for path, place in positions.places.items():
        name = field_name(path) if positions.kind == "plate" else path.replace("/", "_")
        target = folder / f"{name}.{'tif' if imagej else 'ome.tif'}"
        try:
            if target.name in files.values():
                raise InputError(f"{place} would be {target.name}, as another image is; export it alone.")
            if path in unfinished:
                raise InputError(_unfinished_words(place, *unfinished[path]))
            if overwrite or not target.is_file():
                source = open_source(Place.at(place, settings.storage_options), settings.axes)
                write_tiff(target, source, imagej=imagej, overwrite=overwrite)
            else:
                kept += 1
        except InputError as error:
            first_error, left_out[path] = first_error or error, str(error)
            continue
        files[path] = target.name
        size += target.stat().st_size
    if first_error is not None and not files:
        raise first_error
    form = form_of(imagej=imagej)
    return {"output": str(folder), "form": form, "files": files, "kept": kept, "left_out": left_out, "bytes": size}


def _require_finished(source: Source) -> None:
    """A file that looks whole must not be made of what is not."""
    counts: tuple[int, int] | None = None
    try:
        attributes = read_output_attributes(source.place) or {}
    except OutputError:
        whole = find_whole(source.place)
        counts = None if whole is None else _unfinished_of(whole[0]).get(whole[1])
    else:
        if "geometry" in attributes:
            units = Geometry.from_dict(attributes["geometry"]).units
            finished = _finished(source.place, units)[""]
            counts = (finished, len(units)) if finished < len(units) else None
    if counts is not None:
        raise InputError(_unfinished_words(source.path, *counts))


def _unfinished(root: Place) -> dict[str, tuple[int, int]]:
    """Units that are finished, and all, of images of an output that are not finished, by their paths."""
    try:
        attributes = read_output_attributes(root) or {}
    except OutputError:
        return {}
    return _unfinished_of(PositionsRun(root, attributes)) if "kinds" in attributes else {}


def _unfinished_of(run: PositionsRun) -> dict[str, tuple[int, int]]:
    finished = _finished(run.output, PositionUnits(run.geometries))
    totals = {path: len(geometry.units) for path, geometry in run.geometries.items()}
    return {path: (finished[path], total) for path, total in totals.items() if finished[path] < total}


def _finished(output: Place, units: Units | PositionUnits) -> Counter[str]:
    """How many units are finished of each image, by its path."""
    return Counter(split_key(record["unit"])[0] for record in Ledger(output).current(units) if record["unit"] in units)


def _unfinished_words(path: str, finished: int, total: int) -> str:
    return (
        f"{path} has {finished} of {total} units finished; call the run again, which continues it, and export what it"
        " has made."
    )
