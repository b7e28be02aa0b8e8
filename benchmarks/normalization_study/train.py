"""Training a network of the study by the objects of `phbatch train`: equal steps, equal first weights for a seed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phbatch.frames.light import Preparation
from phbatch.network.backend import choose_backend
from phbatch.network.learning import Learner
from phbatch.network.saving import BEST, draw_weights
from phbatch.network.unet import NetworkConfig
from phbatch.training.folder import write_card, write_config, write_weights
from phbatch.training.pairs import FrameAt, Pair, Pairs, Rule
from phbatch.training.patches import PatchPlan, PatchStream
from phbatch.training.scenes import Block, Scene
from phbatch.words.axes import FrameKey
from phbatch.words.training import parse_training

from .cells import RULES, Training
from .frames import Sample, training_samples

BACKGROUND = 0.3
"""Share of patches of background, where there are any."""

PIXELS = 8 * 64 * 64
"""Of a step."""

ILLUMINATION = "polynomial"
"""How light is corrected, where it is."""

_LAST = 0.25
"""Share of the steps at the end that take a tenth of the rate."""


@dataclass(frozen=True)
class Effort:
    """What all networks share."""

    steps: int = 1000
    rate: float = 1e-3
    filters: int = 16
    frames: int = 36


@dataclass(frozen=True)
class Trained:
    """A model folder, what was seen in training, and the mean loss of the last steps, in normalized units."""

    folder: Path
    background_share: float
    loss: float


def train(training: Training, effort: Effort, folder: Path) -> Trained:
    """Train, or take what was trained before: the card is written last."""
    card = folder / "phbatch.json"
    if not card.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _train(training, effort, folder)
    study = json.loads(card.read_text(encoding="utf-8"))["study"]
    return Trained(folder, study["background_share"], study["loss"])


def _train(training: Training, effort: Effort, folder: Path) -> None:
    import keras

    rule = RULES[training.rule]
    target: Literal["low", "own"] = "own" if rule.method == "percentile" and training.target == "auto" else "low"
    light = ILLUMINATION if training.light else "none"
    samples = training_samples(training.densities, training.seed, empty=training.background, count=effort.frames)
    pairs = KnownCells(
        samples,
        training.downscale,
        Pairs([_scene(samples)], Rule(rule, Preparation(training.downscale, light), target), training.seed),
    )
    batch = PIXELS // training.patch**2
    share = BACKGROUND if training.background else 0.0
    plan = PatchPlan((training.patch, training.patch), share, batch, training.seed, len(samples))
    stream = PatchStream(pairs, pairs.pairs.frames, plan, keeps=True)
    config = NetworkConfig(2, 1, 1, 2, 3, effort.filters, True, "linear", training.probabilistic)
    loss: Literal["mae", "laplace"] = "laplace" if training.probabilistic else "mae"
    learner = Learner(config, draw_weights(config, training.seed), loss, effort.rate, choose_backend("auto"))
    losses, steps = list[float](), effort.steps * training.longer
    for step, (patches, _) in zip(range(steps), stream.batches(), strict=False):
        if step == round((1 - _LAST) * steps):
            learner.network.optimizer.learning_rate = effort.rate / 10
        losses.append(learner.learn(patches))
    asked: dict[str, Any] = {
        "kernel": 3, "filters": effort.filters, "probabilistic": training.probabilistic, "epochs": 1,
        "steps": steps, "batch": batch, "patch": training.patch, "rate": effort.rate,
    }  # fmt: skip
    write_config(folder, config, parse_training(asked))
    write_weights(folder, BEST, config, learner.weights())
    study = {"background_share": stream.of_background / stream.drawn, "loss": float(np.mean(losses[-50:]))}
    write_card(folder, {"format": 1, "normalization": rule.model_dump(exclude_none=True), "study": study})
    del learner
    keras.backend.clear_session()


@dataclass(frozen=True, eq=False)
class KnownCells:
    """Pairs of which it is known where the cells are: `phbatch train` estimates it, and cannot in crowded frames."""

    samples: list[Sample]
    downscale: int
    pairs: Pairs

    def lengths(self, frame: FrameAt) -> tuple[int, ...]:
        """Along y and x."""
        return self.pairs.lengths(frame)

    def read(self, frame: FrameAt, turn: int) -> Pair | None:
        """A normalized pair."""
        pair = self.pairs.read(frame, turn)
        cells = self.samples[frame.key.t].cells[:: self.downscale, :: self.downscale]
        return None if pair is None else replace(pair, cells=cells)


def _scene(samples: list[Sample]) -> Scene:
    def read(key: FrameKey, random: np.random.Generator) -> tuple[Block, Block]:
        sample = samples[key.t]
        return _block(sample.noisy), _block(sample.truth)

    return Scene(
        name="simulated",
        keys=[FrameKey(t, 0, 0) for t in range(len(samples))],
        lengths=(1, *samples[0].noisy.shape),
        channels=(1, 1),
        read=read,
    )


def _block(image: NDArray[Any]) -> Block:
    return image[np.newaxis, np.newaxis, np.newaxis]
