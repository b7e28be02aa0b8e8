"""Settings that cannot hold an invalid state: frozen, each field described, unknown keys refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, ByteSize, Field, ValidationError, model_validator

from phbatch.words.choices import (
    MOST_WORKERS,
    Codec,
    LevelMethod,
    OmeZarr,
    OutputDtype,
    Shuffle,
)
from phbatch.words.errors import UsageError
from phbatch.words.given import (
    AUTO,
    DEVICES,
    DURATION,
    LOWER_CASE,
    PATH,
    RANGE,
    first_problem,
    require_positive,
    select_indices,
)
from phbatch.words.pixel_settings import AGAIN, CONVERTS, IMAGES, RULE, PixelSettings
from phbatch.words.rows import Function, Row, describe, read_rows, setting
from phbatch.words.storing import require_one_range
from phbatch.words.wording import learn_flags, say

if TYPE_CHECKING:
    from typing import Unpack

    from phbatch.words.option_types import RunOptions

Ordinary = Annotated[float, Field(ge=-1e30, le=1e30)]
"""What float32 can hold, with room to calculate."""


_ANYWHERE: tuple[Function, ...] = ("convert", "statistics", "verify", "repair")
_CONFIGURED = "$DASK_SCHEDULER_ADDRESS, or this process"


class RunSettings(PixelSettings):
    """What a user asks for; None leaves the choice to phbatch.

    Each field is the row of one setting: all that is said of it anywhere comes from there.

    Examples
    --------
    >>> RunSettings(memory="8GB").memory
    8000000000
    """

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
        "auto", "Compression of the output.", Row("output", "numbers", CONVERTS, unset="auto, which is blosc-lz4")
    )
    shuffle: Shuffle = setting(
        "auto",
        "Of bytes or bits before Blosc compresses them; auto takes bits for Zstandard and for 16 bit integers.",
        Row("output", "numbers", CONVERTS),
    )
    shard: Annotated[Literal["auto"] | ByteSize | None, LOWER_CASE, AfterValidator(require_positive)] = setting(
        None,
        "Size of the shards of the output, such as 64MB; auto is 64MB, none in OME-Zarr 0.4.",
        Row("output", "numbers", CONVERTS, "AUTO|SIZE", given="int | str", unset="no shards"),
    )
    levels: Annotated[int | None, AUTO] = setting(
        None,
        "Resolutions of the output: 1 is no pyramid.",
        Row(
            "output",
            "numbers",
            CONVERTS,
            "AUTO|N",
            given="int | str",
            unset="auto: halved along y and x until none is above 1024 px",
            stands="settings.levels",
        ),
        ge=1,
    )
    level_method: LevelMethod = setting(
        "mean",
        "Pixels of coarser levels: means of those of the image, or the most frequent one (labels).",
        Row("output", "numbers", CONVERTS),
    )
    ome_zarr: OmeZarr | None = setting(
        None,
        "Version of OME-Zarr to write: 0.5 is Zarr 3, and 0.4 is Zarr 2.",
        Row("output", "numbers", CONVERTS, unset="the input's, or 0.5"),
    )
    overwrite: bool = setting(
        False, "Start afresh where an output of phbatch exists.", Row("output", "place", (*CONVERTS, "train"))
    )

    follow: bool = setting(
        False,
        "Restore frames as the microscope writes them, until no more come.",
        Row("input", "place"),
    )
    follow_timeout: Annotated[float, DURATION] = setting(
        1800.0,
        "With --follow: how long nothing new may come before the input counts as ended, such as 30m.",
        Row("input", "place", (), "TIME", given="float | str", unset="30m"),
        gt=0,
        allow_inf_nan=False,
    )
    follow_until: Annotated[str | None, PATH] = setting(
        None,
        "With --follow: a file whose appearance says that the input is ended.",
        Row("input", "place", (), "FILE", given="str | Path"),
    )

    memory: ByteSize | None = setting(
        None,
        "Memory that may be used, such as 8GB.",
        Row(
            "machine",
            "speed",
            (*IMAGES, *AGAIN, "restore"),
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
            ("convert", "statistics", *AGAIN),
            "N",
            unset=f"one per core up to {MOST_WORKERS}, as the memory allows",
            flags=("--inflight",),
        ),
        ge=1,
    )
    threads: int | None = setting(
        None,
        "Threads of the codecs, and of TensorFlow on a CPU.",
        Row("machine", "speed", ("convert", "statistics", "run_part", "train"), "N", unset="all cores"),
        ge=1,
    )
    scheduler: Annotated[str | None, PATH] = setting(
        None,
        "Dask scheduler to run on: its address, or the file that it writes.",
        Row("machine", "place", _ANYWHERE, "ADDRESS|FILE", given="str | Path", unset=_CONFIGURED),
    )
    wait_workers: Annotated[float, DURATION] = setting(
        600.0,
        "How long a run waits for workers of a Dask cluster that has none, such as 10m.",
        Row("machine", "speed", _ANYWHERE, "TIME", given="float | str", unset="10m"),
        ge=0,
        allow_inf_nan=False,
    )
    devices: Annotated[tuple[str, ...] | None, DEVICES] = setting(
        None,
        "GPUs of this machine, by their numbers, with a process each.",
        Row("machine", "speed", (), "ALL|N,N", given="str | int | Sequence[str | int]", unset="all that are visible"),
    )
    retries: int = setting(
        3,
        "Attempts after the first one, where a unit fails to be read or written.",
        Row("machine", "speed", ("convert", "statistics", *AGAIN), "N"),
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
        if self.others == "copy" and self.channel is None:
            raise ValueError(say("--others copy says what becomes of channels that --channel leaves: add --channel"))
        if self.upscale_back and self.downscale == 1:
            raise ValueError(say("--upscale-back needs a downscale of 2 or more: add --downscale, or leave it out"))
        if self.devices is not None and self.scheduler is not None:
            raise ValueError(say("--devices are of this machine and --scheduler of a cluster: leave one out"))
        if self.illumination_mode != "divide" and self.illumination == "none":
            raise ValueError(say("--illumination-mode needs an illumination: add --illumination, or leave it out"))
        if self.shuffle != "auto" and self.codec in ("zstd", "none"):
            raise ValueError(f"codec {self.codec} does not shuffle: leave shuffle out, or choose a Blosc codec")
        if not self.follow and (self.follow_until is not None or "follow_timeout" in self.model_fields_set):
            raise ValueError(say("--follow-timeout and --follow-until say when --follow ends: add --follow"))
        require_one_range(self.dtype, self.value_range, self.scale, rescale=self.rescale)
        return self

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
    setting.row.stands.removeprefix(RULE): setting
    for setting in SETTINGS.values()
    if setting.row.stands.startswith(RULE)
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
