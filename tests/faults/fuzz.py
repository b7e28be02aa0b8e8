"""Inputs and command lines drawn at random: images as software writes them, metadata with something wrong in them."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
UNITS = {"t": ["second", "minute", "s", None], "z": ["micrometer", "um", "µm", "micron", None, "pixel"]}
AXES = ("yx", "tyx", "zyx", "cyx", "tcyx", "tzyx", "tczyx", "xyt", "ctyx", "yxc")
WORDS = {"t": ["t", "T", "time"], "c": ["c", "C", "channel"], "z": ["z", "plane"], "y": ["y", "Y"], "x": ["x", "X"]}
WRONG: tuple[Any, ...] = (None, -1, 0, 1e300, "", "x", [], {}, [None], True, 2**70, ["a", 1], float("nan"), "µ\x1b[2J")


@dataclass(frozen=True)
class Image:
    """An input that was drawn.

    Attributes
    ----------
    path : Path
        Of the array or group.
    axes : str or None
        Axes of the array in its own order; None where its metadata do not say them rightly.
    shape : tuple of int
        Of the array.
    scale : dict of str to float, or None
        By axis; None where its metadata do not say it rightly.
    """

    path: Path
    axes: str | None
    shape: tuple[int, ...]
    scale: dict[str, float] | None


def draw_pixels(draw: Random, shape: tuple[int, ...]) -> NDArray[Any]:
    """Pixels of some dtype: noise on a background, and in a few images what nobody expects."""
    numbers = np.random.default_rng(draw.randrange(2**32))
    dtype = draw.choice(["uint8", "uint16", "uint16", "uint16", ">u2", "int16", "int32", "float32", "float64", "<f2"])
    level = 100.0 if dtype == "uint8" else 1500.0
    image = numbers.normal(level, level / 30, shape)
    image[numbers.random(shape) > 0.97] *= 1.4
    match draw.randrange(14):
        case 0:
            image[:] = draw.choice([0, 7])
        case 1:
            image -= level
        case 2:
            image[..., : shape[-1] // 3] = 0
        case 3:
            image[0] = 0
        case 4 if np.dtype(dtype).kind == "f":
            image[0] = draw.choice([np.nan, np.inf])
    if np.dtype(dtype).kind == "u":
        image = np.maximum(image, 0)
    return image.astype(dtype)


def draw_image(draw: Random, folder: Path) -> Image:
    """Write an input into a folder."""
    axes = draw.choice(AXES)
    lengths = {"t": draw.randint(1, 4), "c": draw.randint(1, 3), "z": draw.randint(1, 3)}
    shape = tuple(lengths.get(axis) or draw.randint(9, 48) for axis in axes)
    chunks = tuple(
        1 if axis in "tcz" else draw.choice([size, -(-size // 2)]) for axis, size in zip(axes, shape, strict=True)
    )
    pixels = draw_pixels(draw, shape)
    return (draw_bare if draw.random() < 0.3 else draw_ome)(draw, folder, axes, pixels, chunks)


def draw_bare(draw: Random, folder: Path, axes: str, pixels: NDArray[Any], chunks: tuple[int, ...]) -> Image:
    """An array, with or without names of its dimensions."""
    path, names = folder / "in.zarr", [draw.choice(WORDS[axis]) for axis in axes]
    known: str | None = axes
    match draw.randrange(5):
        case 0 if pixels.ndim == 3:
            names, known = ["Y", "X", "S"], None
        case 1:
            names, known = ["a", "b", "c", "d", "e"][: pixels.ndim], None
    version = draw.choice([2, 3])
    named = draw.random() < 0.7
    array = zarr.create_array(
        path,
        data=pixels,
        chunks=chunks,
        zarr_format=version,  # type: ignore[arg-type]
        dimension_names=names if named and version == 3 else None,
        compressors=draw.choice(["auto", None]),
    )
    if named and version == 2:
        array.attrs["_ARRAY_DIMENSIONS"] = names
    if not named:
        known = None
    if draw.random() < 0.3:
        _spoil(draw, path / ("zarr.json" if version == 3 else ".zarray"))
        known = None
    if draw.random() < 0.1:
        draw.choice(sorted(file for file in path.rglob("*") if file.is_file())).unlink()
        known = None
    return Image(path, known, pixels.shape, None)


def draw_ome(draw: Random, folder: Path, axes: str, pixels: NDArray[Any], chunks: tuple[int, ...]) -> Image:
    """An OME-Zarr image, in most draws with something in its metadata that is not as it should be."""
    path, version = folder / "in.ome.zarr", draw.choice(["0.4", "0.4", "0.5"])
    steps = {axis: 1.0 if axis == "c" else draw.choice([1.0, 0.325, 300.0, 0.5]) for axis in axes}
    whole = {axis: draw.choice([1.0, 1.0, 2.0]) if axis != "c" else 1.0 for axis in axes}
    units = {axis: draw.choice(UNITS["t" if axis == "t" else "z"]) for axis in axes if axis != "c"}
    described = [
        {"name": axis, "type": KINDS[axis]} | ({"unit": units[axis]} if units.get(axis) else {}) for axis in axes
    ]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": list(steps.values())}]}
    if draw.random() < 0.3:
        dataset["coordinateTransformations"].append({"type": "translation", "translation": [1.5] * len(axes)})  # type: ignore[attr-defined]
    multiscale: dict[str, Any] = {"axes": described, "datasets": [dataset], "name": "frames"}
    scale: dict[str, float] | None = steps
    if draw.random() < 0.3:
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": list(whole.values())}]
        scale = {axis: steps[axis] * whole[axis] for axis in axes}
    omero = {
        "channels": [
            {"label": f"PH {c}", "color": "FFFFFF", "window": {"start": 0, "end": 9, "min": 0, "max": 99}}
            for c in range(_channels(axes, pixels.shape))
        ]
    }
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    group.create_array("0", data=pixels, chunks=chunks)
    if version == "0.4":
        ome = {"multiscales": [multiscale | {"version": "0.4"}], "omero": omero}
        group.attrs.put(ome)
    else:
        group.attrs.put({"ome": {"version": "0.5", "multiscales": [multiscale], "omero": omero}})
    document = path / (".zattrs" if version == "0.4" else "zarr.json")
    match draw.randrange(6):
        case 0 | 1:
            _spoil(draw, document)
            return Image(path, None, pixels.shape, None)
        case 2:
            _spoil(draw, document, within="omero")
        case 3:
            _spoil(draw, path / "0" / (".zarray" if version == "0.4" else "zarr.json"))
            return Image(path, None, pixels.shape, None)
    return Image(path, axes, pixels.shape, scale)


def _channels(axes: str, shape: tuple[int, ...]) -> int:
    return dict(zip(axes, shape, strict=True)).get("c", 1)


def _spoil(draw: Random, document: Path, within: str = "") -> None:
    """Remove or replace something in a JSON document, once to three times."""
    content = json.loads(document.read_text(encoding="utf-8"))
    for _ in range(draw.randint(1, 3)):
        places = [place for place in _places(content) if within in place]
        if not places:
            break
        *way, last = draw.choice(places)
        holder = content
        for key in way:
            holder = holder[key]
        if draw.random() < 0.4:
            del holder[last]
        else:
            holder[last] = deepcopy(draw.choice(WRONG))
    document.write_text(json.dumps(content), encoding="utf-8")


def _places(content: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    found = []
    for key, value in inner:
        found += [(*way, key), *_places(value, (*way, key))]
    return [place for place in found if place]


VALUES: dict[str, tuple[Any, ...]] = {
    "--normalize": ("median", "mode", "percentile", "minmax", "fixed", "zscore", "none", "Median", ""),
    "--factor": (1, 10, 0, -1, "nan", "1e308"),
    "--value": (100, 0, "x"),
    "--sigma": (0, 2, 0.5, 50, 100, 101, "nan"),
    "--pmin": (0, 2, 50, 99.9, 100),
    "--pmax": (99.8, 100, 2, 0),
    "--percentiles": ("1,50,99", "", "1,,2", "a", "101"),
    "--scope": ("image", "position", "series"),
    "--smooth-time": (1, 3, 5, 2, 0, 99),
    "--illumination": ("none", "gaussian", "polynomial", "temporal", "nowhere.zarr", "in.zarr", ""),
    "--illumination-mode": ("divide", "subtract"),
    "--downscale": (1, 2, 3, 16, 17, 0),
    "--axes": ("tyx", "yx", "tczyx", "TYX", "xyt", "t", "", "ttyx", "cyx"),
    "--channel": (0, 1, -1, 7, "PH 0", "DAPI", ""),
    "--frames": ("0:2", "3", "-1:", ":", "::2", "5:2", "a", "0:9999999999999", "1:-1", "-2", ""),
    "--dtype": ("float32", "float16", "uint16", "uint8", "int8"),
    "--nan": ("refuse", "skip"),
    "--bad-frames": ("normalize", "skip", "copy"),
    "--codec": ("auto", "blosc-zstd", "zstd", "none", "gzip"),
    "--shuffle": ("byte", "bit"),
    "--shard": ("1MB", "64MB", "0", "x"),
    "--memory": ("8GB", "600MB", "1", "-1", "much"),
    "--workers": (1, 2, 0, -3),
    "--threads": (1, 2, 0),
    "--retries": (0, 1, 101),
    "--stats": ("table.csv", "table.json", "nowhere.csv", "in.zarr", "out.zarr"),
    "--config": ("settings.toml", "nowhere.toml"),
    "--tile": ("auto", 16, 0, 100000),
    "--batch": ("auto", 1, 0),
    "--samples": (1, 3, 0),
    "--method": ("temporal", "gaussian", "polynomial", "basic", "median"),
    "--deep": (0, 1, 5),
    "--seed": (0, -1),
    "--input": ("in.zarr", "nowhere.zarr"),
}
FLAGS = (
    "--rescale",
    "--no-rescale",
    "--upscale-back",
    "--uncertainty",
    "--overwrite",
    "--profile",
    "--debug",
    "--help",
)
FLAGS_OF_RUN = tuple(flag for flag in FLAGS if flag not in ("--debug", "--help"))
PICKED = ("--axes", "--channel", "--frames", "--memory")
PREPARED = ("--sigma", "--illumination", "--illumination-mode", "--downscale")
REDONE = ("--input", "--workers", "--memory")
STATISTICS = (
    *PICKED,
    *PREPARED,
    "--pmin",
    "--pmax",
    "--percentiles",
    "--scope",
    "--smooth-time",
    "--workers",
    "--threads",
)
OPTIONS: dict[str, tuple[str, ...]] = {
    "run": (
        *STATISTICS,
        *FLAGS_OF_RUN,
        *("--normalize", "--factor", "--value", "--stats", "--dtype", "--nan", "--bad-frames", "--codec", "--shuffle"),
        *("--shard", "--retries", "--config", "--tile", "--batch"),
    ),
    "stats": STATISTICS,
    "compare": (*PICKED, *PREPARED, "--samples", "--value"),
    "illumination": (*PICKED, "--method"),
    "verify": (*REDONE, "--deep", "--seed"),
    "repair": REDONE,
    "info": (),
}
OPTIONS["plan"] = tuple(name for name in OPTIONS["run"] if name != "--profile")
OUTPUTS = (
    "out.zarr",
    "out.zarr",
    "out.zarr",
    "mine",
    "mine/new.zarr",
    "empty",
    "note.txt",
    "{input}",
    "{input}/0",
    ".",
)


@dataclass(frozen=True)
class Line:
    """A command line, and the places that it may change."""

    arguments: tuple[str, ...]
    places: tuple[str, ...]

    @property
    def command(self) -> str:
        """Its first word."""
        return self.arguments[0]


def draw_lines(draw: Random, image: Image, model: str = "none") -> list[Line]:
    """One to three command lines that belong together."""
    name = image.path.name
    commands = draw.choice(
        [
            *(("run",), ("run", "run"), ("plan", "run"), ("run", "verify"), ("run", "repair", "verify"), ("stats",)),
            *(("compare",), ("illumination", "run"), ("info",), ("run", "info"), ("repair",), ("stats", "run")),
        ]
    )
    output = draw.choice(OUTPUTS).replace("{input}", name)
    return [_draw_line(draw, command, name, output, model) for command in commands]


def _draw_line(draw: Random, command: str, name: str, output: str, model: str) -> Line:
    stem = name.removesuffix(".zarr")
    places: tuple[str, ...] = ()
    if command in ("run", "plan"):
        arguments = [command, name, output, "--model", model]
        places = (output,) if command == "run" else ()
        if draw.random() < 0.2:
            del arguments[2]
            places = (f"{stem}.phbatch.zarr",)
    elif command in ("verify", "repair", "info"):
        arguments = [command, draw.choice([output, output, name, "nowhere.zarr"])]
        places = (arguments[1],) if command == "repair" else ()
    elif command == "illumination":
        arguments, places = [command, name, "-o", "profile.zarr"], ("profile.zarr", "profile.png")
    else:
        file = draw.choice(["table.csv", "table.json"] if command == "stats" else ["page.html", "page.png", "page.pdf"])
        arguments, places = [command, name, "-o", file], (file,)
        if draw.random() < 0.4:
            arguments, places = arguments[:2], ()
    for option in draw.sample(OPTIONS[command], min(len(OPTIONS[command]), draw.choice([0, 1, 1, 2, 3]))):
        arguments += [option] if option in FLAGS else [option, str(draw.choice(VALUES[option]))]
    if draw.random() < 0.3:
        arguments.append("--json")
    if draw.random() < 0.1 and command in ("run", "stats", "verify", "repair"):
        arguments.append("--quiet")
    if draw.random() < 0.03:
        odd = draw.choice(["--quite", "--debug", "", "µ", "extra"])
        arguments.append(odd)
        places += (odd,) if command == "run" and places == (f"{stem}.phbatch.zarr",) else ()  # it is the OUTPUT then
    return Line(tuple(arguments), places)


def write_surroundings(draw: Random, folder: Path) -> None:
    """What else lies there: a folder with somebody's files, an empty one, a note, settings, tables."""
    (folder / "mine" / "0").mkdir(parents=True)
    (folder / "mine" / "thesis.txt").write_text("precious")
    (folder / "mine" / "0" / "raw.tif").write_text("precious")
    (folder / "empty").mkdir()
    (folder / "note.txt").write_text("precious")
    (folder / "settings.toml").write_text(
        draw.choice(["sigma = 3\n", "memory = '8GB'\n", "sigm = 3\n", "= [", "axes = 3\n"])
    )
    row = {"t": 0, "c": 0, "z": 0, "median": 1500, "mode": 1500, "p2": 1400, "p99.8": 1700}
    rows = [row | {"t": t} for t in range(3)]
    separator = draw.choice([",", ";"])
    lines = [separator.join(map(str, line)) for line in (row, *(found.values() for found in rows))]
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    (folder / "table.json").write_text(json.dumps(draw.choice([rows, [], {}, None, [1], [{"t": "a"}]])))


def expected_steps(scale: dict[str, float], arguments: tuple[str, ...]) -> dict[str, float]:
    """Scale of the output of a run, by axis, as the command line changes it."""
    given = dict(pairwise(arguments))
    steps = dict(scale)
    if "--upscale-back" not in arguments:
        for axis in "yx":
            steps[axis] *= int(given.get("--downscale", 1))
    if "t" in steps and given.get("--frames") == "::2":
        steps["t"] *= 2
    return steps
