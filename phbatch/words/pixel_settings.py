"""Settings of what is read and what becomes of its pixels: the input, the numbers, and the network."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from phbatch.words.choices import (
    BackendChoice,
    BadFrames,
    IlluminationMode,
    NanPolicy,
    Network,
    Others,
    Precision,
    Scope,
)
from phbatch.words.given import (
    AUTO,
    CHANNELS,
    DURATION,
    FIELDS,
    FRAMES,
    LENGTHS,
    LOWER_CASE,
    NAMES,
    NUMBERS,
    PATH,
    TEXT,
    WELLS,
    StorageOptions,
)
from phbatch.words.normalization import METHODS, Divisor, Factor, Frozen, Method, Normalization, Percentile, Sigma
from phbatch.words.rows import Function, Row, setting

RULE = "settings.normalization."
"""Where the settings of a normalization stand in what is recorded."""

IMAGES: tuple[Function, ...] = ("convert", "statistics", "illumination", "compare_rules", "train")
FINISHED: tuple[Function, ...] = ("evaluate", "export")
MANY: tuple[Function, ...] = (*IMAGES, *FINISHED)
CONVERTS: tuple[Function, ...] = ("convert",)
MEASURES: tuple[Function, ...] = ("statistics", "compare_rules")
LAZY: tuple[Function, ...] = ("normalize", "restore")
AGAIN: tuple[Function, ...] = ("verify", "repair", "run_part")
"""Functions beside `phbatch.run` that a setting acts in."""


def of_rule(name: str, also: tuple[Function, ...], *, metavar: str, methods: tuple[str, ...], unit: str = "") -> Any:
    """Field of a setting that is one of the normalization, which says what it is and its default."""
    field = Normalization.model_fields[name]
    return setting(
        None,
        str(field.description),
        Row(
            "numbers",
            "numbers",
            also,
            metavar,
            unit=unit,
            unset="" if field.default is None else f"{field.default:g}",
            of_model=True,
            stands=f"{RULE}{name}",
            methods=methods,
        ),
    )


Length = Annotated[float, Field(gt=0)]


class PixelSettings(Frozen):
    """The settings that come before the output."""

    axes: str | None = setting(
        None,
        "Axes of a bare array, such as tyx.",
        Row("input", "numbers", (*IMAGES, *FINISHED), "AXES", unset="the image's own", stands="input.axes"),
    )
    wells: Annotated[str | None, WELLS] = setting(
        None,
        "Wells of a plate, and rectangles of them, such as A1,B3-B6.",
        Row("input", "place", MANY, "A1,B3-B6", given="str | Sequence[str]", unset="all"),
    )
    fields: Annotated[str | None, FIELDS] = setting(
        None,
        "Fields of every well, or images of a collection, by their names, such as 0,2.",
        Row("input", "place", MANY, "N,N", given="str | int | Sequence[int]", unset="all"),
    )
    channel: Annotated[int | str | None, CHANNELS] = setting(
        None,
        "Channel to process, or several such as PH,GFP.",
        Row(
            "input",
            "numbers",
            IMAGES,
            "INDEX|NAME,...",
            given="int | str | Sequence[int | str]",
            unset="all",
            stands="settings.channels",
        ),
    )
    others: Others = setting(
        "drop",
        "With --channel: whether the other channels are dropped, or copied as they are.",
        Row("input", "numbers"),
    )
    frames: Annotated[str | None, FRAMES] = setting(
        None,
        "Frames along t, as in Python: one, or a range; negative numbers count from the end.",
        Row(
            "input", "numbers", IMAGES, "T|START:STOP[:STEP]", given="int | str", unset="all", stands="settings.frames"
        ),
    )
    pattern: str | None = setting(
        None,
        "How the files of a folder are named, such as t{t:04}_c{c}_xy{p}.tif.",
        Row("input", "numbers", IMAGES, "PATTERN", unset="frames along t in natural order"),
    )
    position: Annotated[str | None, TEXT] = setting(
        None,
        "Position to read of files that hold several: its number or name.",
        Row("input", "numbers", IMAGES, "NUMBER|NAME", given="int | str", unset="the only one"),
    )
    pixel_size: Annotated[tuple[Length, ...] | None, LENGTHS] = setting(
        None,
        "Distance between pixels along y and x, or along z, y and x.",
        Row(
            "input",
            "numbers",
            (*CONVERTS, "train"),
            "UM|Z,Y,X",
            unit="µm",
            given="float | str | Sequence[float]",
            unset="what the input says",
            stands="input.metadata",
        ),
        min_length=1,
        max_length=3,
    )
    interval: Annotated[float | None, DURATION] = setting(
        None,
        "Time between frames, such as 5min.",
        Row(
            "input",
            "numbers",
            CONVERTS,
            "TIME",
            given="float | str",
            unset="what the input says",
            stands="input.metadata",
        ),
        gt=0,
        allow_inf_nan=False,
    )
    channel_names: Annotated[tuple[str, ...] | None, NAMES] = setting(
        None,
        "Names of the channels, such as PH,GFP.",
        Row(
            "input",
            "numbers",
            CONVERTS,
            "NAME,...",
            given="Sequence[str] | str",
            unset="what the input says",
            stands="input.metadata",
        ),
        min_length=1,
    )
    storage_options: StorageOptions = setting(
        None,
        "Credentials and endpoint of s3://, gs://, https://; never recorded.",
        Row(
            "input",
            "place",
            (*IMAGES, *FINISHED, *AGAIN, "info"),
            "JSON|KEY=VALUE",
            given="Mapping[str, Any] | str | Sequence[Mapping[str, Any] | str]",
            repeated=True,
        ),
        exclude=True,
    )

    normalize: Method | None = setting(
        None,
        f"How a frame is normalized: {', '.join(METHODS)}, or one that an installed package registered.",
        Row(
            "numbers",
            "numbers",
            (*LAZY, "train"),
            "METHOD",
            unset="percentile; median without a model",
            of_model=True,
            stands=f"{RULE}method",
        ),
    )
    factor: Factor | None = of_rule("factor", (*LAZY, "train"), metavar="F", methods=("median", "mode"))
    sigma: Sigma | None = of_rule(
        "sigma", (*MEASURES, *LAZY, "train"), metavar="PX", unit="px", methods=("median", "mode", "zscore")
    )
    pmin: Percentile | None = of_rule("pmin", (*MEASURES, *LAZY, "train"), metavar="P", methods=("percentile",))
    pmax: Percentile | None = of_rule("pmax", (*MEASURES, *LAZY, "train"), metavar="P", methods=("percentile",))
    value: Divisor | None = of_rule(
        "value", ("compare_rules", *LAZY, "train"), metavar="V", unit="counts", methods=("fixed",)
    )
    percentiles: Annotated[tuple[Percentile, ...], NUMBERS] = setting(
        (),
        "More percentiles for the table of statistics, such as 1,50,99.",
        Row("numbers", "numbers", ("statistics",), "P,P,...", given="Sequence[float] | str"),
    )
    scope: Scope = setting(
        "image",
        "Whose pixels the statistic is of: a frame's, or pooled over t (position), or over t and z (series).",
        Row("numbers", "numbers", ("statistics",)),
    )
    smooth_time: int = setting(
        1,
        "Running median of the statistic over this odd number of frames.",
        Row("numbers", "numbers", ("statistics",), "N", unit="frames"),
        ge=1,
    )
    stats: Annotated[str | None, PATH] = setting(
        None,
        "Table of `phbatch stats`, read in place of measuring.",
        Row("numbers", "numbers", (), "FILE", given="str | Path", stands="given.statistics"),
    )
    illumination: Annotated[str, PATH] = setting(
        "none",
        "Uneven light: none, gaussian or polynomial (per frame), temporal or basic (per position), or a profile.",
        Row("numbers", "numbers", (*MEASURES, "restore", "train"), "NAME|PATH", given="str | Path", of_model=True),
    )
    illumination_mode: IlluminationMode = setting(
        "divide",
        "What is done with the uneven light: divide by it, or subtract it.",
        Row("numbers", "numbers", (*MEASURES, "restore", "train"), of_model=True),
    )
    downscale: int = setting(
        1,
        "Area average over N x N pixels before everything else.",
        Row("numbers", "numbers", (*MEASURES, "restore", "train"), "N", of_model=True),
        ge=1,
        le=16,
    )
    nan: NanPolicy = setting("refuse", "What is done with a frame that has NaN or infinity.", Row("numbers", "numbers"))
    bad_frames: BadFrames = setting(
        "normalize", "What is done with a frame that is an outlier of its series.", Row("numbers", "numbers")
    )

    model: Annotated[str | None, PATH] = setting(
        None,
        "Bundled name or CSBDeep model folder; none normalizes only.",
        Row(
            "network",
            "numbers",
            ("compare_rules", "restore", *AGAIN),
            "NAME|DIR|none",
            given="str | Path",
            unset="phase-2d-real, bundled",
            stands="model",
        ),
    )
    uncertainty: bool = setting(
        False, "Also write the scale of a probabilistic model, as a second image.", Row("network", "numbers")
    )
    tile: Annotated[int | None, AUTO] = setting(
        None,
        "Length of a tile, halo included.",
        Row(
            "network",
            "numbers",
            ("restore",),
            "AUTO|N",
            unit="px",
            given="int | str",
            unset="auto, the fastest measured",
            stands="settings.tile",
        ),
        ge=1,
    )
    batch: Annotated[int | None, AUTO] = setting(
        None,
        "Tiles per call of the network.",
        Row(
            "network",
            "numbers",
            ("restore",),
            "AUTO|N",
            given="int | str",
            unset="auto, the fastest measured",
            stands="settings.batch",
        ),
        ge=1,
    )
    backend: BackendChoice = setting(
        "auto",
        "What computes the network, by Keras; auto is TensorFlow where it is installed, else JAX.",
        Row("network", "numbers", ("restore", "info", "train"), stands="settings.backend"),
    )
    network: Annotated[Network, LOWER_CASE] = setting(
        "auto",
        "Form of the network: auto, plain, upsampling, polyphase-1 to -3.",
        Row(
            "network",
            "numbers",
            ("restore",),
            "AUTO|FORM",
            unset="auto, the fastest measured",
            stands="settings.network",
        ),
    )
    precision: Annotated[Precision, LOWER_CASE] = setting(
        "auto",
        "Of the network: auto, float32, tf32, float16 or bfloat16; a reduced one only where it was checked on this"
        " input.",
        Row("network", "numbers", ("restore",), "AUTO|PRECISION", stands="settings.precision"),
    )
    precision_bound: float = setting(
        1e-2,
        "Largest difference to float32 that is allowed, at 99.9 % of the pixels, over the output's std.",
        Row("network", "numbers", (), "B", stands="settings.precision"),
        gt=0,
    )
