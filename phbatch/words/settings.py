"""Settings that cannot hold an invalid state: frozen, each field described, unknown keys refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from phbatch.words.errors import UsageError
from phbatch.words.wording import say

if TYPE_CHECKING:
    from typing import Unpack

    from phbatch.words.options import RunOptions

METHODS = ("median", "mode", "percentile", "minmax", "fixed", "zscore", "none")
"""Normalizations that phbatch has of its own."""

NORMALIZERS_GROUP = "phbatch.normalizers"
"""Entry points of installed packages that add normalizations: see `phbatch.kernels.intensity.Normalizer`."""

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

FRAME_BACKGROUNDS = ("gaussian", "polynomial")
"""Backgrounds that are estimated of every frame by itself."""

ESTIMATED_BACKGROUNDS = (*FRAME_BACKGROUNDS, "temporal", "basic")
"""Backgrounds that are estimated of a sample of frames; what is none of them is the path of a profile."""


def _known_method(name: str) -> str:
    if name in METHODS:
        return name
    added = sorted(entry_points(group=NORMALIZERS_GROUP).names)
    if name not in added:
        raise ValueError(f"the normalizations are {', '.join([*METHODS, *added])}")
    return name


Method = Annotated[str, AfterValidator(_known_method)]
"""How a frame is normalized: one of `METHODS`, or a name that an installed package registered."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class Normalization(_Settings):
    """The rule that brings every frame to the same intensities, in training and in inference.

    Examples
    --------
    >>> Normalization(method="mode", factor=10).describe()
    'mode, factor 10, sigma 2 px'
    """

    method: Method = Field("median", description="Which statistic normalizes a frame.")
    factor: float = Field(1.0, gt=0, description="Multiple of the median or mode that becomes 1.")
    sigma: float = Field(
        2.0, ge=0, le=100, description="Smoothing before median and mode: standard deviation in pixels."
    )
    pmin: float = Field(2.0, ge=0, le=100, description="Lower percentile, 0 to 100.")
    pmax: float = Field(99.8, ge=0, le=100, description="Upper percentile, 0 to 100.")
    value: float | None = Field(None, gt=0, description="Divisor of 'fixed', in counts.")

    @model_validator(mode="after")
    def _check(self) -> Normalization:
        if self.pmin >= self.pmax:
            raise ValueError(f"pmin {self.pmin:g} must be below pmax {self.pmax:g}")
        if self.method == "fixed" and self.value is None:
            raise ValueError(say("method 'fixed' needs the divisor: give --value"))
        return self

    def describe(self) -> str:
        """The rule in a few words, with the settings that matter to it."""
        if self.method == "zscore":
            return f"zscore, sigma {self.sigma:g} px"
        if self.method in ("median", "mode"):
            return f"{self.method}, factor {self.factor:g}, sigma {self.sigma:g} px"
        if self.method == "percentile":
            return f"percentile {self.pmin:g} to {self.pmax:g}"
        return f"fixed {self.value:g}" if self.method == "fixed" else self.method


def _parse_auto(value: Any) -> Any:
    return None if isinstance(value, str) and value.upper() == "AUTO" else value


