"""The folder of a model that is trained: CSBDeep's files, and ``phbatch.json`` with what a run must know."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from phbatch.network.learning import REDUCE_RATE
from phbatch.network.model import SIDECAR
from phbatch.network.saving import BEST, LAST, care_config, encode_weights
from phbatch.network.unet import NetworkConfig
from phbatch.network.weights import Weights
from phbatch.places.durable import replace_file
from phbatch.training.checkpoint import CHECKPOINT, Progress
from phbatch.training.pairs import Rule
from phbatch.words.choices import ESTIMATED_BACKGROUNDS
from phbatch.words.errors import OutputError
from phbatch.words.training import TrainingSettings

REPORT = "report.html"
"""Name of the page within the folder."""

_OWN = ("config.json", SIDECAR, BEST, LAST, CHECKPOINT, REPORT)
_LIBRARIES = ("phbatch", "keras", "numpy")


def require_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds something else than a training; with `overwrite` a training of before goes.

    Raises
    ------
    OutputError
        It holds other files, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise OutputError(f"{folder} cannot be made a folder ({error.strerror}); choose another place.") from error
    if not names:
        return
    if CHECKPOINT not in names and not set(names) <= set(_OWN):
        strangers = ", ".join(name for name in names if name not in _OWN)
        raise OutputError(f"{folder} holds {strangers[:80]}, which no training made; choose another place.")
    if CHECKPOINT not in names and BEST in names and not overwrite:
        raise OutputError(f"{folder} holds a model without a training to go on with; choose another place.")
    if overwrite:
        for name in _OWN:
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "logs", ignore_errors=True)


def write_config(folder: Path, config: NetworkConfig, training: TrainingSettings) -> None:
    """CSBDeep's ``config.json``."""
    document = care_config(
        config,
        loss=training.loss_name,
        epochs=training.epochs,
        steps=training.steps,
        batch=training.batch,
        rate=training.rate,
        reduce_rate=REDUCE_RATE,
    )
    replace_file(folder / "config.json", (json.dumps(document) + "\n").encode())


def write_weights(folder: Path, name: str, config: NetworkConfig, weights: Weights) -> None:
    """A weight file of CSBDeep."""
    replace_file(folder / name, encode_weights(config, weights))


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """``phbatch.json``."""
    replace_file(folder / SIDECAR, (json.dumps(card, indent=1) + "\n").encode())


def make_card(
    folder: Path,
    rule: Rule,
    training: TrainingSettings,
    progress: Progress,
    data: Mapping[str, Any],
    pixel_size_um: float | None,
) -> dict[str, Any]:
    """What a run must know of a model, and what a reader wants to.

    Parameters
    ----------
    folder : Path
        Its last part is the name.
    rule : Rule
        Of the training, which a run takes.
    training : TrainingSettings
        What was asked for.
    progress : Progress
        How far it is.
    data : mapping
        What it is trained on.
    pixel_size_um : float or None
        Of what the network sees.
    """
    preparation, best = rule.preparation, progress.best
    light = preparation.illumination
    asked = training.model_dump(mode="json", by_alias=True, exclude={"clean", "simulate", "degrade"})
    card: dict[str, Any] = {
        "format": 1,
        "name": folder.name,
        "normalization": rule.normalization.model_dump(exclude_none=True),
        "target": rule.target,
        "downscale": preparation.downscale,
        "illumination": light if light in ("none", *ESTIMATED_BACKGROUNDS) else "a profile",
        "illumination_mode": preparation.mode,
    }
    if pixel_size_um is not None:
        card["pixel_size_um"] = round(pixel_size_um * preparation.downscale, 6)
    card["training"] = {
        **asked,
        "data": data,
        "epochs": len(progress.epochs),
        "minutes": round(sum(epoch.seconds for epoch in progress.epochs) / 60, 1),
        "best_epoch": None if best is None else best + 1,
        "validation_loss": None if best is None else round(progress.epochs[best].validation_loss, 8),
        "versions": {name: version(name) for name in _LIBRARIES},
        "fingerprint": dict(progress.fingerprint),
    }
    return card


def settings_identity(config: NetworkConfig, rule: Rule, training: TrainingSettings) -> dict[str, Any]:
    """What two calls must share to be one training: all but the number of epochs."""
    asked = training.model_dump(mode="json", by_alias=True, exclude={"epochs", "clean", "simulate"})
    return {
        "network": asdict(config),
        "rule": rule.normalization.model_dump(mode="json"),
        "preparation": asdict(rule.preparation),
        "target": rule.target,
        "settings": asked,
    }
