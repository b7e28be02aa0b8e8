"""What is done on the device is what is done on the host, for both backends, and raw pixels go up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import phbatch
from phbatch.kernels.intensity import Affine, cast
from phbatch.network.backend import select_backend
from phbatch.network.predictor import Predictor
from phbatch.network.steps import Prediction, Steps, Windows, apply_steps, window_dtype
from tests.handmade import write_model

SHAPE = (3, 12, 20, 1)


def identity(tensor: Any) -> Any:
    """A network that changes nothing."""
    return tensor


def run_steps(steps: Steps, pixels: np.ndarray, affine: Affine, owned: tuple[slice, slice]) -> Prediction:
    """The steps around no network, by Keras' own tensors."""
    select_backend("tensorflow")
    scaling = np.tile(
        np.array([[affine.offset], [affine.divisor], [affine.span], [affine.offset]], np.float32), (len(pixels), 1, 1)
    )
    spans = np.tile(np.array([[part.start, part.stop] for part in owned], np.int32), (len(pixels), 1, 1))
    image, clipped, *scale = apply_steps(identity, steps, *map(as_tensor, (pixels, scaling, spans)))
    return Prediction(np.asarray(image), np.asarray(scale[0]) if scale else None, np.asarray(clipped))


def as_tensor(array: np.ndarray) -> Any:
    """Of the backend of this process."""
    import keras

    return keras.ops.convert_to_tensor(array)


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16"]),
    to=st.sampled_from(["uint8", "uint16", "float16", "float32"]),
    # TensorFlow takes numbers under 1.2e-38 for zero: no count is as small
    offset=st.floats(-1e4, 1e4, width=32).filter(lambda value: value == 0 or abs(value) > 1e-6),
    divisor=st.floats(0.0078125, 1e5, width=32),
    rescale=st.booleans(),
    rows=st.tuples(st.integers(0, 11), st.integers(1, 12)).filter(lambda ends: ends[0] < ends[1]),
    seed=st.integers(0, 99),
)
def test_steps_are_those_of_the_host(
    dtype: str, to: str, offset: float, divisor: float, rescale: bool, rows: tuple[int, int], seed: int
) -> None:
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(seed).integers(limits.min, limits.max, SHAPE, dtype, endpoint=True)
    affine = Affine(offset, divisor, divisor * 1.5)
    result = affine.apply(pixels)
    if rescale:
        result = affine.invert(result)
    expected, _ = cast(result, np.dtype(to))
    found = run_steps(Steps(dtype, to, 1, rescale=rescale), pixels, affine, (slice(*rows), slice(3, 17)))
    assert found.image.dtype == to
    np.testing.assert_array_equal(found.image, expected)
    lost = [cast(tile[slice(*rows), 3:17], np.dtype(to))[1] for tile in result]
    assert found.clipped.tolist() == lost


@pytest.mark.parametrize("to", ["uint8", "uint16", "float16", "float32"])
def test_values_that_no_dtype_holds(to: str) -> None:
    pixels = np.array([np.nan, np.inf, -np.inf, 0.5, 1.5, 254.5, 65504, 65505, 65535.5, -0.5, 7e4], np.float32)
    tiles = np.tile(pixels[None, None, :, None], (1, 2, 1, 1))
    expected, lost = cast(tiles, np.dtype(to))
    found = run_steps(Steps("float32", to, 1), tiles, Affine(), (slice(0, 2), slice(0, len(pixels))))
    np.testing.assert_array_equal(found.image, expected)
    assert found.clipped.tolist() == [lost]


def test_scales_follow_the_means_and_are_stretched_only() -> None:
    pixels = np.random.default_rng(0).random((2, 8, 8, 2)).astype(np.float32)
    affine = Affine(3.0, 2.0, 4.0)
    scaling = np.tile(np.array([[3, 3], [2, 2], [4, 4], [3, 3]], np.float32), (2, 1, 1))[..., :1]
    owned = np.zeros((2, 2, 2), np.int32)
    arrays = (pixels[..., :1], scaling, owned)

    def doubled(tensor: Any) -> Any:
        return as_tensor(np.concatenate([np.asarray(tensor), pixels[..., 1:]], axis=-1))

    image, clipped, scale = apply_steps(doubled, Steps("float32", "float32", 1, True, True), *map(as_tensor, arrays))
    np.testing.assert_array_equal(np.asarray(image), affine.invert(affine.apply(pixels[..., :1])))
    np.testing.assert_array_equal(np.asarray(scale), affine.invert_scale(pixels[..., 1:]))
    assert np.asarray(clipped).tolist() == [0, 0]


def test_raw_pixels_give_the_bits_of_normalized_ones(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    pixels = np.random.default_rng(1).integers(400, 600, (3, 24, 20, 1), "uint16")
    affine = Affine(13.0, 487.0, 487.0)
    scaling = np.tile(np.array([[13], [487], [487], [13]], np.float32), (3, 1, 1))
    windows = Windows(pixels, scaling, np.zeros((3, 2, 2), np.int32))
    raw = Predictor(folder, (24, 20), 3, "tensorflow", steps=Steps("uint16", "float32", 1)).restore(windows)
    expected = Predictor(folder, (24, 20), 3, "tensorflow")(affine.apply(pixels))
    np.testing.assert_array_equal(raw.image, expected)


@pytest.mark.parametrize(
    ("dtype", "options", "windows"),
    [
        ("uint16", {}, "uint16"),
        ("int16", {"dtype": "uint16", "rescale": True}, "int16"),
        (">u2", {}, "uint16"),
        ("float64", {}, "float32"),
        ("uint32", {}, "float32"),
        ("uint8", {"downscale": 2}, "float32"),
        ("uint16", {"illumination": "gaussian"}, "float32"),
    ],
)
def test_what_goes_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, options: dict[str, Any], windows: str
) -> None:
    frames = np.random.default_rng(2).integers(90, 120, (2, 40, 44)).astype(dtype)
    zarr.create_array(tmp_path / "in.zarr", data=frames)
    seen: set[str] = set()
    restore = Predictor.restore

    def watch(self: Predictor, sent: Windows) -> Prediction:
        seen.add(sent.pixels.dtype.name)
        return restore(self, sent)

    monkeypatch.setattr(Predictor, "restore", watch)
    phbatch.run(tmp_path / "in.zarr", tmp_path / "out.zarr", axes="tyx", model="phase-2d", workers=1, **options)
    assert seen == {windows}
    assert window_dtype(np.dtype("bool")) == "float32"