def _parse_numbers(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _parse_lower_case(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _parse_range(value: Any) -> Any:
    return tuple(value.split(":")) if isinstance(value, str) else value


def _parse_path(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _parse_frames(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def parse_storage_options(value: Any) -> SecretStr | None:
    """Options of object stores as JSON that no message shows.

    Parameters
    ----------
    value : mapping, str, sequence of str, SecretStr or None
        Names and values; JSON; ``key=value``; several of these, of which the later ones win.

    Examples
    --------
    >>> parse_storage_options(["key=A", '{"secret": "B"}']).get_secret_value()
    '{"key": "A", "secret": "B"}'
    """
    if value is None or isinstance(value, SecretStr):
        return value
    options: dict[str, Any] = {}
    for part in [value] if isinstance(value, str | Mapping) else value:
        if isinstance(part, Mapping):
            options |= part
        elif part.lstrip().startswith("{"):
            options |= _parse_json_object(part)
        else:
            name, sign, content = part.partition("=")
            if not sign or not name.strip():
                raise ValueError("options of a store are a JSON object, or key=value")
            options[name.strip()] = content
    return SecretStr(json.dumps(options, sort_keys=True)) if options else None


def _parse_json_object(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise ValueError("options of a store are no JSON object") from None


StorageOptions = Annotated[SecretStr | None, BeforeValidator(parse_storage_options)]
"""Credentials and endpoints of object stores, as JSON: they are neither printed nor recorded."""

Auto = BeforeValidator(_parse_auto)
Percentile = Annotated[float, Field(ge=0, le=100)]
LowerCase = BeforeValidator(_parse_lower_case)
Ordinary = Annotated[float, Field(ge=-1e30, le=1e30)]
"""What float32 can hold, with room to calculate."""


class RunSettings(_Settings):
    """What a user asks for; None leaves the choice to phbatch.

    Examples
    --------
    >>> RunSettings(memory="8GB").memory
    8000000000
    """

    model: Annotated[str | None, BeforeValidator(_parse_path)] = Field(
        None, description="Bundled name, CSBDeep model folder, or 'none' to normalize only."
    )
    normalize: Method | None = Field(None, description="Normalization method.")
    factor: float | None = Field(None, gt=0, description="Multiple of the median or mode that becomes 1.")
    sigma: float | None = Field(None, ge=0, le=100, description="Smoothing before the statistics, in pixels.")
    pmin: float | None = Field(None, ge=0, le=100, description="Lower percentile, 0 to 100.")
    pmax: float | None = Field(None, ge=0, le=100, description="Upper percentile, 0 to 100.")
    value: float | None = Field(None, gt=0, description="Divisor of the method 'fixed', in counts.")
    percentiles: Annotated[tuple[Percentile, ...], BeforeValidator(_parse_numbers)] = Field(
        (), description="More percentiles for the table, such as 1,50,99."
    )
    scope: Scope = Field("image", description="Whose pixels the statistic is of: a frame's, or pooled over frames.")
    stats: Annotated[str | None, BeforeValidator(_parse_path)] = Field(
        None, description="Table of `phbatch stats`, read in place of measuring."
    )
    illumination: Annotated[str, BeforeValidator(_parse_path)] = Field(
        "none", description="Uneven light: none, gaussian, polynomial, temporal, basic, or a profile."
    )
    illumination_mode: IlluminationMode = Field("divide", description="Divide by the background, or subtract it.")
    downscale: int = Field(1, ge=1, le=16, description="Area average over N x N pixels before everything else.")
    upscale_back: bool = Field(False, description="Return to the grid of the input at the end, bilinearly.")
    axes: str | None = Field(None, description="Axes of a bare array, such as tyx.")
    channel: int | str | None = Field(None, description="Index or name of the channel to process.")
    frames: Annotated[str | None, BeforeValidator(_parse_frames)] = Field(
        None, description="Frames along t: one, or START:STOP[:STEP]; negative numbers count from the end."
    )
    dtype: OutputDtype = Field("float32", description="Pixel type of the output.")
    rescale: bool = Field(False, description="Undo the normalization at the end: intensities of the input.")
    value_range: Annotated[tuple[Ordinary, Ordinary] | None, BeforeValidator(_parse_range)] = Field(
        None,
        alias="range",
        description="Normalized values LOW:HIGH that an integer dtype's lowest and highest value stand for.",
    )
    scale: float | None = Field(
        None, gt=1e-30, le=1e30, description="Integer that stands for a normalized value of 1, such as 10000."
    )
    uncertainty: bool = Field(False, description="Write the scale of a probabilistic model as a second image.")
    nan: NanPolicy = Field("refuse", description="What a frame with NaN or infinity does.")
    smooth_time: int = Field(1, ge=1, description="Running median of the statistic over this odd number of frames.")
    bad_frames: BadFrames = Field("normalize", description="What frames that are outliers of their series get.")
    tile: Annotated[int | None, Auto] = Field(None, ge=1, description="Tile length in pixels, halo included.")
    batch: Annotated[int | None, Auto] = Field(None, ge=1, description="Tiles per call of the network.")
    backend: Backend = Field("tensorflow", description="Keras backend.")
    network: Annotated[Network, LowerCase] = Field(
        "auto", description="Form of the network: equal functions, the fastest measured is taken."
    )
    precision: Annotated[Precision, LowerCase] = Field(
        "auto", description="Of the network: a reduced one only where it was checked on this input."
    )
    precision_bound: float = Field(
        1e-2, gt=0, description="Largest difference at 99.9 % of the pixels, over the output's standard deviation."
    )
    memory: ByteSize | None = Field(None, gt=0, description="Memory that the run may use, such as 8GB.")
    workers: int | None = Field(None, ge=1, description="Units in flight: read, computed and written at once.")
    threads: int | None = Field(None, ge=1, description="Threads of the codecs, and of TensorFlow on a CPU.")
    scheduler: str | None = Field(None, description="Address of a Dask scheduler.")
    retries: int = Field(3, ge=0, le=100, description="Attempts after the first one, where reading or writing fails.")
    codec: Codec = Field("auto", description="Compression of the output.")
    shuffle: Shuffle = Field("auto", description="Of bytes or bits before Blosc compresses them.")
    shard: ByteSize | None = Field(None, gt=0, description="Size of the shards of the output, such as 64MB.")
    storage_options: StorageOptions = Field(
        None, exclude=True, description="Credentials and endpoint of object stores; never recorded."
    )
    overwrite: bool = Field(False, description="Start afresh where an output of phbatch exists.")

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
        if self.frames is None:
            return range(count)
        text, indices = self.frames.strip(), range(count)
        if re.fullmatch(r"-?[0-9]+", text):
            return indices[int(text) :][:1] if -count <= int(text) else range(0)
        match = re.fullmatch(r"(-?[0-9]+)?:(-?[0-9]+)?(?::([0-9]+)?)?", text)
        if match is None or (match[3] is not None and int(match[3]) == 0):
            raise ValueError(f"frames {self.frames!r} are neither a number nor START:STOP[:STEP] with STEP from 1")
        return indices[slice(*(int(part) if part else None for part in match.groups()))]


SETTING_NAMES = frozenset(field.alias or name for name, field in RunSettings.model_fields.items())
"""Names of the settings, as a person gives them and as they are recorded."""


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
