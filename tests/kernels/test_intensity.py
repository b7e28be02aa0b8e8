"""The affine map is CSBDeep's own float32 arithmetic, inverts, and never divides by zero."""

from __future__ import annotations

import numpy as np
import pytest
from csbdeep.data import PercentileNormalizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from phbatch.kernels import intensity
from phbatch.kernels.intensity import Affine, cast, make_affine
from phbatch.kernels.pyramid import empty_levels, make_levels
from phbatch.kernels.stats import FrameStatistics, measure_frame
from phbatch.words.normalization import Normalization

METHODS = ("median", "mode", "percentile", "minmax", "fixed", "none")


def rule(method: str) -> Normalization:
    return Normalization(method=method, value=3.5 if method == "fixed" else None)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(st.sampled_from([np.dtype("uint8"), np.dtype("uint16"), np.dtype("int16")]), st.just((12, 13))),
    st.sampled_from([(2.0, 99.8), (0.0, 100.0), (3.0, 90.0)]),
)
def test_percentile_is_csbdeeps_bit_for_bit(image: np.ndarray, percentiles: tuple[float, float]) -> None:
    pmin, pmax = percentiles
    chosen = Normalization(method="percentile", pmin=pmin, pmax=pmax)
    affine = make_affine(measure_frame(image, 2.0, percentiles), chosen)
    if affine is None:
        low, high = np.percentile(image, percentiles)
        assert low == high
        return
    normalizer = PercentileNormalizer(pmin, pmax)
    expected = normalizer.before(image, "YX")
    np.testing.assert_array_equal(affine.apply(image), expected)
    np.testing.assert_array_equal(affine.invert(expected), normalizer.after(expected, None, "YX")[0])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32", "int32", ">u2"]),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 20), st.integers(1, 20)),
    terms=st.sampled_from([(0.0, 1.0), (0.0, 3.0), (7.5, 1.0), (-130.25, 0.3), (2.0, 1e-38), (0.0, 1e30)]),
    seed=st.integers(0, 99),
    count=st.integers(0, 4),
    strided=st.booleans(),
)
def test_one_pass_has_the_bits_of_numpy_and_of_levels_made_afterwards(
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    shape: tuple[int, ...],
    terms: tuple[float, float],
    seed: int,
    count: int,
    strided: bool,
) -> None:
    monkeypatch.setattr(intensity, "_LARGE", 0)
    draw, (offset, divisor) = np.random.default_rng(seed), terms
    image = draw.integers(0, 250, shape).astype(dtype)
    if image.dtype.kind == "f":
        image.flat[:: draw.integers(1, 9)] = draw.choice([np.nan, np.inf, -np.inf, -0.0, 1e-42, 3e38])
    if strided:
        image = image[..., ::2]
    levels = empty_levels(image.shape, np.float32, count)
    found = Affine(offset, divisor, divisor).apply(image, None, levels)
    with np.errstate(all="ignore"):
        expected = (image.astype(np.float32) - np.float32(offset)) / np.float32(divisor)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
    for pixels, afterwards in zip(levels, make_levels(expected, count), strict=True):
        np.testing.assert_array_equal(pixels, afterwards)


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.dtype("uint8"), np.dtype("int16"), np.dtype("float32")]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.integers(-100, 100).map(lambda n: n if n >= 0 else 0),
    ),
    st.sampled_from(METHODS),
)
def test_the_map_exists_is_finite_and_inverts(image: np.ndarray, method: str) -> None:
    affine = make_affine(measure_frame(image, 1.0), rule(method))
    if affine is None:
        return
    normalized = affine.apply(image)
    assert np.isfinite(normalized).all()
    assert affine.divisor > 0
    scale = max(1.0, float(np.abs(image).max()))
    np.testing.assert_allclose(affine.invert(normalized), image, atol=2e-5 * scale)


@pytest.mark.parametrize("method", METHODS)
def test_degenerate_frames_have_no_map(method: str) -> None:
    for image in (np.zeros((8, 8), np.uint16), np.full((8, 8), 9, np.uint16), np.full((8, 8), np.nan, np.float32)):
        assert make_affine(measure_frame(image, 1.0), rule(method)) is None


@pytest.mark.parametrize("median", [0.0, -3.0, 1e-60, float("inf")])
def test_a_statistic_that_is_not_positive_gives_no_map(median: float) -> None:
    row = FrameStatistics(median, median, 0, 1, -5, 5, {2.0: -4, 99.8: 4})
    assert make_affine(row, Normalization(method="median")) is None
    assert make_affine(row, Normalization(method="mode")) is None


def test_background_becomes_one_over_factor() -> None:
    image = np.full((64, 64), 1000, np.uint16)
    image[:9, :9] = 4000
    for factor in (1.0, 10.0):
        affine = make_affine(measure_frame(image, 2.0), Normalization(method="mode", factor=factor))
        assert affine is not None
        assert affine.apply(image)[40, 40] == pytest.approx(1 / factor)


def test_identity_changes_no_bit() -> None:
    image = np.random.default_rng(0).random((5, 6), np.float32)
    np.testing.assert_array_equal(Affine().apply(image), image)
    np.testing.assert_array_equal(Affine().invert(image), image)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, 20, elements=st.floats(-1e6, 1e6, width=32)), st.sampled_from(["uint8", "uint16", "float16"])
)
def test_cast_rounds_saturates_and_counts(image: np.ndarray, dtype: str) -> None:
    result, clipped = cast(image, np.dtype(dtype))
    info = np.finfo(dtype) if dtype == "float16" else np.iinfo(dtype)
    rounded = image if dtype == "float16" else np.rint(image)
    assert clipped == np.count_nonzero((rounded < info.min) | (rounded > info.max))
    np.testing.assert_array_equal(result, rounded.clip(info.min, info.max).astype(dtype))


def test_cast_to_the_same_dtype_copies_nothing() -> None:
    image = np.ones(3, np.float32)
    assert cast(image, np.dtype("float32"))[0] is image
