"""What tests of trainings share."""

from __future__ import annotations

import pytest

from phbatch.tools import training_page
from tests.training.trained import Whole


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A training that nothing interrupts."""
    return Whole.make(tmp_path_factory.mktemp("whole"))


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves are drawn for the models of fixtures alone: each takes matplotlib half a second."""
    monkeypatch.setattr(training_page, "_draw_curves", lambda *_: "data:,")
