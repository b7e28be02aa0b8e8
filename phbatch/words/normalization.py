"""The rule that brings every frame to the same intensities; it cannot hold an invalid state."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from phbatch.words.wording import say

METHODS = ("median", "mode", "percentile", "minmax", "fixed", "zscore", "none")
"""Normalizations that phbatch has of its own."""

NORMALIZERS_GROUP = "phbatch.normalizers"
"""Entry points of installed packages that add normalizations: see `phbatch.kernels.intensity.Normalizer`."""


def _known_method(name: str) -> str:
    if name in METHODS:
        return name
    added = sorted(entry_points(group=NORMALIZERS_GROUP).names)
    if name not in added:
        raise ValueError(f"the normalizations are {', '.join([*METHODS, *added])}")
    return name


Method = Annotated[str, AfterValidator(_known_method)]
"""How a frame is normalized: one of `METHODS`, or a name that an installed package registered."""


Factor = Annotated[float, Field(gt=0)]
Sigma = Annotated[float, Field(ge=0, le=100)]
Percentile = Annotated[float, Field(ge=0, le=100)]
Divisor = Annotated[float, Field(gt=0)]


FACTOR, SIGMA, PMIN, PMAX = 1.0, 2.0, 2.0, 99.8
"""Defaults; the percentiles are those of CSBDeep."""


class Frozen(BaseModel):
    """Values that do not change; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class Normalization(Frozen):
    """The rule that brings every frame to the same intensities, in training and in inference.

    Examples
    --------
    >>> Normalization(method="mode", factor=10).describe()
    'mode, factor 10, sigma 2 px'
    """

    method: Method = Field("median", description="Which statistic normalizes a frame.")
    factor: Factor = Field(FACTOR, description="Multiple of the median or mode that becomes 1.")
    sigma: Sigma = Field(SIGMA, description="Smoothing before median and mode: standard deviation of a Gaussian.")
    pmin: Percentile = Field(PMIN, description="Lower percentile.")
    pmax: Percentile = Field(PMAX, description="Upper percentile.")
    value: Divisor | None = Field(None, description="Divisor of the method fixed.")

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
