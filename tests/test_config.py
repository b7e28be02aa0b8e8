"""Settings cannot hold an invalid state, and say in one sentence what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from phbatch.words.errors import UsageError
from phbatch.words.normalization import Normalization
from phbatch.words.settings import RunSettings, parse_settings


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"factor": 0}, "factor"),
        ({"sigma": -1}, "sigma"),
        ({"sigma": float("nan")}, "sigma"),
        ({"pmin": 101}, "pmin"),
        ({"normalize": "mean"}, "normalize"),
        ({"dtype": "uint16"}, "rescale=True"),
        ({"frames": "a:b"}, "frames"),
        ({"frames": "1:5:0"}, "frames"),
        ({"memory": "lots"}, "memory"),
        ({"workers": 0}, "workers"),
        ({"tile": 0}, "tile"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_invalid_settings_are_one_sentence(options: dict[str, object], part: str) -> None:
    with pytest.raises(UsageError, match=part) as caught:
        parse_settings(options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")


def test_normalization_refuses_contradictions() -> None:
    with pytest.raises(ValidationError, match="below pmax"):
        Normalization(pmin=50, pmax=50)
    with pytest.raises(ValidationError, match="give value"):
        Normalization(method="fixed")


def test_settings_are_frozen_and_auto_is_none() -> None:
    settings = parse_settings({"tile": "AUTO", "batch": "4", "memory": "1.5GB", "model": None})
    assert (settings.tile, settings.batch, settings.memory, settings.model) == (None, 4, 1_500_000_000, None)
    with pytest.raises(ValidationError):
        settings.factor = 2.0


@given(
    st.integers(0, 30),
    st.none() | st.integers(0, 40),
    st.none() | st.integers(0, 40),
    st.none() | st.integers(1, 9),
)
def test_frames_are_python_slices(count: int, start: int | None, stop: int | None, step: int | None) -> None:
    text = f"{'' if start is None else start}:{'' if stop is None else stop}" + ("" if step is None else f":{step}")
    assert list(RunSettings(frames=text).select_frames(count)) == list(range(count)[slice(start, stop, step)])
