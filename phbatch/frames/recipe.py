"""The recipe: everything that the pixels of a frame go through, and why the input is read as often as it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from phbatch.frames.light import Preparation
from phbatch.frames.measure import percentiles_for
from phbatch.kernels.intensity import Packing
from phbatch.kernels.tiling import TilePlan
from phbatch.network.steps import Steps
from phbatch.words.axes import FrameKey
from phbatch.words.choices import FLOAT32, BadFrames, Precision, Scope
from phbatch.words.normalization import Normalization


@dataclass(frozen=True)
class Recipe:
    """Everything that the pixels of a frame go through.

    Attributes
    ----------
    rule : Normalization
        Of the intensities.
    dtype : str
        Of the output.
    rescale : bool
        Whether the normalization is undone at the end.
    volumes : bool
        Whether a frame is a ``zyx`` volume, for a 3D network.
    stacked : bool
        Whether all channels go into the network together; else each is a frame of its own.
    n_output : int
        Channels of the mean that one frame gives.
    tiles : TilePlan or None
        How a frame is cut for the network; None where there is no network.
    batch : int
        Tiles per call of the network.
    network : str
        Form of the network (`phbatch.network.forms`), or "auto" until it is settled.
    uncertainty : bool
        Whether the scale of a probabilistic network is kept.
    smooth_time : int
        Odd number of frames of the running median of the statistic over time.
    bad_frames : {"normalize", "skip", "copy"}
        Whether a flagged frame is restored all the same, left at zero, or copied unchanged.
    scope : {"image", "position", "series"}
        Whose pixels the statistic is of: the frame's own, those of all good frames of its channel and plane, or those
        of all good frames of its channel.
    percentiles : tuple of float
        Measured besides those of the rule and the default ones.
    given : bool
        Whether the statistics come from a table and nothing is measured.
    precision : str
        Of the network, see `phbatch.network.tuning.precision`; "auto" until it is settled.
    preparation : Preparation
        What is done to a frame before it is measured and normalized.
    upscale_to : (y, x), or None
        Lengths that the restored frame is brought back to, bilinearly.
    windows : str
        Dtype in which pixels go to the network's device.
    packing : Packing or None
        What the integers of the output stand for; None where they are the values themselves.
    copies : bool
        Whether pixels are copied as they are.
    copied : tuple of int
        Channels of the input of which that is so, where others are restored.
    in_bands : bool
        Whether frames are restored band by band, so that they are measured before.
    """

    rule: Normalization
    dtype: str = "float32"
    rescale: bool = False
    volumes: bool = False
    stacked: bool = False
    n_output: int = 1
    tiles: TilePlan | None = None
    batch: int = 1
    network: str = "plain"
    uncertainty: bool = False
    smooth_time: int = 1
    bad_frames: BadFrames = "normalize"
    scope: Scope = "image"
    percentiles: tuple[float, ...] = ()
    given: bool = False
    precision: Precision = FLOAT32
    preparation: Preparation = field(default_factory=Preparation)
    upscale_to: tuple[int, int] | None = None
    windows: str = "float32"
    packing: Packing | None = None
    copies: bool = False
    copied: tuple[int, ...] = ()
    in_bands: bool = False

    @property
    def steps(self) -> Steps:
        """What is done on the network's device; the cast is not where the result is brought to another grid first."""
        last = self.upscale_to is None
        dtype, packing = (self.dtype, self.packing or Packing()) if last else ("float32", Packing())
        return Steps(
            self.windows, dtype, self.n_output, self.uncertainty, self.rescale, low=packing.low, gain=packing.gain
        )

    @property
    def all_percentiles(self) -> tuple[float, ...]:
        """What is measured of a frame."""
        return percentiles_for(self.rule.pmin, self.rule.pmax, self.percentiles)

    @property
    def passes(self) -> int:
        """How often the input is read: 1, and more where the statistics of a frame depend on other frames.

        With a running median over time or a judgement of the series all frames are measured before any is restored;
        with pooling the good ones are read once more, since the judgement comes before the pooling.
        """
        if self.given:
            return 1
        if self.scope != "image":
            return 3
        return 2 if self.depends_on_series or self.in_bands else 1

    @property
    def depends_on_series(self) -> bool:
        """Whether what becomes of a frame depends on others of its channel and plane."""
        return self.scope != "image" or self.smooth_time > 1 or self.bad_frames != "normalize"

    @property
    def reason(self) -> str:
        """Why the input is read as often as it is."""
        if self.given:
            return "the statistics are given"
        if self.scope != "image":
            return f"statistics are pooled by {self.scope}, of frames that are judged first"
        if self.depends_on_series:
            return "statistics are smoothed or frames judged over time"
        if self.in_bands:
            return "frames are larger than memory, and measured before they are restored in bands"
        return "the statistics of a frame are its own"

    def output_lengths(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """Lengths along y and x of the output, from those of the input."""
        return self.upscale_to or tuple(-(-length // self.preparation.downscale) for length in lengths)

    def pool_of(self, key: FrameKey) -> tuple[int, int | None]:
        """Whose pixels a frame is pooled with: those of its channel and plane over time, or of its whole channel."""
        return key.c, key.z if self.scope == "position" else None
