"""A training from the first look at its pairs to a model that a run takes: refuse, plan, learn, judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from math import ceil, prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from phbatch.computing.machine import available_bytes
from phbatch.frames.light import Preparation
from phbatch.network.backend import choose_backend, limit_network_threads
from phbatch.network.learning import Batch, Learner
from phbatch.network.saving import BEST, LAST, draw_weights
from phbatch.network.unet import NetworkConfig
from phbatch.network.weights import read_weights
from phbatch.planning.idle import require_effect
from phbatch.planning.rule import resolve_rule
from phbatch.training.checkpoint import Epoch, Progress, find_difference, read_checkpoint, write_checkpoint
from phbatch.training.degrade import degrade_scenes
from phbatch.training.folder import (
    make_card,
    require_folder,
    settings_identity,
    write_card,
    write_config,
    write_weights,
)
from phbatch.training.loop import learn
from phbatch.training.opening import open_clean, open_pairs
from phbatch.training.pairs import FrameAt, Pairs, Rule, split
from phbatch.training.patches import PatchPlan, PatchStream
from phbatch.training.scenes import Scene
from phbatch.training.scores import Example, judge_epochs, score
from phbatch.training.simulated import simulated_scenes
from phbatch.words.errors import InputError, OutputError, UsageError
from phbatch.words.events import Listener, Notice, StageStarted, Stop
from phbatch.words.settings import RunSettings
from phbatch.words.training import TrainingSettings

_SMALL_PATCH = 64
_HELD_BATCHES = 16
_MOST_BYTES = 1 << 29  # of frames in memory
_EXPOSURES = 0.05
_BACKGROUND_OFF = 0.05

Paths = Sequence[tuple[str | Path, str | Path]]


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What `phbatch.train` made.

    Attributes
    ----------
    model : str
        Folder, which `phbatch.run` takes as its `model`, and CSBDeep as a folder of its own.
    epochs : int
        That were done, in all calls together.
    best_epoch : int
        Whose weights are those of the model.
    validation_loss : float
        Of that epoch.
    psnr_db : (float, float)
        Of frames that were held back, on average: before, and restored.
    frames, validation_frames : int
        That were learnt from, and held back.
    advice : tuple of str
        Whether it overfits, and what to change.
    history : tuple of Epoch
        Losses, rate and seconds of each epoch.
    examples : tuple of Example
        Windows of frames that were held back.
    report : str or None
        Page with curves and pictures.
    """

    model: str
    epochs: int
    best_epoch: int
    validation_loss: float
    psnr_db: tuple[float, float]
    frames: int
    validation_frames: int
    advice: tuple[str, ...]
    history: tuple[Epoch, ...] = field(default=(), repr=False)
    examples: tuple[Example, ...] = field(default=(), repr=False)
    card: Mapping[str, Any] = field(default_factory=dict, repr=False)
    report: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names = ("model", "epochs", "best_epoch", "validation_loss", "frames", "validation_frames", "report")
        found: dict[str, Any] = {name: getattr(self, name) for name in names}
        return found | {"psnr_db": list(self.psnr_db), "advice": list(self.advice)}


@dataclass(frozen=True)
class _Planned:
    """All that is decided before the first step."""

    pairs: Pairs
    config: NetworkConfig
    train: list[FrameAt]
    held: list[FrameAt]
    plan: PatchPlan
    fingerprint: dict[str, Any]
    data: dict[str, Any]

    @property
    def keeps(self) -> bool:
        return not any(scene.varies for scene in self.pairs.scenes)


def train_model(
    paths: Paths, output: Path, settings: RunSettings, training: TrainingSettings, stop: Stop, listener: Listener
) -> TrainingResult:
    """Train a network, or go on with what was begun in its folder; see `phbatch.train`."""
    _require_sources(paths, training)
    rule, notices = resolve_rule(settings, None)
    require_effect(settings, rule, network=True, table=False)
    for notice in notices:
        listener(notice)
    listener(StageStarted("looking at the pairs"))
    with _scenes(paths, settings, training, listener) as scenes:
        preparation = Preparation(settings.downscale, settings.illumination, settings.illumination_mode)
        target = _choose_target(scenes, Rule(rule, preparation), training)
        if rule.method == "percentile" and training.target == "auto":
            listener(
                Notice(
                    "each image of a pair is normalized by its own percentiles, as CSBDeep does; noise widens those of"
                    " the low frame, and the network learns to amplify what it sees: --target low avoids that.",
                    warning=True,
                )
            )
        pairs = Pairs(scenes, Rule(rule, preparation, target), training.seed)
        planned = _plan(pairs, settings, training, listener)
        require_folder(output, overwrite=settings.overwrite)
        if settings.threads is not None:
            limit_network_threads(choose_backend(settings.backend), settings.threads)
        return _train(planned, output, settings, training, stop, listener)


def _require_sources(paths: Paths, training: TrainingSettings) -> None:
    ways = [bool(paths), training.clean is not None, training.simulate is not None]
    if sum(ways) != 1:
        raise UsageError(
            f"frames come from {'nowhere' if not any(ways) else 'several places'}; give LOW and HIGH, or --clean HIGH,"
            " or --simulate 400, one of them."
        )


