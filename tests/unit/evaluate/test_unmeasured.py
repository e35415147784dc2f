"""Metrics, features and pictures of samples that were measured in part are those of the measured part."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from gfm_pipeline.data.normalize import Normalisation
from gfm_pipeline.evaluate.features import PIXELS, _describe
from gfm_pipeline.evaluate.reconstruct import hidden_l1, mean_of_known
from gfm_pipeline.evaluate.speckle import backscatter_rows, speckle_suppression_index, summarise_backscatter
from gfm_pipeline.models.embed import cells_to_pixels
from gfm_pipeline.sensors import builtin_sensor
from gfm_pipeline.sensors.render import MISSING
from gfm_pipeline.viz.reconstruct import reconstruct_batch
from gfm_pipeline.viz.run import _pictures
from tests.make_batch import IMAGE_PX, make_batch, tiny_model

S1 = builtin_sensor("s1")


def test_the_distance_is_over_measured_hidden_pixels_of_each_image() -> None:
    generator = torch.Generator().manual_seed(0)
    image, target = (torch.randn(3, 2, 16, 16, generator=generator) for _ in range(2))
    mask = torch.rand(3, 4, 4, generator=generator) < 0.6
    valid = torch.rand(3, 2, 16, 16, generator=generator) < 0.125
    valid[2] = False
    target[~valid] = math.nan
    found = hidden_l1(image, target, mask, valid)
    counted = valid & cells_to_pixels(mask, 16).bool()
    for row in range(2):
        expected = (image[row] - target[row]).abs()[counted[row]].double().mean()
        assert float(found[row]) == pytest.approx(float(expected), abs=1e-6)
    assert math.isnan(float(found[2]))
    assert mean_of_known(found.numpy()) == pytest.approx(float(found[:2].mean()))


def test_no_known_number_has_no_mean() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(mean_of_known(np.array([math.nan, math.nan])))


def test_backscatter_counts_what_was_measured() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.normal(-12, 4, (5, 2, 8, 8)), rng.normal(-11, 2, (5, 2, 8, 8))
    valid = rng.random(before.shape) < 0.3
    valid[3] = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = backscatter_rows(before, after, S1, valid)
        found = summarise_backscatter(rows, S1)
    for band, name in enumerate(S1.bands):
        known = valid[:, band]
        assert found[name]["mean_db_before"] == pytest.approx(before[:, band][known].mean())
        assert found[name]["std_db_before"] == pytest.approx(before[:, band][known].std())
        assert found[name]["std_db_after"] == pytest.approx(after[:, band][known].std())
        each = []
        for row in (0, 1, 2, 4):
            power = [10 ** (image[row, band][known[row]] / 10) for image in (before, after)]
            each.append(speckle_suppression_index(*(part.reshape(1, 1, 1, -1) for part in power)).item())
        assert found[name]["speckle_suppression_index"] == pytest.approx(np.mean(each))


def test_a_band_that_nobody_measured_has_no_numbers() -> None:
    images = np.random.default_rng(0).normal(-12, 4, (2, 2, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = summarise_backscatter(backscatter_rows(images, images, S1, np.zeros(images.shape, bool)), S1)
    assert all(math.isnan(value) for value in found["VV"].values())


def test_pixel_statistics_are_those_of_measured_pixels() -> None:
    batch = make_batch({"pairs": ["s1"]}, num_samples=3).streams["pairs"]
    valid = torch.rand(batch.images["s1"].shape, generator=torch.Generator().manual_seed(1)) < 0.2
    valid[1, 0] = False
    batch.images["s1"][~valid] = 0
    found = _describe(tiny_model({"pairs": ["s1"]}).eval(), replace(batch, valid={"s1": valid}))[PIXELS]
    for row in range(3):
        for band in range(2):
            known = batch.images["s1"][row, band][valid[row, band]]
            expected = (float(known.mean()), float(known.std(correction=0))) if len(known) else (0.0, 0.0)
            assert (found[row, band], found[row, 2 + band]) == pytest.approx(expected, abs=1e-5)


def test_pictures_show_what_was_not_measured_in_a_colour_of_its_own() -> None:
    streams = {"pairs": ["rgb", "dsm"]}
    batch = make_batch(streams).streams["pairs"]
    gap = torch.zeros(IMAGE_PX, IMAGE_PX, dtype=torch.bool)
    gap[: IMAGE_PX // 2, 5:] = True
    valid = (~gap).expand(2, 1, IMAGE_PX, IMAGE_PX)
    batch.images["dsm"][~valid] = 0
    batch = replace(batch, valid={"dsm": valid})
    model = tiny_model(streams).eval()
    statistics = {name: Normalisation((100.0,) * n, (50.0,) * n) for name, n in (("rgb", 3), ("dsm", 1))}
    sensors = {name: builtin_sensor(name) for name in ("rgb", "dsm")}
    for one in reconstruct_batch(model, sensors, statistics, batch, "rgb", "dsm", 0):
        masked, source, predicted, truth = _pictures(one)
        for picture in (predicted, truth):
            assert np.array_equal((picture == MISSING).all(axis=2), gap.numpy())
        assert not (source == MISSING).all(axis=2).any()
    for one in reconstruct_batch(model, sensors, statistics, batch, "dsm", "dsm", 0):
        masked, predicted, pasted, truth = _pictures(one)
        visible = ~np.kron(one.mask_ij, np.ones((8, 8), bool))
        assert np.array_equal((masked == MISSING).all(axis=2), gap.numpy() & visible)
        for picture in (predicted, pasted, truth):
            assert np.array_equal((picture == MISSING).all(axis=2), gap.numpy())
