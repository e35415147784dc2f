"""Statistics against numpy, merged in any grouping."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm_pipeline.shards.stats import BandStats, measure, merge

BANDS = ("a", "b")


def check(found: list[BandStats], pixels: np.ndarray) -> None:
    for band, values in zip(found, pixels.astype(np.float64), strict=True):
        assert (band.count, band.min, band.max) == (values.size, values.min(), values.max())
        assert band.mean == pytest.approx(values.mean(), rel=1e-12)
        assert band.std == pytest.approx(values.std(), rel=1e-9)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
def test_a_raster_and_a_series_are_measured_per_band(dtype: str) -> None:
    series = np.random.default_rng(0).integers(0, 250, (3, 2, 16, 8)).astype(dtype)
    before = series.copy()
    check(measure(series[0], BANDS), series[0].reshape(2, -1))
    check(measure(series, BANDS), series.transpose(1, 0, 2, 3).reshape(2, -1))
    np.testing.assert_array_equal(series, before)


def test_extremes_of_a_type_do_not_wrap() -> None:
    raster = np.array([[[0, 2**32 - 1]], [[2**31, 2**31]]], np.uint32)
    high, flat = measure(raster, BANDS)
    assert (high.min, high.max, high.mean) == (0.0, 2.0**32 - 1, (2.0**32 - 1) / 2)
    assert flat.std == 0.0


@given(cuts=st.lists(st.integers(1, 63), max_size=6))
@settings(max_examples=40, deadline=None)
def test_any_split_merges_to_the_whole(cuts: list[int]) -> None:
    raster = (np.random.default_rng(1).normal(1e5, 1, (2, 64, 8))).astype(np.float32)
    edges = [0, *sorted(set(cuts)), 64]
    parts = [measure(raster[:, a:b], BANDS) for a, b in itertools.pairwise(edges)]
    check(merge(parts), raster.reshape(2, -1))
    assert merge(parts) == merge(parts)


def test_nothing_merges_to_nothing_and_other_bands_do_not_merge() -> None:
    assert merge([]) == []
    one, other = measure(np.zeros((1, 2, 2)), ("a",)), measure(np.zeros((1, 2, 2)), ("b",))
    with pytest.raises(ValueError, match="cannot merge"):
        merge([one, other])


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("uint16", 0, 2**16), ("int16", -(2**15), 2**15), ("uint8", 0, 256)]
)
def test_small_integers_are_summed_without_rounding(dtype: str, low: int, high: int) -> None:
    raster = np.random.default_rng(2).integers(low, high, (1, 1100, 1000)).astype(dtype)  # more than one piece
    (found,) = measure(raster, ("a",))
    values = raster.astype(object).ravel()
    total, squares, count = int(values.sum()), int((values * values).sum()), values.size
    assert (found.mean, found.m2) == (total / count, (count * squares - total * total) / count)
