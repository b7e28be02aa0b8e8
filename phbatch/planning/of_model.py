"""Light and averages of a run that its model was trained with."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import ValidationError

from phbatch.network.model import Model
from phbatch.words.choices import ESTIMATED_BACKGROUNDS, FRAME_BACKGROUNDS
from phbatch.words.errors import ModelError
from phbatch.words.events import Notice
from phbatch.words.given import first_problem
from phbatch.words.settings import RunSettings


class ModelledSettings(NamedTuple):
    """Settings with what a model was trained with, and what is to be said of it."""

    settings: RunSettings
    notices: tuple[Notice, ...]


_PREPARES = frozenset(("downscale", "illumination", "illumination_mode", "upscale_back"))


def with_model(settings: RunSettings, model: Model | None, *, frames_alone: bool = False) -> ModelledSettings:
    """Settings with the light and the averages that a model was trained with, where nothing else is asked for.

    Parameters
    ----------
    settings : RunSettings
        What the user asked for.
    model : Model or None
        Its ``phbatch.json`` may say them.
    frames_alone : bool
        Whether each frame is corrected by itself or not at all: then a profile of all of them is not taken.
    """
    facts = model.facts if model is not None else {}
    found = {name: facts[name] for name in ("downscale", "illumination", "illumination_mode") if name in facts}
    if model is None or not found:
        return ModelledSettings(settings, ())
    notices = []
    light = found.get("illumination", "none")
    known = ("none", *FRAME_BACKGROUNDS) if frames_alone else ("none", *ESTIMATED_BACKGROUNDS)
    given = settings.model_fields_set
    taken = {name: value for name, value in found.items() if name not in given}
    if light not in known and "illumination" in taken:
        notices.append(
            Notice(
                f"model {model.name} was trained with light corrected by {light}, which is not done here: give a"
                " profile with --illumination.",
                warning=True,
            )
        )
        taken = {name: value for name, value in taken.items() if name == "downscale"}
    if "illumination" in given and "illumination_mode" not in given:
        taken.pop("illumination_mode", None)
    try:
        checked = RunSettings(**{name: getattr(settings, name) for name in given & _PREPARES} | taken)
    except ValidationError as error:
        raise ModelError(f"{model.folder} does not say how it was trained: {first_problem(error)}") from error
    settings = settings.model_copy(update={name: getattr(checked, name) for name in taken})
    differing = [
        f"{name.replace('_', ' ')} {value} and this run has {getattr(settings, name)}"
        for name, value in found.items()
        if name in given and getattr(settings, name) != value and (name != "illumination" or value in known)
    ]
    if differing:
        text = f"model {model.name} was trained with {', '.join(differing)}: expect other results than its card says."
        notices.append(Notice(text, warning=True))
    return ModelledSettings(settings, tuple(notices))
