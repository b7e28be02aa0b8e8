"""What is at a path: an image, an output of phbatch, or a model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from phbatch.inputs.image import open_source
from phbatch.inputs.positions import Positions, find_positions
from phbatch.network.backend import choose_backend
from phbatch.network.model import Model, bundled_models, open_model
from phbatch.network.tuning.form import measure_forms
from phbatch.network.weights import read_weights
from phbatch.outputs.creation import read_output_attributes
from phbatch.outputs.ledger import Ledger
from phbatch.places.place import Place
from phbatch.planning.positions import PositionUnits
from phbatch.planning.units import Geometry
from phbatch.running.accept_positions import geometries_of
from phbatch.words.choices import BackendChoice
from phbatch.words.errors import OutputError, UsageError
from phbatch.words.settings import parse_settings

_BENCHMARK_TILES = {2: (512, 512), 3: (32, 96, 96)}  # by the number of dimensions


def info(
    path: str | Path, *, benchmark: bool = False, backend: BackendChoice = "auto", storage_options: Any = None
) -> dict[str, Any]:
    """What is at a path: an image, an output of phbatch, or a model.

    Parameters
    ----------
    path : str or Path
        Zarr path or URL, model folder, or name of a bundled model.
    benchmark : bool
        Measure every form of a model's network on this machine.
    backend : {"auto", "tensorflow", "jax"}
        Keras backend of the measurement; auto is the first that is installed.
    storage_options : mapping, str or sequence of str, optional
        Credentials and endpoint of an object store.

    Returns
    -------
    dict
        Plain values; ``kind`` is ``"image"``, ``"plate"``, ``"collection"``, ``"images"`` or ``"model"``. With
        `benchmark` there is ``forms``: for every form its name, MPx/s, the same over plain's, and the largest
        difference to plain over the output's standard deviation.

    Raises
    ------
    InputError, ModelError
        It is neither.
    UsageError
        `benchmark` of what is no model.
    """
    if backend != "auto" and not benchmark:
        raise UsageError(f"--backend={backend} acts on the measurement; give --benchmark, too, or leave it out.")
    folder = Path(str(path)).expanduser()
    if str(path) in bundled_models() or (folder / "config.json").exists():
        model = open_model(path)
        return _model_info(model) | ({"forms": _measure(model, backend)} if benchmark else {})
    if benchmark:
        raise UsageError(f"--benchmark measures models and {path} is none; give a model folder or a bundled name.")
    settings = parse_settings({"storage_options": storage_options})
    options = settings.storage_options
    if (positions := find_positions(str(path), settings)) is not None:
        return _positions_info(positions)
    source = open_source(Place.at(path, options))
    array, metadata = source.array, source.metadata
    compressors = [str(codec.to_dict()) if hasattr(codec, "to_dict") else str(codec) for codec in array.compressors]
    found: dict[str, Any] = {
        "kind": "image",
        "path": source.path,
        "ome_zarr": metadata.version,
        "zarr_format": array.metadata.zarr_format,
        "axes": source.stored_axes,
        "shape": list(array.shape),
        "chunks": list(array.chunks),
        "shards": list(array.shards) if array.shards else None,
        "dtype": str(source.dtype),
        "codecs": compressors or ["none"],
        "scale": dict(zip(metadata.axes, metadata.scale, strict=True)),
        "units": {axis: unit for axis, unit in zip(metadata.axes, metadata.units, strict=True) if unit},
        "channels": list(metadata.channel_names),
        "bytes": int(array.size) * source.dtype.itemsize,
    }
    if source.notices:
        found["notices"] = list(source.notices)
    with suppress(OutputError):
        attributes = read_output_attributes(source.place)
        if attributes:
            found |= _progress(source.place, attributes)
            found["phbatch"] = {key: value for key, value in attributes.items() if key != "statistics"}
    return found


def _progress(output: Place, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Units that are finished of all, and frames."""
    if "geometry" not in attributes:
        return {}
    geometry = Geometry.from_dict(attributes["geometry"])
    units = geometry.units
    finished = sum(record["unit"] in units for record in Ledger(output).current(units))
    return {"frames": geometry.frames, "finished": f"{finished} of {len(units)} units"}


def _positions_info(positions: Positions) -> dict[str, Any]:
    """What is at a plate, a collection or a pattern, and how far an output is."""
    found: dict[str, Any] = {"kind": positions.kind, "path": positions.input, "images": len(positions.paths)}
    if positions.wells:
        found["wells"] = len(positions.wells)
    found["first"] = list(positions.paths[:4])
    with suppress(OutputError):
        attributes = read_output_attributes(positions.root) or {}
        if "kinds" in attributes:
            geometries = geometries_of(attributes)
            units = PositionUnits(geometries)
            finished = sum(record["unit"] in units for record in Ledger(positions.root).current(units))
            found["frames"] = sum(geometry.frames for geometry in geometries.values())
            found |= {"finished": f"{finished} of {len(units)} units", "phbatch": attributes}
    return found


def _model_info(model: Model) -> dict[str, Any]:
    weights = read_weights(model.weights_path, model.config)
    return {
        "kind": "model",
        "name": model.name,
        "path": str(model.folder),
        **asdict(model.config),
        "halo": model.config.halo,
        "grid": model.config.grid,
        "parameters": sum(kernel.size + bias.size for kernel, bias in weights.values()),
        "weights": model.weights_path.name,
        **({"weights_choice": model.choice} if model.choice else {}),
        "sha256": model.sha256,
        "normalization": model.normalization.describe()
        if model.normalization
        else "not recorded (percentile 2 to 99.8 is used)",
        "facts": dict(model.facts),
    }


def _measure(model: Model, backend: BackendChoice) -> list[dict[str, Any]]:
    config = model.config
    tile = tuple(-(-length // config.grid) * config.grid for length in _BENCHMARK_TILES[config.n_dim])
    return [asdict(speed) for speed in measure_forms(model, tile, 1, choose_backend(backend), thorough=True)]
