"""What was done to the pixels of an output, as a paragraph of methods with numbers, and what to cite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from phbatch.frames.table import StatisticsTable, flag_words
from phbatch.kernels.histogram import STD_PER_MAD
from phbatch.outputs.creation import IMAGE
from phbatch.places.place import Place
from phbatch.tools.finished_positions import PositionsRun, commonest, open_finished
from phbatch.tools.finished_run import FinishedRun
from phbatch.tools.references import bibtex
from phbatch.words.choices import ESTIMATED_BACKGROUNDS
from phbatch.words.given import StorageOptions
from phbatch.words.settings import parse_settings

_BACKGROUNDS = {
    "gaussian": "a Gaussian-smoothed background, estimated of every frame by itself,",
    "polynomial": "a polynomial background, fitted to every frame by itself,",
    "temporal": "the median of frames over time",
    "basic": "a flat field estimated by BaSiC",
}


@dataclass(frozen=True)
class Explanation:
    """What `phbatch.explain` says of an output.

    Attributes
    ----------
    methods : str
        A paragraph in sentences, with the numbers of this run.
    bibtex : str
        Entries of what the run used.
    """

    methods: str
    bibtex: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Told:
    """What sentences are made of: a run of one image, or the first of the commonest of many, and the numbers of all."""

    one: FinishedRun
    tables: Sequence[StatisticsTable]
    images: int
    kinds: int
    frames: int
    missing: int
    clipped: int
    pixels: int

    @classmethod
    def of(cls, run: FinishedRun | PositionsRun) -> _Told:
        if isinstance(run, PositionsRun):
            geometries, kinds = list(run.geometries.values()), len(run.provenance["kinds"])
            one, tables = run.image(commonest(run)[0]), list(run.finished.tables.values())
        else:
            geometries, kinds, one, tables = [run.geometry], 1, run, [run.finished.table]
        frames = sum(geometry.frames for geometry in geometries)
        pixels = sum(prod(geometry.output_shape) for geometry in geometries)
        missing = frames - run.finished.frames
        return cls(one, tables, len(geometries), kinds, frames, missing, run.finished.clipped, pixels)


def explain(output: str | Path, *, storage_options: StorageOptions | Any = None) -> Explanation:
    """Say what was done to the pixels of an output, for the methods section of a paper, and what to cite for it.

    Parameters
    ----------
    output : str or Path
        Of `phbatch.run`, finished or not.
    storage_options : mapping, str or sequence of str, optional
        Credentials and endpoint of an object store.

    Returns
    -------
    Explanation
        A paragraph, and BibTeX.

    Raises
    ------
    OutputError
        There is no output of phbatch.

    Examples
    --------
    >>> import tempfile, zarr, phbatch
    >>> folder = Path(tempfile.mkdtemp())
    >>> frames = np.random.default_rng(0).normal(1000, 30, (2, 64, 64)).astype("uint16")
    >>> _ = zarr.create_array(folder / "a.zarr", data=frames)
    >>> result = phbatch.run(folder / "a.zarr", model="none", workers=1)
    >>> explain(result.output).methods[:58]
    '2 frames of 64 x 64 pixels (uint16) were processed with ph'
    """
    place = Place.at(output, parse_settings({"storage_options": storage_options}).storage_options)
    told = _Told.of(open_finished(place))
    return Explanation(" ".join(_sentences(told)), bibtex(_used(told.one)))


def _used(run: FinishedRun) -> list[str]:
    """Keys of what is cited."""
    found = ["phbatch"]
    if run.provenance.get("model"):
        found += ["care", "jax" if run.settings["backend"] == "jax" else "tensorflow"]
    if _light_method(run) == "basic":
        found.append("basic")
    return [*found, "numpy", "scipy", "zarr", "dask", "ngff"]


def _sentences(told: _Told) -> Iterator[str]:
    run = told.one
    versions: Mapping[str, str] = run.provenance.get("versions") or {}
    yield (
        f"{_frames(told)} {'was' if told.frames == 1 else 'were'} processed with phbatch"
        f" {versions.get('phbatch', '')} (Python {versions.get('python', '')}, NumPy {versions.get('numpy', '')})."
    )
    yield from _preparation(run)
    yield _normalization(told)
    if run.provenance.get("model"):
        yield from _network(run, versions)
    else:
        yield "No network was applied."
    yield _stored(run)
    yield from _judged(told)
    if told.missing:
        yield f"The run was not finished when this was written: {told.missing:,} frames are missing."


def _frames(told: _Told) -> str:
    run, geometry, count = told.one, told.one.geometry, told.frames
    volumes = geometry.volumes
    size = " x ".join(str(length) for length in geometry.shape[2 if volumes else 3 :])
    parts = []
    if len(geometry.channels) > 1:
        parts.append(f"{len(geometry.channels)} channels")
    if geometry.copied:
        parts[-1] += f" of which {len(geometry.copied)} {'was' if len(geometry.copied) == 1 else 'were'} copied as read"
    if not volumes and geometry.shape[2] > 1:
        parts.append(f"{geometry.shape[2]} planes")
    if parts:
        parts.append(f"{len(geometry.times)} time points")
    dtype = run.dtype
    what = ("volume" if volumes else "frame") + ("s" if count != 1 else "")
    mostly = "mostly " if told.kinds > 1 else ""
    images = f"{told.images:,} images with together " if told.images > 1 else ""
    return f"{images}{count:,} {what} of {mostly}{size} pixels ({', '.join([dtype, *parts])})"


def _preparation(run: FinishedRun) -> Iterator[str]:
    factor = run.geometry.downscale
    if factor > 1:
        back = "; the result was interpolated back to the original grid" if run.geometry.upscaled else ""
        yield f"Blocks of {factor} x {factor} pixels were averaged{back}."
    method = _light_method(run)
    if method is not None:
        what = _BACKGROUNDS.get(method, f"a given profile of the illumination ({method})")
        divided = run.settings["illumination_mode"] == "divide"
        yield f"Uneven illumination was corrected: {what} was {'divided out' if divided else 'subtracted'}."


def _light_method(run: FinishedRun) -> str | None:
    method = str(run.settings["illumination"])
    return None if method == "none" else method if method in ESTIMATED_BACKGROUNDS else Path(method).name


def _normalization(told: _Told) -> str:
    run = told.one
    rule = run.provenance["normalization"]
    method, sigma = rule["method"], f"{rule['sigma']:g}"
    smoothed = f"after smoothing with a Gaussian of standard deviation {sigma} pixels" if rule["sigma"] else "as read"
    times = f"{rule['factor']:g} times " if rule["factor"] != 1 else ""
    words = {
        "median": f"Every frame was divided by {times}the median of its pixels {smoothed}",
        "mode": f"Every frame was divided by {times}the mode of its pixels {smoothed}",
        "zscore": (
            f"From every frame the median of its pixels {smoothed} was subtracted, and it was divided by"
            f" {STD_PER_MAD:.4f} times their median absolute deviation"
        ),
        "percentile": (
            f"Every frame was scaled linearly so that its percentiles {rule['pmin']:g} and {rule['pmax']:g} became 0"
            " and 1"
        ),
        "minmax": "Every frame was scaled linearly so that its minimum and maximum became 0 and 1",
        "fixed": f"All frames were divided by {rule['value'] or 0:g} counts",
        "none": "Intensities were not normalized",
    }.get(method, f"Every frame was normalized by the rule {method}")
    if run.settings["smooth_time"] > 1:
        words += f", which was smoothed over {run.settings['smooth_time']} frames by a running median"
    if run.settings["scope"] != "image":
        words += f", pooled over all frames of the {run.settings['scope']}"
    return words + _divisors(told) + "."


def _divisors(told: _Told) -> str:
    measured = [table.column("divisor") for table in told.tables if "divisor" in table.names]
    if told.one.provenance["normalization"]["method"] in ("none", "fixed") or not measured:
        return ""
    values = np.concatenate(measured)
    values = values[np.isfinite(values)]
    if not values.size:
        return ""
    low, middle, high = np.percentile(values, (0, 50, 100))
    return f"; the divisor was {middle:.5g} counts in the median over frames ({low:.5g} to {high:.5g})"


def _network(run: FinishedRun, versions: Mapping[str, str]) -> Iterator[str]:
    model, provenance = run.provenance["model"], run.provenance
    config = model["config"]
    kind = "probabilistic " if config["probabilistic"] else "residual " if config["residual"] else ""
    yield (
        f"Normalized frames were restored with the {config['n_dim']}D content-aware restoration (CARE) network"
        f" {model['name']} (weights {model['weights']}, SHA-256 {model['sha256'][:16]}), a {kind}U-Net with"
        f" {config['depth']} poolings, kernels of {config['kernel']} pixels and {config['n_first']} filters at its top."
    )
    training = model.get("facts", {}).get("training")
    if isinstance(training, Mapping) and training.get("data"):
        loss = f" with the loss {training['loss']}" if training.get("loss") else ""
        yield f"It was trained on {training['data']}{loss}."
    library = "JAX" if run.settings["backend"] == "jax" else "TensorFlow"
    version = versions.get(library.lower(), "")
    precision = (provenance.get("precision") or {}).get("precision", "float32")
    tiles = run.tiles
    cut = ""
    if tiles is not None and len(tiles.tiles) > 1:
        shape = " x ".join(map(str, tiles.tile))
        cut = (
            f" in {len(tiles.tiles)} tiles of {shape} pixels per frame with a halo of {tiles.halo} pixels, which covers"
            " the receptive field, so that results do not depend on the tiling"
        )
    yield f"It was computed with Keras {versions.get('keras', '')} on {library} {version} in {precision}{cut}."


def _stored(run: FinishedRun) -> str:
    array: Any = run.output.open(IMAGE)
    units = "in the counts of the input" if run.rescaled else "in normalized units"
    packing = ""
    if "scale_factor" in array.attrs:
        packing = f" (value = {array.attrs['scale_factor']:g} x integer + {array.attrs['add_offset']:g})"
    version = "0.4" if array.metadata.zarr_format == 2 else "0.5"
    return f"Results were stored {units} as {run.settings['dtype']}{packing} in OME-Zarr {version}."


def _judged(told: _Told) -> Iterator[str]:
    run, clipped = told.one, told.clipped
    if clipped:
        share = 100 * clipped / max(1, told.pixels)
        dtype = run.settings["dtype"]
        yield f"{clipped:,} pixels ({share:.2g} %) were outside of the range of {dtype} and set to its ends."
    flagged = np.concatenate([table.flag_bits[table.flag_bits != 0] for table in told.tables])
    if not len(flagged):
        return
    words = sorted({word for bits in np.unique(flagged).tolist() for word in flag_words(bits)})
    what = {
        "normalize": "treated like all others, or passed through unchanged where the rule gave no scale",
        "skip": "left out (filled with zeros)",
        "copy": "copied without restoration",
    }[run.settings["bad_frames"]]
    count = f"{len(flagged):,} frames were" if len(flagged) > 1 else "1 frame was"
    yield f"{count} flagged automatically ({', '.join(words)}) and {what}."
