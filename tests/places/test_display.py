"""OMERO's display hints never decide over an image: what is usable is kept, the rest is said."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
from yaozarrs.v05 import OmeroChannel

import phbatch
from phbatch.inputs.image import open_source
from phbatch.places.display import complete_channels, read_channels
from phbatch.places.place import Place
from tests.handmade import CommandLine
from tests.ome_inputs import write_ome

WINDOW = {"start": 0.0, "min": 0.0, "end": 9.0, "max": 9.0}
WHOLE = {"label": "PH", "color": "FFFFFF", "window": WINDOW}
IMAGE = np.random.default_rng(0).integers(900, 1100, (2, 2, 24, 32), dtype="uint16")

VALUES = [
    None,
    True,
    -1,
    0,
    7,
    2**33,
    10**400,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "PH",
    "FF0000",
    "#0f0",
    "red",
    [],
    {},
    [None],
]


def hints(draw: random.Random) -> Any:
    """Hints with entries that are right, wrong, or not there."""

    def entries(names: str, right: dict[str, Any]) -> dict[str, Any]:
        kept = [name for name in names.split() if draw.random() < 0.7]
        return {name: right[name] if name in right and draw.random() < 0.6 else draw.choice(VALUES) for name in kept}

    def channel() -> Any:
        right = WHOLE | {"window": entries("start min end max", WINDOW)}
        return entries("label color window active inverted coefficient family mine", right)

    channels = [channel() if draw.random() < 0.9 else draw.choice(VALUES) for _ in range(draw.randrange(5))]
    return draw.choice([{"channels": channels}] * 8 + [{"channels": draw.choice(VALUES)}, draw.choice(VALUES)])


@pytest.mark.parametrize("seed", range(10))
def test_no_hint_refuses_an_image(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(100):
        omero, count = hints(draw), draw.randrange(1, 5)
        channels, notices = read_channels(omero, count)
        assert len(channels) in (0, count)
        for complete in complete_channels(channels):
            OmeroChannel.model_validate(complete)
        assert all(notice.endswith(".") for notice in notices)
        assert read_channels({"channels": list(channels)}, count)[0] == channels


@pytest.mark.parametrize(
    ("channel", "kept"),
    [
        (WHOLE, WHOLE),
        (
            WHOLE | {"inverted": False, "coefficient": 1, "mine": 3},
            WHOLE | {"inverted": False, "coefficient": 1, "mine": 3},
        ),
        ({"label": "PH"}, {"label": "PH"}),
        (WHOLE | {"color": 16777215}, WHOLE),
        (WHOLE | {"color": -1}, WHOLE),
        (WHOLE | {"color": 0xFF0000FF}, WHOLE | {"color": "FF0000"}),
        (WHOLE | {"color": "white"}, {"label": "PH", "window": WINDOW}),
        (WHOLE | {"window": {"min": 0, "max": 9}}, WHOLE),
        (WHOLE | {"window": {"start": 0, "end": 9}}, WHOLE),
        (WHOLE | {"window": {"start": 5, "end": 1}}, {"label": "PH", "color": "FFFFFF"}),
        (WHOLE | {"window": None}, {"label": "PH", "color": "FFFFFF"}),
        (WHOLE | {"window": WINDOW | {"min": None}}, WHOLE),
        ({"label": 3}, {"label": "3"}),
    ],
)
def test_what_is_usable_is_kept(channel: dict[str, Any], kept: dict[str, Any]) -> None:
    channels, notices = read_channels({"channels": [channel]}, 1)
    assert channels == (kept,)
    assert bool(notices) == (channel != kept or not {"color", "window"} <= kept.keys())


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_incomplete_hints_become_complete_ones(tmp_path: Path, version: str, rescale: bool) -> None:
    hints = {
        "omero": {"channels": [{"label": "PH"}, {"label": "GFP", "color": 255, "window": {"min": 0, "max": 4095}}]}
    }
    write_ome(tmp_path / "in.zarr", IMAGE, "tcyx", version, attributes=hints)
    result = phbatch.run(tmp_path / "in.zarr", model="none", rescale=rescale, workers=1)
    assert any("display hints of channel 0, 1" in notice for notice in result.notices)
    yaozarrs.validate_zarr_store(result.output)
    source = open_source(Place.at(result.output))
    assert source.notices == ()
    assert source.metadata.channel_names == ("PH", "GFP")
    first, second = source.metadata.channels
    assert (first["color"], second["color"]) == ("FFFFFF", "0000FF")
    low, high = (900, 1100) if rescale else (0.8, 1.2)
    assert low <= first["window"]["start"] < first["window"]["end"] <= high
    assert (second["window"]["max"] == 4095) == rescale


@pytest.mark.parametrize(
    ("omero", "names", "said"),
    [
        (None, (), ""),
        ({}, (), ""),
        ({"channels": None}, (), ""),
        ({"channels": []}, (), ""),
        ({"channels": {"a": 1}}, (), "no list"),
        ({"channels": [None, None]}, (), "channel 0, 1 are"),
        ({"channels": [WHOLE]}, ("PH", "1"), "name 1 channel and the image has 2"),
        ({"channels": [WHOLE, WHOLE | {"label": "A"}, WHOLE | {"label": "B"}]}, ("PH", "A"), "name 3 channels"),
        ({"channels": [WHOLE, WHOLE | {"label": None}], "rdefs": None}, ("PH", "1"), ""),
    ],
)
def test_numbers_of_channels(tmp_path: Path, omero: Any, names: tuple[str, ...], said: str) -> None:
    source = open_source(Place.at(write_ome(tmp_path / "in.zarr", IMAGE, "tcyx", attributes={"omero": omero})))
    assert source.metadata.channel_names == names
    assert [said in notice for notice in source.notices] == [True] * bool(said)


def test_a_name_beyond_the_array_is_refused_before_anything_is_touched(
    phbatch_command: CommandLine, tmp_path: Path
) -> None:
    three = [WHOLE | {"label": label} for label in ("PH", "A", "B")]
    path = write_ome(tmp_path / "in.zarr", IMAGE, "tcyx", attributes={"omero": {"channels": three}})
    output = tmp_path / "out.zarr"
    phbatch.run(path, output, model="none", workers=1)
    before = {file: file.read_bytes() for file in output.rglob("*") if file.is_file()}
    for name in ("B", "2", "nothing"):
        assert phbatch_command("run", path, output, "--model", "none", "--overwrite", "--channel", name) == 3
        assert f"--channel {name} is not there" in phbatch_command.err
    assert {file: file.read_bytes() for file in output.rglob("*") if file.is_file()} == before
    assert phbatch_command("run", path, output, "--model", "none", "--overwrite", "--channel", "A") == 0
    assert open_source(Place.at(output)).metadata.channel_names == ("A",)


def test_a_name_of_two_channels_is_refused(phbatch_command: CommandLine, tmp_path: Path) -> None:
    path = write_ome(tmp_path / "in.zarr", IMAGE, "tcyx", attributes={"omero": {"channels": [WHOLE, WHOLE]}})
    assert phbatch_command("run", path, "--model", "none", "--channel", "PH") == 3
    assert "channels 0, 1" in phbatch_command.err
    assert phbatch_command("run", path, "--model", "none", "--channel", "1") == 0
