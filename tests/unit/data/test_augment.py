from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.functional import resized_crop

from gfm_pipeline.config import parse_config
from gfm_pipeline.data.augment import Crop, apply_crop, draw_crop
from gfm_pipeline.data.config import AugmentConfig
from gfm_pipeline.errors import ConfigError

NEUTRAL = AugmentConfig(scale=(1, 1), ratio=(1, 1), flip=False)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**63))
def test_a_crop_lies_inside_and_keeps_to_its_ranges(rows, columns, sample):
    crop = draw_crop(AugmentConfig(), [(rows, columns)], sample)
    assert 0 <= crop.top <= rows - crop.height < rows
    assert 0 <= crop.left <= columns - crop.width < columns
    if min(rows, columns) >= 64 and max(rows, columns) <= 1.1 * min(rows, columns):
        # Sides are rounded to whole pixels, a relative error of less than 1% each.
        assert 0.66 < crop.height * crop.width / (rows * columns) <= 1
        assert 0.74 < crop.width / crop.height < 1.35


def test_crops_cover_their_ranges_and_half_are_flipped():
    crops = [draw_crop(AugmentConfig(), [(200, 200)], sample) for sample in range(2000)]
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
    crop = draw_crop(AugmentConfig(), [size], 1)
    assert (crop.height, crop.width) == expected
    assert (crop.top, crop.left) == ((size[0] - expected[0]) // 2, (size[1] - expected[1]) // 2)


def test_a_neutral_augmentation_returns_the_pixels_untouched():
    raster = np.arange(3 * 40 * 40, dtype=np.uint16).reshape(3, 40, 40)
    crop = draw_crop(NEUTRAL, [(40, 40)], 9)
    assert np.array_equal(apply_crop(raster, crop, 40).numpy(), raster.astype(np.float32))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
def test_every_pixel_type_is_resized_as_float(dtype):
    raster = np.array([[[0, 1], [1, 0]]], dtype=dtype)
    image = apply_crop(raster, draw_crop(NEUTRAL, [(2, 2)], 0), 4)
    assert image.dtype == torch.float32
    assert image[0, 0].tolist() == [0, 0.25, 0.75, 1]


def test_a_crop_equals_torchvisions_of_the_same_box():
    raster = np.random.default_rng(0).random((4, 64, 80)).astype(np.float32)
    crop = Crop(rows=64, columns=80, top=5, left=11, height=50, width=60, flip=False)
    expected = resized_crop(torch.from_numpy(raster), 5, 11, 50, 60, [32, 32], antialias=True)
    assert torch.allclose(apply_crop(raster, crop, 32), expected, atol=1e-6)
    flipped = Crop(rows=64, columns=80, top=5, left=11, height=50, width=60, flip=True)
    assert torch.equal(apply_crop(raster, flipped, 32), apply_crop(raster, crop, 32).flip(-1))


@pytest.mark.parametrize("sample", range(20))
def test_sensors_of_other_resolutions_show_the_same_ground(sample):
    # The fine sensor repeats each pixel of the coarse one 3 x 3 times, so box averages of any aligned crop are equal.
    coarse = np.random.default_rng(sample).random((1, 20, 20)).astype(np.float32)
    fine = coarse.repeat(3, axis=1).repeat(3, axis=2)
    crop = draw_crop(AugmentConfig(), [(60, 60), (20, 20)], sample)
    rows, columns = crop.box(20, 20)
    fine_rows, fine_columns = crop.box(60, 60)
    assert np.array_equal(fine[:, fine_rows, fine_columns][:, ::3, ::3], coarse[:, rows, columns])
    assert crop == draw_crop(AugmentConfig(), [(20, 20), (60, 60)], sample)


def test_a_coarse_sensor_gives_at_least_one_pixel():
    crop = Crop(rows=100, columns=100, top=99, left=0, height=1, width=1, flip=False)
    assert apply_crop(np.ones((1, 2, 2), np.float32), crop, 8).shape == (1, 8, 8)


@pytest.mark.parametrize("tree", [{"scale": [0.9, 0.5]}, {"scale": [0.5, 1.5]}, {"ratio": [0, 1]}, {"ratio": [2, 1]}])
def test_impossible_ranges_are_refused(tree):
    with pytest.raises(ConfigError, match=next(iter(tree))):
        parse_config(tree, AugmentConfig, "test")
