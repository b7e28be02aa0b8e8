"""How well a network does on frames that it did not learn from, and whether it learnt them by heart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phbatch.kernels.residual import photon_curve
from phbatch.network.learning import Learner
from phbatch.training.checkpoint import Epoch
from phbatch.training.pairs import FrameAt, Pair, Pairs

SIDE = 512
"""Largest side of what is scored and shown of a frame, in pixels."""

FRAMES = 6
"""That are scored, at most."""

WORSE = 1.05
"""Validation loss at the end over the lowest one from which on a network has learnt frames by heart."""

GAP = 1.5
"""Validation loss over that of the training from which on the two differ much."""

_LAST = 0.1  # of the epochs, over which a loss that still falls is looked for

FloatImage = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Example:
    """A window of a validation frame, normalized.

    Attributes
    ----------
    name : str
        Position and frame.
    low, restored, high : (y, x) ndarray of float32
        The middle plane of the first channel.
    psnr : (float, float)
        In dB over the range of the high window: of the low frame, and of the restored one.
    noise : (float, float)
        Standard deviation of the noise in the low and the high window, see `phbatch.kernels.residual.photon_curve`.
    scales : (float, float)
        Counts that became 1, of the low and the high frame.
    """

    name: str
    low: FloatImage
    restored: FloatImage
    high: FloatImage
    psnr: tuple[float, float]
    noise: tuple[float, float]
    scales: tuple[float, float]


def score(learner: Learner, pairs: Pairs, frames: Sequence[FrameAt]) -> list[Example]:
    """Restore windows of some frames with the weights that a learner has."""
    picked = np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))
    found = []
    for index in picked:
        frame = frames[int(index)]
        pair = pairs.read(frame)
        if pair is not None:
            found.append(_score(learner, pair, f"{pairs.scenes[frame.scene].name} {frame.key}"))
    return found


def _score(learner: Learner, pair: Pair, name: str) -> Example:
    grid = learner.config.grid
    window = tuple(_middle(length, grid) for length in pair.low.shape[:-1])
    low, high = pair.low[window], pair.high[window]
    made = learner.predict(low[np.newaxis])[0, ..., : high.shape[-1]]
    inner: tuple[Any, ...] = (
        ...,
        *(slice(edge, length - edge) for edge, length in zip(pair.margin, high.shape[-3:-1], strict=True)),
    )
    planes = [image[..., 0][inner] for image in (low, made, high)]
    span = float(np.ptp(planes[2])) or 1.0
    psnr = [psnr_db(planes[2], image, span) for image in planes[:2]]
    shown = [image if image.ndim == 2 else image[len(image) // 2] for image in planes]
    noise = _noise(shown[0]), _noise(shown[2])
    return Example(name, shown[0], shown[1], shown[2], (psnr[0], psnr[1]), noise, pair.scales)


def _noise(image: FloatImage) -> float:
    offset, slope = photon_curve(image)
    return float(np.sqrt(offset + slope * max(float(np.median(image)), 0.0)))


def psnr_db(truth: FloatImage, image: FloatImage, span: float) -> float:
    """Peak signal to noise ratio over a range."""
    error = float(np.mean((image.astype(np.float64) - truth) ** 2))
    return float(10 * np.log10(span**2 / max(error, 1e-30)))


def _middle(length: int, grid: int) -> slice:
    size = min(length, SIDE) // grid * grid
    start = (length - size) // 2
    return slice(start, start + size)


def judge_epochs(epochs: Sequence[Epoch]) -> list[str]:
    """Whether a network learnt what it saw by heart, whether it was done, and what to change: in sentences.

    Examples
    --------
    >>> falling = [Epoch(1 / n, 1.1 / n, 1e-4, 1.0) for n in range(1, 41)]
    >>> judge_epochs(falling)[-1]
    'The validation loss still fell at the end: more --epochs will lower it further.'
    >>> judge_epochs([*falling, *(Epoch(0.02, 0.03 + n / 1000, 1e-4, 1.0) for n in range(20))])[0][:40]
    'It overfits: from epoch 40 on the valida'
    """
    losses = np.array([epoch.loss for epoch in epochs])
    held = np.array([epoch.validation_loss for epoch in epochs])
    if len(epochs) < 3 or not np.isfinite(held).all():
        return ["Too few epochs to say whether it overfits."]
    best, last = int(held.argmin()), len(held) - 1
    recent = max(1, round(_LAST * len(held)))
    end = float(np.mean(held[-recent:]))
    found = []
    if end > WORSE * held[best] and losses[-1] < losses[best]:
        found.append(
            f"It overfits: from epoch {best + 1} on the validation loss rose to {end / held[best]:.2f} times its lowest"
            " value while that of the training fell, so that the network learnt noise and places by heart. The weights"
            f" that are kept are those of epoch {best + 1}. More frames help most; then a larger --patch, fewer"
            " --filters or a smaller --depth, and fewer --epochs."
        )
    elif held[best] > GAP * losses[best]:
        found.append(
            f"The validation loss is {held[best] / losses[best]:.2f} times that of the training: the frames that are"
            " held back differ from those that were learnt. Train on more positions or times, which show what is"
            " missing."
        )
    else:
        found.append("There is no sign that it overfits: the validation loss stays with that of the training.")
    if best >= last - recent and held[best] < held[max(0, last - 2 * recent)] * 0.99:
        found.append("The validation loss still fell at the end: more --epochs will lower it further.")
    return found
