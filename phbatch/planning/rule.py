"""The normalization of a run."""

from __future__ import annotations

from pydantic import ValidationError

from phbatch.kernels.intensity import find_normalizer
from phbatch.network.model import Model
from phbatch.words.errors import UsageError
from phbatch.words.events import Notice
from phbatch.words.given import first_problem
from phbatch.words.normalization import Normalization
from phbatch.words.settings import OF_RULE, RunSettings


def resolve_rule(settings: RunSettings, model: Model | None) -> tuple[Normalization, tuple[Notice, ...]]:
    """The normalization of a run: the model's own unless an option says otherwise, which warns.

    Raises
    ------
    UsageError
        The options contradict each other.
    """
    notices: list[Notice] = []
    if model is None:
        base = Normalization()
    elif model.normalization is not None:
        base = model.normalization
    else:
        base = Normalization(method="percentile")
        if settings.normalize is None:
            notices.append(
                Notice(
                    f"model {model.name} does not say how it was trained: normalizing by {base.describe()},"
                    " CSBDeep's default."
                )
            )
    asked = {name: getattr(settings, setting.field) for name, setting in OF_RULE.items()}
    given = {name: value for name, value in asked.items() if value is not None}
    try:
        rule = Normalization.model_validate(base.model_dump() | given)
    except ValidationError as error:
        raise UsageError(first_problem(error)) from error
    find_normalizer(rule.method)
    if model is not None and model.normalization is not None and rule.describe() != base.describe():
        notices.append(
            Notice(
                f"model {model.name} was trained with {base.describe()} and this run normalizes with"
                f" {rule.describe()}: expect other"
                " results than its card says.",
                warning=True,
            )
        )
    return rule, tuple(notices)
