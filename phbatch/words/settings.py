"""Settings that cannot hold an invalid state: frozen, each field described, unknown keys refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, ByteSize, Field, SecretStr, ValidationError, model_validator

from phbatch.words.errors import UsageError
from phbatch.words.given import (
    AUTO,
    FRAMES,
    LOWER_CASE,
    NUMBERS,
    PATH,
    RANGE,
    parse_storage_options,
    select_indices,
)
from phbatch.words.normalization import METHODS, Divisor, Factor, Frozen, Method, Normalization, Percentile, Sigma
from phbatch.words.rows import Function, Row, describe, read_rows, setting
from phbatch.words.wording import learn_flags, say

if TYPE_CHECKING:
    from typing import Unpack

    from phbatch.words.option_types import RunOptions

OutputDtype = Literal["float32", "float16", "uint16", "uint8"]
Backend = Literal["tensorflow", "jax"]
Network = Literal["auto", "plain", "upsampling", "polyphase-1", "polyphase-2", "polyphase-3"]
Codec = Literal["auto", "blosc-lz4", "blosc-zstd", "zstd", "none"]
Shuffle = Literal["auto", "byte", "bit"]
Precision = Literal["auto", "float32", "tf32", "float16", "bfloat16"]
FLOAT32: Precision = "float32"
NanPolicy = Literal["refuse", "skip"]
BadFrames = Literal["normalize", "skip", "copy"]
Scope = Literal["image", "position", "series"]
IlluminationMode = Literal["divide", "subtract"]

MOST_WORKERS = 16
"""Units at once unless more are asked for: a core prepares some 70 MPx/s, and a GPU restores a thousand."""

MOST_READERS = 4
"""Objects of an output that are checked at once unless more are asked for."""

FRAME_BACKGROUNDS = ("gaussian", "polynomial")
"""Backgrounds that are estimated of every frame by itself."""

ESTIMATED_BACKGROUNDS = (*FRAME_BACKGROUNDS, "temporal", "basic")
"""Backgrounds that are estimated of a sample of frames; what is none of them is the path of a profile."""

StorageOptions = Annotated[SecretStr | None, BeforeValidator(parse_storage_options)]
"""Credentials and endpoints of object stores, as JSON: they are neither printed nor recorded."""

Ordinary = Annotated[float, Field(ge=-1e30, le=1e30)]
"""What float32 can hold, with room to calculate."""


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
            stands=f"{_RULE}{name}",
            methods=methods,
        ),
    )


_RULE = "settings.normalization."
_IMAGES: tuple[Function, ...] = ("statistics", "illumination", "compare_rules")
_MEASURES: tuple[Function, ...] = ("statistics", "compare_rules")
_LAZY: tuple[Function, ...] = ("normalize", "restore")
_AGAIN: tuple[Function, ...] = ("verify", "repair")


class RunSettings(Frozen):
    """What a user asks for; None leaves the choice to phbatch.

    Each field is the row of one setting: all that is said of it anywhere comes from there.

    Examples
    --------
    >>> RunSettings(memory="8GB").memory
    8000000000
    """

    axes: str | None = setting(
        None,
        "Axes of a bare array, such as tyx.",
        Row("input", "numbers", _IMAGES, "AXES", unset="the image's own", stands="input.axes"),
    )
    channel: int | str | None = setting(
        None,
        "Channel to process.",
        Row("input", "numbers", _IMAGES, "INDEX|NAME", unset="all", stands="settings.channels"),
    )
    frames: Annotated[str | None, FRAMES] = setting(
        None,
        "Frames along t, as in Python: one, or a range; negative numbers count from the end.",
        Row(
            "input", "numbers", _IMAGES, "T|START:STOP[:STEP]", given="int | str", unset="all", stands="settings.frames"
        ),
    )
    storage_options: StorageOptions = setting(
        None,
        "Credentials and endpoint of s3://, gs://, https://; never recorded.",
        Row(
            "input",
            "place",
            (*_IMAGES, *_AGAIN, "info"),
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
            _LAZY,
            "METHOD",
            unset="percentile; median without a model",
            of_model=True,
            stands=f"{_RULE}method",
        ),
    )
    factor: Factor | None = of_rule("factor", _LAZY, metavar="F", methods=("median", "mode"))
    sigma: Sigma | None = of_rule(
        "sigma", (*_MEASURES, *_LAZY), metavar="PX", unit="px", methods=("median", "mode", "zscore")
    )
    pmin: Percentile | None = of_rule("pmin", (*_MEASURES, *_LAZY), metavar="P", methods=("percentile",))
    pmax: Percentile | None = of_rule("pmax", (*_MEASURES, *_LAZY), metavar="P", methods=("percentile",))
    value: Divisor | None = of_rule("value", ("compare_rules", *_LAZY), metavar="V", unit="counts", methods=("fixed",))
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
        Row("numbers", "numbers", (*_MEASURES, "restore"), "NAME|PATH", given="str | Path"),
    )
    illumination_mode: IlluminationMode = setting(
        "divide",
        "What is done with the uneven light: divide by it, or subtract it.",
        Row("numbers", "numbers", (*_MEASURES, "restore")),
    )
    downscale: int = setting(
        1,
        "Area average over N x N pixels before everything else.",
        Row("numbers", "numbers", (*_MEASURES, "restore"), "N"),
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
            ("compare_rules", "restore", *_AGAIN),
            "NAME|DIR|none",
            given="str | Path",
            unset="the bundled one",
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
    backend: Backend = setting(
        "tensorflow",
        "What computes the network, by Keras.",
        Row("network", "numbers", ("restore", "info"), stands="settings.backend"),
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

    dtype: OutputDtype = setting("float32", "Pixel type of the output.", Row("output", "numbers", ("restore",)))
    rescale: bool = setting(
        False, "Undo the normalization at the end: intensities of the input.", Row("output", "numbers", ("restore",))
    )
    value_range: Annotated[tuple[Ordinary, Ordinary] | None, RANGE] = setting(
        None,
        "Normalized values that the ends of dtype uint8 or uint16 stand for, such as 0:4.",
        Row(
            "output", "numbers", ("restore",), "LOW:HIGH", given="str | tuple[float, float]", stands="settings.packing"
        ),
        alias="range",
    )
    scale: float | None = setting(
        None,
        "Integer that stands for a normalized value of 1, such as 10000.",
        Row("output", "numbers", ("restore",), "N", stands="settings.packing"),
        gt=1e-30,
        le=1e30,
    )
    upscale_back: bool = setting(
        False, "Return to the grid of the input at the end, bilinearly.", Row("output", "numbers", ("restore",))
    )
    codec: Codec = setting(
        "auto", "Compression of the output.", Row("output", "numbers", unset="auto, which is blosc-lz4")
    )
    shuffle: Shuffle = setting("auto", "Of bytes or bits before Blosc compresses them.", Row("output", "numbers"))
    shard: ByteSize | None = setting(
        None,
        "Size of the shards of the output, such as 64MB.",
        Row("output", "numbers", (), "SIZE", given="int | str", unset="no shards"),
        gt=0,
    )
    overwrite: bool = setting(False, "Start afresh where an output of phbatch exists.", Row("output", "place"))

    memory: ByteSize | None = setting(
        None,
        "Memory that may be used, such as 8GB.",
        Row(
            "machine",
            "speed",
            (*_IMAGES, *_AGAIN, "restore"),
            "SIZE",
            given="int | str",
            unset="half of what is free",
        ),
        gt=0,
    )
    workers: int | None = setting(
        None,
        "Units read, computed and written at once.",
        Row(
            "machine",
            "speed",
            ("statistics", *_AGAIN),
            "N",
            unset=f"one per core up to {MOST_WORKERS}, as the memory allows",
            flags=("--inflight",),
        ),
        ge=1,
    )
    threads: int | None = setting(
        None,
        "Threads of the codecs, and of TensorFlow on a CPU.",
        Row("machine", "speed", ("statistics",), "N", unset="all cores"),
        ge=1,
    )
    scheduler: str | None = setting(
        None,
        "Address of a Dask scheduler to run on.",
        Row("machine", "place", ("statistics", *_AGAIN), "ADDRESS", unset="this process"),
    )
    retries: int = setting(
        3,
        "Attempts after the first one, where a unit fails to be read or written.",
        Row("machine", "speed", ("statistics", *_AGAIN), "N"),
        ge=0,
        le=100,
    )

    if TYPE_CHECKING:  # what may be given is more than what is held: sizes as 8GB, paths as Path

        def __init__(self, **options: Unpack[RunOptions]) -> None: ...

    @model_validator(mode="after")
    def _check(self) -> RunSettings:
        self.select_frames(1)
        if self.smooth_time % 2 == 0:
            raise ValueError(
                f"smooth_time {self.smooth_time} must be odd, so that a frame is in the middle of its window"
            )
        if self.smooth_time > 1 and self.scope != "image":
            raise ValueError(f"scope {self.scope} is one statistic for all times: leave smooth_time or scope out")
        if self.stats is not None and (self.smooth_time > 1 or self.scope != "image" or self.percentiles):
            raise ValueError(
                "stats gives the statistics as they are: give smooth_time, scope and percentiles to `phbatch stats`"
                " when it makes the file"
            )
        if self.upscale_back and self.downscale == 1:
            raise ValueError(say("--upscale-back needs a downscale of 2 or more: add --downscale, or leave it out"))
        if self.illumination_mode != "divide" and self.illumination == "none":
            raise ValueError(say("--illumination-mode needs an illumination: add --illumination, or leave it out"))
        if self.shuffle != "auto" and self.codec in ("zstd", "none"):
            raise ValueError(f"codec {self.codec} does not shuffle: leave shuffle out, or choose a Blosc codec")
        self._check_storing()
        return self

    def _check_storing(self) -> None:
        """Integers need a stated range, of which there is one; for floats it would do nothing."""
        given = {"rescale": self.rescale, "range": self.value_range is not None, "scale": self.scale is not None}
        stated = [name for name, is_given in given.items() if is_given]
        if self.dtype.startswith("uint"):
            if not stated:
                raise ValueError(
                    say(
                        f"--dtype={self.dtype} needs a stated range: add --rescale to write the input's intensities, or"
                        " --range LOW:HIGH or --scale N to write normalized values"
                    )
                )
            if len(stated) > 1:
                raise ValueError(f"{' and '.join(stated)} are two ways to store a value: leave one out")
        elif stated not in ([], ["rescale"]):
            raise ValueError(
                say(f"{stated[-1]} is for integers and dtype is {self.dtype}: add --dtype uint16, or leave it out")
            )
        if self.value_range is not None and not self.value_range[1] - self.value_range[0] > 1e-30:
            low, high = self.value_range
            raise ValueError(f"range {low:g}:{high:g} is LOW:HIGH, of which the second must be above the first")

    def select_frames(self, count: int) -> range:
        """Indices along t that `frames` selects of `count`; may be empty.

        Examples
        --------
        >>> list(RunSettings(frames="1:8:3").select_frames(6)), list(RunSettings(frames="-2:").select_frames(6))
        ([1, 4], [4, 5])
        >>> list(RunSettings(frames="3").select_frames(6))
        [3]
        """
        return range(count) if self.frames is None else select_indices(self.frames, count)


SETTINGS = read_rows(RunSettings)
"""The table of settings, by the names that a person gives and that are recorded."""

OF_RULE = {
    setting.row.stands.removeprefix(_RULE): setting
    for setting in SETTINGS.values()
    if setting.row.stands.startswith(_RULE)
}
"""The settings that make a `Normalization`, by its fields."""

RunSettings.__doc__ = (RunSettings.__doc__ or "") + describe(SETTINGS)

learn_flags(name for name, setting in SETTINGS.items() if setting.is_flag)


def parse_settings(options: dict[str, Any]) -> RunSettings:
    """Settings from options as a person wrote them; None and missing are the same.

    Raises
    ------
    UsageError
        One sentence on the first option that is wrong.
    """
    try:
        return RunSettings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        raise UsageError(first_problem(error)) from error


def first_problem(error: ValidationError) -> str:
    """The first problem of a validation error in one sentence, with the value and the rule."""
    problem = error.errors()[0]
    message = problem["msg"].removeprefix("Value error, ")
    name = ".".join(str(part) for part in problem["loc"])
    if not name:
        return f"{message}."
    if problem["type"] == "extra_forbidden":
        return f"{name!r} is no setting of phbatch; see `phbatch run --help` for their names."
    value = "(not shown)" if name.startswith("storage_options") else repr(problem["input"])
    return f"--{name.replace('_', '-')} {value} is not valid: {message[:1].lower()}{message[1:]}."
