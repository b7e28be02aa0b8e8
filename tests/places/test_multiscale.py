"""OME-Zarr metadata as real software writes them: axes in any order, transformations of both kinds, other units."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

import phbatch
from phbatch.inputs.image import open_source
from phbatch.places.place import Place
from phbatch.words.axes import axis_letter, infer_axes, to_region
from phbatch.words.errors import InputError
from tests.handmade import CommandLine
from tests.ome_inputs import AXES, scale_of, write_ome

LENGTHS = {"t": 3, "c": 2, "z": 4, "y": 20, "x": 24}
SCALE = {"t": 30.0, "c": 1.0, "z": 2.0, "y": 0.5, "x": 0.25}
ORIGIN = {"t": 5.0, "c": 0.0, "z": 7.0, "y": 100.0, "x": 200.0}
ORDERS = ["".join(order) for axes in ("yx", "tyx", "zyx", "tzyx") for order in permutations(axes)]
ORDERS += ["xyzct", "ytxcz", "cxyt", "xcy"]
WRITTEN = ("xy", "yxt", "xyz", "txyz", "ytxcz", "xcy")


def image_of(axes: str) -> np.ndarray:
    """Frames that differ along every axis, ``tczyx`` where they exist, in the order of `axes`."""
    ordered = "".join(axis for axis in "tczyx" if axis in axes)
    shape = tuple(LENGTHS[axis] for axis in ordered)
    image = np.random.default_rng(0).integers(1000, 2000, shape, dtype="uint16")
    image += (100 * np.arange(image[..., 0, 0].size).reshape(*image.shape[:-2], 1, 1)).astype("uint16")
    return image.transpose([ordered.index(axis) for axis in axes])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ORDERS)
def test_axes_in_any_order(tmp_path: Path, axes: str, version: str) -> None:
    image, ordered = image_of(axes), "".join(axis for axis in "tczyx" if axis in axes)
    expected = image.transpose([axes.index(axis) for axis in ordered])
    units = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
    write_ome(
        tmp_path / "in.zarr",
        image,
        [AXES[axis] | ({"unit": units[axis]} if axis in units else {}) for axis in axes],
        version,
        transforms=[
            {"type": "scale", "scale": [SCALE[axis] for axis in axes]},
            {"type": "translation", "translation": [ORIGIN[axis] for axis in axes]},
        ],
    )
    found = open_source(Place.at(tmp_path / "in.zarr"))
    whole = to_region((0,) * 5, found.shape)
    np.testing.assert_array_equal(found.read(whole).squeeze(), expected)
    if axes in WRITTEN:
        result = phbatch.run(tmp_path / "in.zarr", model="none", rescale=True, dtype="uint16", workers=1)
        found = open_source(Place.at(result.output))
        assert found.stored_axes == ordered
        np.testing.assert_array_equal(found.array[:], expected)
        yaozarrs.validate_zarr_store(result.output)
    assert found.metadata.axes == ordered
    assert found.metadata.scale == tuple(SCALE[axis] for axis in ordered)
    assert found.metadata.translation == tuple(ORIGIN[axis] for axis in ordered)
    assert found.metadata.units == tuple(units.get(axis) for axis in ordered)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_statistics_are_of_the_planes_of_y_and_x(tmp_path: Path, version: str) -> None:
    planes = np.random.default_rng(0).integers(500, 700, (8, 8, 8)) * np.arange(1, 9)[:, None, None]
    write_ome(tmp_path / "in.zarr", planes.astype("uint16").transpose(2, 1, 0), "xyz", version)
    found = [row["median"] for row in phbatch.statistics(tmp_path / "in.zarr")]
    zarr.create_array(tmp_path / "flat.zarr", data=planes.astype("uint16"))
    assert found == [row["median"] for row in phbatch.statistics(tmp_path / "flat.zarr", axes="zyx")]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("dataset", "multiscale", "scale", "origin"),
    [
        ([scale_of(1, 0.65, 0.65)], [scale_of(300, 1, 1)], (300, 0.65, 0.65), (0, 0, 0)),
        (
            [scale_of(1, 0.5, 0.5)],
            [{"type": "translation", "translation": [0, 100, 200]}],
            (1, 0.5, 0.5),
            (0, 100, 200),
        ),
        (
            [scale_of(1, 0.5, 0.5), {"type": "translation", "translation": [1, 2, 3]}],
            [scale_of(10, 2, 4), {"type": "translation", "translation": [7, 0, -1]}],
            (10, 1, 2),
            (17, 4, 11),
        ),
        ([{"type": "identity"}], [scale_of(2, 3, 4)], (2, 3, 4), (0, 0, 0)),
        ([scale_of(2, 3, 4), {"type": "identity"}], None, (2, 3, 4), (0, 0, 0)),
        ([scale_of(2, 3, 4)], [], (2, 3, 4), (0, 0, 0)),
    ],
)
def test_transformations_compose(
    tmp_path: Path, version: str, dataset: Any, multiscale: Any, scale: tuple[float, ...], origin: tuple[float, ...]
) -> None:
    extra = {} if multiscale is None else {"coordinateTransformations": multiscale}
    write_ome(tmp_path / "in.zarr", image_of("tyx"), "tyx", version, transforms=dataset, multiscale=extra)
    paths = [str(tmp_path / "in.zarr")]
    if version == "0.4":
        result = phbatch.run(paths[0], model="none", workers=1)
        paths.append(result.output)
        assert result.notices == ()
    for path in paths:
        metadata = open_source(Place.at(path)).metadata
        assert metadata.scale == pytest.approx(scale)
        assert metadata.translation == pytest.approx(origin)


@pytest.mark.parametrize(
    ("transforms", "part"),
    [
        ([scale_of(0, 0.5, 0.5)], "scale 0 along t: 1"),
        ([{"type": "identity"}], "no scale: 1"),
        ([], "no scale: 1"),
        (None, "no scale: 1"),
    ],
)
def test_a_scale_that_is_not_there_is_1_and_said(tmp_path: Path, transforms: Any, part: str) -> None:
    write_ome(tmp_path / "in.zarr", image_of("tyx"), "tyx", transforms=transforms)
    result = phbatch.run(tmp_path / "in.zarr", model="none", workers=1)
    assert open_source(Place.at(result.output)).metadata.scale[0] == 1
    assert any(part in notice for notice in result.notices)
    assert any(part in notice for notice in phbatch.info(tmp_path / "in.zarr")["notices"])


@pytest.mark.parametrize(
    ("transform", "part"),
    [
        ({"type": "scale", "scale": [1, 1]}, "the scale has 2 numbers for 3 axes"),
        ({"type": "scale", "scale": [None, 1, 1]}, "None is no number"),
        ({"type": "scale", "scale": ["1", 1, 1]}, "'1' is no number"),
        ({"type": "scale", "scale": 2}, "no list"),
        ({"type": "scale", "scale": [10**400, 1, 1]}, "is no number"),
        ({"type": "scale", "scale": [1, 1, float("inf")]}, "inf apart along x"),
        ({"type": "scale", "scale": [1, -1, 1]}, "-1.0 apart along y"),
        ({"type": "scale", "scale": [float("nan"), 1, 1]}, "nan apart along t"),
        ({"type": "translation", "translation": [1]}, "the translation has 1 number for 3 axes"),
        ({"type": "translation", "translation": [float("inf"), 0, 0]}, "not finite"),
        ({"type": "scale", "path": "scales"}, "'scale' that phbatch cannot read"),
        ({"type": "affine", "affine": []}, "'affine' that phbatch cannot read"),
        ("scale", "list of transformations"),
    ],
)
@pytest.mark.parametrize("where", ["dataset", "multiscale"])
def test_transformations_that_mean_nothing_are_refused(
    phbatch_command: CommandLine, tmp_path: Path, transform: Any, part: str, where: str
) -> None:
    options: dict[str, Any] = {"transforms": [transform]}
    if where == "multiscale":
        options = {"multiscale": {"coordinateTransformations": [transform]}}
    write_ome(tmp_path / "in.zarr", image_of("tyx"), "tyx", **options)
    assert phbatch_command("run", tmp_path / "in.zarr", "--model", "none") == 3
    assert part in phbatch_command.err
    assert len(phbatch_command.err.splitlines()) == 1
    assert not (tmp_path / "in.phbatch.zarr").exists()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("um", "micrometer"),
        ("\u00b5m", "micrometer"),
        ("\u03bcm", "micrometer"),
        ("Micron", "micrometer"),
        ("nm", "nanometer"),
        ("micrometer", "micrometer"),
        ("pixel", "pixel"),
        ("", None),
        (None, None),
        (3, None),
    ],
)
def test_units(tmp_path: Path, version: str, unit: Any, expected: str | None) -> None:
    axes = [AXES["t"] | {"unit": "sec"}, AXES["y"] | {"unit": unit}, AXES["x"]]
    write_ome(tmp_path / "in.zarr", image_of("tyx"), axes, version)
    found = open_source(Place.at(tmp_path / "in.zarr"))
    if unit in ("um", "pixel", 3):
        found = open_source(Place.at(phbatch.run(tmp_path / "in.zarr", model="none", workers=1).output))
    assert found.metadata.units == ("second", expected, None)
    assert any("no word" in notice for notice in open_source(Place.at(tmp_path / "in.zarr")).notices) == (unit == 3)


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (["time", "channel", "y", "x"], "tcyx"),
        (["T", "C", "Z", "Y", "X"], "tczyx"),
        (["y", "x", "time"], "yxt"),
        (["frame", "row", "col"], "tyx"),
        (["plane", "y_0", "x_0"], "zyx"),
        ([None, None, None], "tyx"),
        (["", "", ""], "tyx"),
    ],
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_names_of_dimensions(tmp_path: Path, zarr_format: int, names: list[Any], axes: str) -> None:
    image = image_of(axes)
    options: dict[str, Any] = {"attributes": {"_ARRAY_DIMENSIONS": names}} if zarr_format == 2 else {}
    if zarr_format == 3:
        options["dimension_names"] = names
    zarr.create_array(tmp_path / "in.zarr", data=image, zarr_format=zarr_format, **options)
    source = open_source(Place.at(tmp_path / "in.zarr"))
    assert source.stored_axes == axes
    ordered = [axes.index(axis) for axis in "tczyx" if axis in axes]
    np.testing.assert_array_equal(source.read(to_region((0,) * 5, source.shape)).squeeze(), image.transpose(ordered))


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["Y", "X", "S"], "'S' is no time"),
        (["t", None, "x"], "'None' is no time"),
        (["position", "y", "x"], "'position' is no time"),
        (["y", "x"], "name 2 dimensions"),
        (["time", "frame", "y"], "twice"),
        (["t", "z", "x"], "lack y"),
    ],
)
def test_names_that_mean_no_axis_are_refused(
    phbatch_command: CommandLine, tmp_path: Path, names: list[Any], part: str
) -> None:
    attributes = {"_ARRAY_DIMENSIONS": names}
    zarr.create_array(tmp_path / "in.zarr", data=image_of("tyx"), zarr_format=2, attributes=attributes)
    assert phbatch_command("run", tmp_path / "in.zarr", "--model", "none") == 3
    assert part in phbatch_command.err
    assert phbatch_command("run", tmp_path / "in.zarr", "--model", "none", "--axes", "tyx") == 0


def test_words_of_axes() -> None:
    assert [axis_letter(word) for word in ("TIME", "Channel", "depth", "rows", "x_1", "s", "", None)] == [
        *"tczyx",
        None,
        None,
        None,
    ]
    with pytest.raises(InputError, match="no axes in its metadata"):
        infer_axes(4, [None] * 4)


@pytest.mark.parametrize(
    ("axes", "part"),
    [
        ([{"name": "x", "type": "time"}, AXES["y"], AXES["x"]], "contradict"),
        (["t", "y", "x"], "axes='tyx'"),
        ([AXES["t"], AXES["y"], AXES["y"]], "y twice"),
        ([AXES["t"], AXES["z"], AXES["x"]], "lack y or x"),
        ([AXES["y"], AXES["x"]], "2 axes (y, x)"),
        ([AXES["t"], 3, AXES["x"]], "3 is no object"),
        (None, "invalid at multiscales.0.axes"),
    ],
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_axes_that_are_no_axes_are_refused(tmp_path: Path, version: str, axes: Any, part: str) -> None:
    write_ome(tmp_path / "in.zarr", image_of("tyx"), axes, version, transforms=[])
    with pytest.raises(InputError) as refused:
        open_source(Place.at(tmp_path / "in.zarr"))
    assert part in str(refused.value)


@pytest.mark.parametrize("stated", ["0.1", "0.2", "0.3", "0.6", "1.0", "latest"])
def test_other_versions_are_refused(tmp_path: Path, stated: str) -> None:
    path = write_ome(tmp_path / "in.zarr", image_of("tyx"), "tyx", "0.5" if stated >= "0.6" else "0.4", stated=stated)
    with pytest.raises(InputError, match=f"{stated} and phbatch reads 0.4 and 0.5; .* axes"):
        open_source(Place.at(path))
    assert open_source(Place.at(path / "0"), "tyx").shape == (3, 1, 1, 20, 24)


def test_several_images_in_one_group_are_named(phbatch_command: CommandLine, tmp_path: Path) -> None:
    path = write_ome(tmp_path / "in.zarr", image_of("tyx"), "tyx")
    attributes = json.loads((path / ".zattrs").read_text())
    first = attributes["multiscales"][0]
    attributes["multiscales"].append(first | {"name": "other", "datasets": [first["datasets"][0] | {"path": "raw"}]})
    (path / ".zattrs").write_text(json.dumps(attributes))
    assert phbatch_command("run", path, "--model", "none") == 0
    for part in ("2 images", "img (0)", "other (raw)", "--axes"):
        assert part in phbatch_command.err
    assert "2 images" in phbatch.info(path)["notices"][0]
