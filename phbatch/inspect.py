"""What is at a path: an image, an output of phbatch, or a model."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from phbatch.care.model import Model, bundled_models, open_model
from phbatch.care.weights import read_weights
from phbatch.config import parse_settings
from phbatch.errors import OutputError
from phbatch.storage.sink import read_output_attributes
from phbatch.storage.source import open_source


def info(path: str | Path, storage_options: Any = None) -> dict[str, Any]:
    """What is at a path: an image, an output of phbatch, or a model.

    Parameters
    ----------
    path : str or Path
        Zarr path or URL, model folder, or name of a bundled model.
    storage_options : mapping, str or sequence of str, optional
        Credentials and endpoint of an object store.

    Returns
    -------
    dict
        Plain values; ``kind`` is ``"image"`` or ``"model"``.

    Raises
    ------
    InputError, ModelError
        It is neither.
    """
    folder = Path(str(path)).expanduser()
    if str(path) in bundled_models() or (folder / "config.json").exists():
        return _model_info(open_model(path))
    options = parse_settings({"storage_options": storage_options}).storage_options
    source = open_source(str(path), options=options)
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
    with suppress(OutputError):
        attributes = read_output_attributes(source.path, options)
        if attributes:
            found["phbatch"] = {key: value for key, value in attributes.items() if key != "statistics"}
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
        "sha256": model.sha256,
        "normalization": model.normalization.describe()
        if model.normalization
        else "not recorded (percentile 2 to 99.8 is used)",
        "facts": dict(model.facts),
    }