@contextmanager
def _scenes(
    paths: Paths, settings: RunSettings, training: TrainingSettings, listener: Listener
) -> Iterator[list[Scene]]:
    if training.simulate is not None:
        if training.dims == "3" or settings.downscale > 1:
            raise UsageError("--simulate makes planes on the grid of the network; leave --dims and --downscale out.")
        yield simulated_scenes(training.simulate, 2 * training.patch, training.seed)
    elif training.clean is not None:
        with open_clean(training.clean, settings, training, listener) as scenes:
            yield degrade_scenes(scenes, training.degrade, listener)[0]
    else:
        with open_pairs(paths, settings, training, listener) as scenes:
            yield scenes


def _choose_target(scenes: Sequence[Scene], rule: Rule, training: TrainingSettings) -> Literal["low", "own"]:
    """Whose statistic normalizes high frames: their own with percentile, as CSBDeep, and where exposures differ."""
    if training.target != "auto":
        return training.target
    if rule.normalization.method == "percentile":
        return "own"
    pairs = Pairs(scenes, Rule(rule.normalization, rule.preparation, "own"), training.seed)
    frames = pairs.frames
    picked = np.unique(np.linspace(0, len(frames) - 1, 4).round().astype(int))
    found = [pair.scales for index in picked if (pair := pairs.read(frames[int(index)])) is not None]
    ratios = [high / low for low, high in found]
    return "own" if ratios and abs(float(np.median(ratios)) - 1) > _EXPOSURES else "low"


def _plan(pairs: Pairs, settings: RunSettings, training: TrainingSettings, listener: Listener) -> _Planned:
    channels = {scene.channels for scene in pairs.scenes}
    if len(channels) > 1:
        raise InputError(f"positions have {sorted(channels)} channels (low, high); train on those of one kind.")
    n_in, n_out = channels.pop()
    config = NetworkConfig(
        n_dim=int(training.dims),
        n_channel_in=n_in,
        n_channel_out=n_out,
        depth=training.depth,
        kernel=training.kernel,
        n_first=training.filters,
        residual=n_in == n_out if training.residual is None else training.residual,
        last_activation=training.activation,
        probabilistic=training.probabilistic,
    )
    if config.residual and n_in != n_out:
        raise UsageError(f"--residual adds {n_in} channels to {n_out}; leave it out.")
    shape = (training.patch, training.patch) if config.n_dim == 2 else (training.patch_depth, *(training.patch,) * 2)
    frames = pairs.frames
    smallest = min((pairs.lengths(frame) for frame in frames), key=min)
    if any(length < side for length, side in zip(smallest, shape, strict=True)):
        raise UsageError(
            f"--patch {training.patch} is larger than a frame of {' x '.join(map(str, smallest))} pixels; give"
            f" {min(smallest[-2:]) // config.grid * config.grid} or less."
        )
    train, held = split(frames, training.validation)
    if not train or not held:
        raise InputError(
            f"{len(frames)} frames of {len(pairs.scenes)} positions leave none to validate on, and patches of one frame"
            " tell nothing; give two times or more, or five positions or more (--pair)."
        )
    lengths = [pairs.lengths(frame) for frame in train]
    plan = PatchPlan(shape, training.background, training.batch, training.seed, _frames_at_once(pairs, settings))
    _say_plan(plan, config, lengths, len(held), training, listener)
    identity = {"data": [dict(scene.identity) | {"frames": len(scene.keys)} for scene in pairs.scenes]}
    data = {
        "positions": len(pairs.scenes),
        "frames": len(train),
        "validation_frames": len(held),
        "names": [scene.name for scene in pairs.scenes[:20]],
        "source": "simulated" if training.simulate else "degraded" if training.clean else "pairs",
        "registered": [
            [scene.name, round(scene.shift.y, 2), round(scene.shift.x, 2)] for scene in pairs.scenes if scene.shift
        ],
    }
    if training.clean:
        data["degrade"] = list(training.degrade)
    fingerprint = settings_identity(config, pairs.rule, training) | identity
    return _Planned(pairs, config, train, held, plan, fingerprint, data)


