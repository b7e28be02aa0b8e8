"""Settings of a training that are none of a run: the network, the patches, the steps."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ValidationError, model_validator

from phbatch.words.choices import Loss, Target
from phbatch.words.errors import UsageError
from phbatch.words.given import NAMES, first_problem
from phbatch.words.normalization import Frozen
from phbatch.words.rows import Row, describe, read_rows, setting
from phbatch.words.wording import learn_flags, say

DEGRADATIONS = ("noise", "defocus", "downscale", "flicker")
"""What frames that are made worse may go through."""


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError(f"kernel {kernel} must be odd, so that a pixel is in its middle")
    return kernel


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in DEGRADATIONS:
            raise ValueError(f"{name} is none of {', '.join(DEGRADATIONS)}")
    return names


def _row(metavar: str = "", *, unit: str = "", unset: str = "", given: str = "", numbers: bool = True) -> Row:
    return Row("training", "numbers" if numbers else "place", ("train",), metavar, unit, unset, given=given)


class TrainingSettings(Frozen):
    """What a user asks of a training; the defaults are CSBDeep's where it has them."""

    clean: str | None = setting(
        None, "Good frames alone: the low ones are made of them by --degrade.", _row("PATH", given="str | Path")
    )
    degrade: Annotated[tuple[str, ...], NAMES, AfterValidator(_known)] = setting(
        ("noise",),
        f"What the frames of --clean go through: {', '.join(DEGRADATIONS)}.",
        _row("NAME,...", unset="noise", given="Sequence[str] | str"),
    )
    simulate: int | None = setting(
        None, "Train on N simulated frames of phase contrast and their truth.", _row("N"), ge=2
    )
    dims: Literal["2", "3"] = setting(
        "2", "Dimensions of the network: 2 takes planes, 3 volumes.", _row(given="int | str")
    )
    together: bool = setting(False, "All channels go into the network together.", _row())
    depth: int = setting(2, "Poolings of the network.", _row("N"), ge=1, le=5)
    kernel: Annotated[int, AfterValidator(_odd)] = setting(
        5, "Odd width of its convolutions; 3 is CSBDeep's in 3D.", _row("N", unit="px"), ge=1, le=11
    )
    filters: int = setting(32, "Filters of its first level, doubled at each pooling.", _row("N"), ge=1, le=512)
    probabilistic: bool = setting(False, "Learn the uncertainty of every pixel, too.", _row())
    residual: bool | None = setting(
        None, "Add the input to what the network makes.", _row(unset="where channels in and out are as many")
    )
    activation: Literal["linear", "relu"] = setting(
        "linear", "Of the last layer; relu makes nothing below 0.", _row(given="str")
    )
    loss: Loss | None = setting(
        None, "What is lowered: mae, mse or laplace.", _row("LOSS", unset="mae, or laplace with --probabilistic")
    )
    target: Target = setting(
        "auto",
        "Whose statistic normalizes the high frames: the low ones', which keeps counts, or their own; auto is own with"
        " percentile, as CSBDeep, and where exposures differ.",
        _row(),
    )
    epochs: int = setting(100, "Epochs; a training that is finished goes on with more.", _row("N", numbers=False), ge=1)
    steps: int = setting(400, "Steps of an epoch.", _row("N"), ge=1)
    batch: int = setting(16, "Patches of a step.", _row("N"), ge=1)
    patch: int = setting(128, "Side of a patch.", _row("N", unit="px"), ge=8)
    patch_depth: int = setting(16, "Planes of a patch of a 3D network.", _row("N"), ge=2)
    background: float = setting(0.2, "Share of patches without cells.", _row("SHARE"), ge=0, le=1)
    rate: float = setting(4e-4, "Learning rate to begin with; halved on a plateau.", _row("R"), gt=0, le=1)
    validation: float = setting(
        0.1, "Share of the positions, or of the frames of each, to validate on.", _row("SHARE"), gt=0, le=0.5
    )
    registers: bool = setting(
        False, "Move high frames onto the low ones where they are shifted.", _row(), alias="register"
    )
    seed: int = setting(0, "Of everything that is drawn.", _row("N"), ge=0)

    @model_validator(mode="after")
    def _check(self) -> TrainingSettings:
        if self.clean is not None and self.simulate is not None:
            raise ValueError(say("--clean and --simulate are both where frames come from: leave one out"))
        if "degrade" in self.model_fields_set and self.clean is None:
            raise ValueError(say("--degrade makes low frames of those of --clean: add --clean, or leave it out"))
        if self.patch % (1 << self.depth) or (self.dims == "3" and self.patch_depth % (1 << self.depth)):
            raise ValueError(
                f"patch {self.patch} and patch_depth {self.patch_depth} must be multiples of {1 << self.depth}, which"
                f" {self.depth} poolings need"
            )
        if self.probabilistic and self.loss not in (None, "laplace"):
            raise ValueError(say("--probabilistic learns by the loss laplace: leave --loss out"))
        if not self.probabilistic and self.loss == "laplace":
            raise ValueError(say("--loss laplace needs a scale: add --probabilistic"))
        return self

    @property
    def loss_name(self) -> Loss:
        """The loss that is lowered."""
        return self.loss or ("laplace" if self.probabilistic else "mae")


TRAINING = read_rows(TrainingSettings)
"""The table of these settings."""

TrainingSettings.__doc__ = (TrainingSettings.__doc__ or "") + describe(TRAINING)

learn_flags(name for name, one in TRAINING.items() if one.is_flag)


def parse_training(options: dict[str, Any]) -> TrainingSettings:
    """Settings from options as a person wrote them; None and missing are the same.

    Raises
    ------
    UsageError
        One sentence on the first option that is wrong.

    Examples
    --------
    >>> parse_training({"patch": 64, "loss": None}).loss_name
    'mae'
    """
    given = {name: str(value) if name == "clean" else value for name, value in options.items() if value is not None}
    if "dims" in given:
        given["dims"] = str(given["dims"])
    try:
        return TrainingSettings(**given)
    except ValidationError as error:
        raise UsageError(first_problem(error)) from error
