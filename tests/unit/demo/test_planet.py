"""The planet: repeatable, independent of how many places there are, and the same thing in every sensor."""

from __future__ import annotations

import numpy as np
import pytest

from shard_builder.demo.families import FAMILIES, Request, aerial_place, sen12ms_place
from shard_builder.demo.materials import BACKSCATTER_DB, LAND_COVER_CODES, REFLECTANCE, TEXTURE, Cover, Material
from shard_builder.demo.noise import cells, fractal, hash_uniform, value_noise
from shard_builder.demo.optical import render_rgb, render_s2
from shard_builder.demo.radar import render_s1

MANY = Request(places=28, tile_px=96, seed=3)


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


@pytest.fixture(scope="module")
def landscapes():
    """(cover, S1, S2) pixels of several places side by side, each [N] or [N,C]."""
    cover, s1, s2 = [], [], []
    for index in range(MANY.places):
        place, *_ = sen12ms_place(MANY, index)
        cover.append(place.cover.ravel())
        s1.append(render_s1(rng(index), place).reshape(-1, 2))
        s2.append(render_s2(rng(index), place).reshape(-1, 13).astype(np.float64))
    return np.concatenate(cover), np.concatenate(s1), np.concatenate(s2)


def test_every_material_and_class_has_a_row_in_every_table():
    assert REFLECTANCE.shape == (len(Material), 13)
    assert BACKSCATTER_DB.shape == (len(Material), 2)
    assert TEXTURE.shape == (len(Material),)
    assert LAND_COVER_CODES.shape == (len(Cover), 4)


@pytest.mark.parametrize("shape", [(33, 70), (128, 128)])
def test_noise_is_smooth_centred_and_of_unit_deviation(shape):
    fields = np.stack([value_noise(rng(seed), shape, 16) for seed in range(30)])
    assert fields.shape == (30, *shape)
    assert abs(fields.mean()) < 0.15
    assert 0.8 < fields.std() < 1.2
    assert np.abs(np.diff(fields, axis=1)).max() < 0.5
    assert fractal(rng(), shape, 40).dtype == np.float32


def test_cells_know_their_nearest_point_and_their_border():
    found = cells(rng(), (60, 80), 12)
    assert 20 < len(np.unique(found.ids)) < 70
    assert (found.ids != found.other).all()
    assert found.border.min() >= 0
    across = found.ids[:, 1:] != found.ids[:, :-1]
    assert found.border[:, 1:][across].max() < 1.5  # a change of identity lies on a border


def test_hash_is_uniform_and_depends_on_every_value():
    i, j = np.meshgrid(np.arange(100), np.arange(100))
    dice = hash_uniform(5, i, j)
    assert dice.min() >= 0
    assert dice.max() < 1
    assert abs(dice.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(dice.ravel(), hash_uniform(6, i, j).ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_an_item_depends_on_seed_and_number_alone(family):
    few, many, other = Request(2, 32, 5), Request(100_000, 32, 5), Request(2, 32, 6)
    first = list(family.item(few, 1))
    assert first == list(family.item(many, 1))
    assert first != list(family.item(other, 1))
    assert first != list(family.item(few, 0))


def test_places_differ_and_every_class_occurs(landscapes):
    cover, _, _ = landscapes
    shares = np.bincount(cover, minlength=len(Cover)) / cover.size
    assert (shares > 0.004).all(), dict(zip([c.name for c in Cover], shares, strict=True))
    assert shares.max() < 0.5


def test_water_is_dark_to_the_radar_and_towns_are_bright(landscapes):
    cover, s1, _ = landscapes
    vv = {kind: float(np.median(s1[cover == kind, 0])) for kind in Cover}
    vh = {kind: float(np.median(s1[cover == kind, 1])) for kind in Cover}
    assert vv[Cover.WATER] < min(value for kind, value in vv.items() if kind != Cover.WATER) - 2
    assert vh[Cover.FOREST] > vh[Cover.GRASSLAND] + 3
    assert np.percentile(s1[cover == Cover.BUILT_UP, 0], 90) > np.percentile(s1[cover == Cover.CROPLAND, 0], 90) + 5
    assert np.isfinite(s1).all()


def test_vegetation_index_follows_the_classes(landscapes):
    cover, _, s2 = landscapes
    ndvi = (s2[:, 7] - s2[:, 3]) / (s2[:, 7] + s2[:, 3])
    median = {kind: float(np.median(ndvi[cover == kind])) for kind in Cover}
    assert median[Cover.FOREST] > 0.4 > 0.3 > median[Cover.BARE]
    assert median[Cover.WATER] < 0.05
    assert median[Cover.SNOW] < 0.1


def test_reflectances_are_plausible(landscapes):
    _, _, s2 = landscapes
    assert s2.max() < 16_000
    assert 5 < s2[:, 10].mean() < 60  # the cirrus band sees no ground
    assert s2[:, 0].min() > 400  # the bluest band sees the air


def test_one_sensor_tells_much_about_another(landscapes):
    _, s1, s2 = landscapes
    blocks = s1[:, 0].reshape(-1, 4, 24, 96).mean((1, 3)).ravel()  # average the speckle away
    near_infrared = np.log(s2[:, 7]).reshape(-1, 4, 24, 96).mean((1, 3)).ravel()
    assert np.corrcoef(blocks, near_infrared)[0, 1] > 0.5


def test_speckle_is_multiplicative_and_independent_of_the_optical_sensor():
    place, *_ = sen12ms_place(MANY, 1)
    first, second = render_s1(rng(1), place), render_s1(rng(1), place)
    np.testing.assert_array_equal(first, second)
    ratio_db = render_s1(rng(2), place)[..., 0] - first[..., 0]
    assert 1.5 < ratio_db.std() < 4.5


def test_buildings_and_trees_rise_above_the_ground_and_are_seen():
    buildings, trees = 0, 0
    for index in range(12):
        place = aerial_place(MANY, 2, index)
        above = place.surface - place.terrain
        assert above.min() >= 0
        assert (above[place.buildings > 0] >= 2.5).all()
        assert (above[place.cover == Cover.WATER] == 0).all()
        buildings += int((place.buildings > 0).sum())
        trees += int((above[place.cover == Cover.FOREST] > 5).sum())
        image = render_rgb(rng(index), place)
        assert image.shape == (96, 96, 3)
        assert image.std() > 10
    assert buildings > 2000
    assert trees > 2000