def _frames_at_once(pairs: Pairs, settings: RunSettings) -> int:
    """As many frames as a part of the memory holds, normalized, both of a pair."""
    allowed = int(settings.memory) if settings.memory is not None else available_bytes() // 2
    frames = pairs.frames
    largest = max(
        prod(pairs.lengths(frame)) * sum(pairs.scenes[frame.scene].channels) for frame in (frames[0], frames[-1])
    )
    return max(1, min(allowed // 4, _MOST_BYTES) // (4 * largest))


def _say_plan(
    plan: PatchPlan,
    config: NetworkConfig,
    lengths: Sequence[tuple[int, ...]],
    held: int,
    training: TrainingSettings,
    listener: Listener,
) -> None:
    epochs = plan.epochs_per_turn(lengths, training.steps)
    often = f"once in {epochs:.3g} epochs" if epochs >= 1 else f"{1 / epochs:.3g} times an epoch"
    listener(
        Notice(
            f"{len(lengths)} frames to learn from and {held} held back; a frame gives {plan.of_frame(lengths[0])}"
            f" patches, so that each pixel is seen about {often}."
        )
    )
    if training.patch < _SMALL_PATCH:
        listener(
            Notice(
                f"--patch {training.patch} is small: each pixel depends on {config.halo} px around it, which in such a"
                " patch is mostly the zeros beyond its edge; 128 or more is better.",
                warning=True,
            )
        )


def _train(
    planned: _Planned, output: Path, settings: RunSettings, training: TrainingSettings, stop: Stop, listener: Listener
) -> TrainingResult:
    config, fingerprint = planned.config, planned.fingerprint
    found = read_checkpoint(output)
    progress = Progress(fingerprint)
    if found is not None:
        progress = found[0]
        difference = find_difference(progress.fingerprint, fingerprint)
        if difference is not None:
            raise OutputError(
                f"{output} holds another training: {difference}; give that again, another MODEL, or --overwrite."
            )
        done = len(progress.epochs)
        more = "nothing is left to do, unless --epochs is raised" if done >= training.epochs else "it goes on after it"
        listener(Notice(f"epoch {done} was finished before, with the optimizer's state: {more}."))
    write_config(output, config, training)
    backend = choose_backend(settings.backend)
    learner = Learner(config, draw_weights(config, training.seed), training.loss_name, training.rate, backend)
    if found is not None:
        learner.set_state(found[1])
    pixel_size = next((scene.pixel_size_um for scene in planned.pairs.scenes if scene.pixel_size_um), None)

    def card(progress: Progress) -> dict[str, Any]:
        return make_card(output, planned.pairs.rule, training, progress, planned.data, pixel_size)

    def keep(progress: Progress, best: bool) -> None:
        weights = learner.weights()
        if best:
            write_weights(output, BEST, config, weights)
        write_weights(output, LAST, config, weights)
        write_card(output, card(progress))
        write_checkpoint(output, progress, learner.state())

    stream = PatchStream(planned.pairs, planned.train, planned.plan, keeps=planned.keeps)
    if len(progress.epochs) < training.epochs:
        progress = learn(
            learner,
            stream,
            _held_patches(planned),
            progress,
            model=str(output),
            epochs=training.epochs,
            steps=training.steps,
            keep=keep,
            stop=stop,
            listener=listener,
        )
    _say_drawn(stream, training, listener)
    return _finish(planned, learner, output, progress, card(progress))


def _held_patches(planned: _Planned) -> list[Batch]:
    """Patches of the frames that are held back, the same in every epoch."""
    stream = PatchStream(planned.pairs, planned.held, planned.plan, keeps=False)
    total = sum(planned.plan.of_frame(planned.pairs.lengths(frame)) for frame in planned.held)
    count = max(1, min(_HELD_BATCHES, ceil(total / planned.plan.batch)))
    return [batch for batch, _ in islice(stream.batches(), count)]


def _say_drawn(stream: PatchStream, training: TrainingSettings, listener: Listener) -> None:
    """What the patches of this call were, where that is not what was asked for."""
    share = stream.of_background / max(1, stream.drawn)
    if abs(share - training.background) > _BACKGROUND_OFF:
        few = "cells, or none without them to compare with" if share > training.background else "background"
        listener(
            Notice(
                f"{share:.0%} of the patches hold no cells, where {training.background:.0%} were asked for: the frames"
                f" have too few places of {few}."
            )
        )
    if stream.unscaled:
        listener(
            Notice(
                f"{stream.unscaled} readings of frames gave no patch, since the frames have no scale by the rule.",
                warning=True,
            )
        )


def _finish(
    planned: _Planned, learner: Learner, output: Path, progress: Progress, card: dict[str, Any]
) -> TrainingResult:
    best = progress.best
    if best is None:
        raise UsageError(
            f"no epoch of {output} has a validation loss; lower --rate, and start afresh with --overwrite."
        )
    learner.set_weights(read_weights(output / BEST, planned.config))
    examples = score(learner, planned.pairs, planned.held)
    before, after = (float(np.mean([example.psnr[at] for example in examples] or [np.nan])) for at in (0, 1))
    advice = judge_epochs(progress.epochs)
    card |= {
        "evaluation": {
            "data": "frames of this training that were held back, normalized",
            "frames": len(examples),
            "psnr_db": [round(before, 3), round(after, 3)],
        },
        "advice": advice,
    }
    write_card(output, card)
    return TrainingResult(
        model=str(output),
        epochs=len(progress.epochs),
        best_epoch=best + 1,
        validation_loss=progress.epochs[best].validation_loss,
        psnr_db=(before, after),
        frames=len(planned.train),
        validation_frames=len(planned.held),
        advice=tuple(advice),
        history=progress.epochs,
        examples=tuple(examples),
        card=card,
    )
