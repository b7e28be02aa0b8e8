"""Converting: a run that copies the pixels of what a microscope wrote, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from phbatch.inputs.opening import one_path
from phbatch.places.beside import place_beside
from phbatch.places.place import Place
from phbatch.running.run import run
from phbatch.words.events import Listener, Stop, ignore, never
from phbatch.words.option_types import ConvertOptions
from phbatch.words.options import parse_options
from phbatch.words.results import RunResult


def convert(
    input: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    listener: Listener = ignore,
    command: str = "",
    stop: Stop = never,
    **options: Unpack[ConvertOptions],
) -> RunResult:
    """Copy an image to OME-Zarr, pixel for pixel, from TIFFs or from whatever `run` reads.

    It is a `run` without normalization and model: it is durable, continues where it was stopped, and its output can be
    verified and repaired.

    Parameters
    ----------
    input : str or Path, or a sequence of them
        A file, a folder, a glob in quotes, or the files of one; or a Zarr.
    output : str or Path, optional
        Default: ``<stem>.ome.zarr`` beside the input.
    listener, command, stop
        As for `run`.
    **options
        `axes`, `wells`, `fields`, `channel`, `frames`, `pattern`, `position`, `pixel_size`, `interval`,
        `channel_names`, `storage_options`, `codec`, `shuffle`, `shard`, `ome_zarr`, `overwrite`, `memory`, `workers`,
        `threads`, `scheduler`, `wait_workers`, `retries`, as for `run`.

    Returns
    -------
    RunResult
        Of the frames that were copied.

    Raises
    ------
    UsageError, InputError, OutputError, MemoryLimitError
        Before anything is written.

    Examples
    --------
    >>> import tempfile, numpy as np, tifffile, zarr
    >>> folder = Path(tempfile.mkdtemp())
    >>> tifffile.imwrite(folder / "a.tif", np.full((5, 64, 64), 7, "uint16"), imagej=True, metadata={"axes": "TYX"})
    >>> result = convert(folder / "a.tif", pixel_size=0.325, interval="5min", workers=1)
    >>> Path(result.output).name, result.frames, zarr.open_array(result.output + "/0").dtype.name
    ('a.ome.zarr', 5, 'uint16')
    """
    parse_options("convert", options)
    path = one_path([input] if isinstance(input, str | Path) else input)
    place = str(output) if output is not None else place_beside(stem_path(path), ".ome.zarr").path
    copying = {"model": "none", "normalize": "none", "dtype": "input", "nan": "skip"}
    return run(path, place, listener=listener, command=command, stop=stop, **(options | copying))  # type: ignore[arg-type]


def stem_path(path: str) -> str:
    """A path to name an output after: of a glob, its folder."""
    is_glob = "*" in Path(path).name and not Place.at(path).remote
    return str(Path(path).parent) if is_glob else path
