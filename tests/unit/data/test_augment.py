from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm_pipeline.config import parse_config
from gfm_pipeline.data.augment import Crop, choose_crop, crop_draws
from gfm_pipeline.data.config import AugmentConfig
from gfm_pipeline.errors import ConfigError, ShardError


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**63))
def test_a_crop_lies_inside_and_keeps_to_its_ranges(rows, columns, sample):
    crop = choose_crop(AugmentConfig(), [(rows, columns)], 192, crop_draws(sample))
    assert 0 <= crop.top <= rows - crop.height < rows
    assert 0 <= crop.left <= columns - crop.width < columns
    if min(rows, columns) >= 64 and max(rows, columns) <= 1.1 * min(rows, columns):
        # Sides are rounded to whole pixels, a relative error of less than 1% each.
        assert 0.66 < crop.height * crop.width / (rows * columns) <= 1
        assert 0.74 < crop.width / crop.height < 1.35


def test_crops_cover_their_ranges_and_half_are_flipped():
    crops = [choose_crop(AugmentConfig(), [(200, 200)], 192, crop_draws(sample)) for sample in range(2000)]
    areas = np.array([crop.height * crop.width / 40_000 for crop in crops])
    ratios = np.array([crop.width / crop.height for crop in crops])
    assert abs(np.mean([crop.flip for crop in crops]) - 0.5) < 0.05
    assert areas.min() < 0.68
    assert areas.max() > 0.95
    assert ratios.min() < 0.78
    assert ratios.max() > 1.28
    assert abs(np.log(ratios).mean()) < 0.02
    assert min(crop.top for crop in crops) == 0
    for place, size in (("top", "height"), ("left", "width")):
        ends = [getattr(crop, place) + getattr(crop, size) for crop in crops if getattr(crop, size) < 190]
        assert max(ends) == 200


@pytest.mark.parametrize(("size", "expected"), [((10, 1000), (10, 13)), ((1000, 10), (13, 10))])
def test_where_no_draw_fits_the_largest_box_in_the_centre_is_taken(size, expected):
    crop = choose_crop(AugmentConfig(), [size], 192, crop_draws(1))
    assert (crop.height, crop.width) == expected
    assert (crop.top, crop.left) == ((size[0] - expected[0]) // 2, (size[1] - expected[1]) // 2)


def test_a_plain_crop_has_the_size_of_the_image_and_lies_everywhere():
    plain = AugmentConfig(kind="crop", scale=(0.1, 0.2))
    crops = [choose_crop(plain, [(50, 40), (100, 80)], 32, crop_draws(sample)) for sample in range(500)]
    assert {(crop.rows, crop.columns, crop.height, crop.width) for crop in crops} == {(50, 40, 32, 32)}
    assert {crop.top for crop in crops} == set(range(19))
    assert {crop.left for crop in crops} == set(range(9))
    assert {crop.flip for crop in crops} == {True, False}


def test_a_plain_crop_that_does_not_fit_is_refused():
    with pytest.raises(ShardError, match=r"30 x 40 pixels holds no crop of data.image_px 32. Set data.augment.kind"):
        choose_crop(AugmentConfig(kind="crop"), [(30, 40)], 32, crop_draws(0))


@pytest.mark.parametrize("sample", range(20))
def test_sensors_of_other_resolutions_show_the_same_ground(sample):
    # The fine sensor repeats each pixel of the coarse one 3 x 3 times, so box averages of any aligned crop are equal.
    coarse = np.random.default_rng(sample).random((1, 20, 20)).astype(np.float32)
    fine = coarse.repeat(3, axis=1).repeat(3, axis=2)
    crop = choose_crop(AugmentConfig(), [(60, 60), (20, 20)], 192, crop_draws(sample))
    rows, columns = crop.box(20, 20)
    fine_rows, fine_columns = crop.box(60, 60)
    assert np.array_equal(fine[:, fine_rows, fine_columns][:, ::3, ::3], coarse[:, rows, columns])
    assert crop == choose_crop(AugmentConfig(), [(20, 20), (60, 60)], 192, crop_draws(sample))


def test_a_coarse_sensor_gives_at_least_one_pixel():
    crop = Crop(rows=100, columns=100, top=99, left=0, height=1, width=1, flip=False)
    rows, columns = crop.box(2, 2)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (1, 1)


@pytest.mark.parametrize("tree", [{"scale": [0.9, 0.5]}, {"scale": [0.5, 1.5]}, {"ratio": [0, 1]}, {"ratio": [2, 1]}])
def test_impossible_ranges_are_refused(tree):
    with pytest.raises(ConfigError, match=next(iter(tree))):
        parse_config(tree, AugmentConfig, "test")
