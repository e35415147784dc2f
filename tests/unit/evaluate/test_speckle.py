"""Backscatter statistics against their definition, written out for one image."""

import math

import numpy as np
import pytest

from gfm_pipeline.evaluate.speckle import (
    backscatter_rows,
    is_backscatter,
    speckle_suppression_index,
    summarise_backscatter,
)
from gfm_pipeline.sensors import SensorSpec, builtin_sensor

S1 = builtin_sensor("s1")
LINEAR = S1.model_copy(update={"units": "sigma nought, linear power"})


def variation(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)) / mean


def test_the_index_is_the_ratio_of_coefficients_of_variation() -> None:
    before, after = [1.0, 2.0, 6.0, 3.0], [2.0, 2.5, 4.0, 3.5]
    index = speckle_suppression_index(*(np.array(image).reshape(1, 1, 2, 2) for image in (before, after)))
    assert index.item() == pytest.approx(variation(after) / variation(before))


def test_averaging_looks_suppresses_speckle_as_theory_has_it() -> None:
    looks = np.random.default_rng(0).exponential(size=(16, 1, 1, 128, 128))  # single-look power of even ground
    index = speckle_suppression_index(looks[0], looks.mean(0))
    assert index.item() == pytest.approx(1 / 4, rel=0.02)  # std / mean falls with the root of the looks


def test_decibels_are_compared_in_linear_power() -> None:
    rng = np.random.default_rng(1)
    power = [rng.exponential(size=(3, 2, 16, 16)) + 0.01 for _ in range(2)]
    decibels = [10 * np.log10(image) for image in power]
    in_db, in_power = backscatter_rows(*decibels, S1), backscatter_rows(*power, LINEAR)
    np.testing.assert_allclose(in_db, in_power)
    np.testing.assert_allclose(in_db[..., 4], speckle_suppression_index(*power))
    # A shift in dB is a factor in power, which no coefficient of variation sees.
    np.testing.assert_allclose(backscatter_rows(decibels[0], decibels[1] - 30, S1)[..., 4], in_db[..., 4])


def test_means_and_deviations_are_those_of_all_pixels() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.normal(-12, 4, (5, 2, 8, 8)), rng.normal(-11, 2, (5, 2, 8, 8))
    found = summarise_backscatter(backscatter_rows(before, after, S1), S1)
    for band, name in enumerate(S1.bands):
        assert found[name]["mean_db_before"] == pytest.approx(before[:, band].mean())
        assert found[name]["std_db_before"] == pytest.approx(before[:, band].std())
        assert found[name]["mean_db_after"] == pytest.approx(after[:, band].mean())
        assert found[name]["std_db_after"] == pytest.approx(after[:, band].std())


def test_an_image_without_speckle_does_not_count() -> None:
    images = np.random.default_rng(3).normal(-10, 3, (2, 2, 4, 4))
    images[0] = -10
    rows = backscatter_rows(images, images, S1)
    assert np.isnan(rows[0, :, 4]).all()
    assert summarise_backscatter(rows, S1)["VV"]["speckle_suppression_index"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("units", "radar"), [("dB", True), ("dB (gamma0)", True), ("m", False), ("digital number", False)]
)
def test_units_tell_radar_from_the_rest(units: str, radar: bool) -> None:
    spec = SensorSpec(name="x", bands=("a",), dtype="float32", units=units)
    assert is_backscatter(spec) is radar


def test_power_of_zero_and_below_has_no_decibels() -> None:
    """One such pixel, of sea or of a prediction, would move a mean by tens of dB."""
    rng = np.random.default_rng(3)
    before, after = (rng.exponential(size=(2, 2, 16, 16)) + 0.01 for _ in range(2))
    before[0, 0, 3, :4] = [0, -1e-9, -1, 0]
    after[1, :, :8] = -0.5
    after[0, 1] = 0
    found = summarise_backscatter(backscatter_rows(before, after, LINEAR), LINEAR)
    for band, name in enumerate(LINEAR.bands):
        for when, image in (("before", before[:, band]), ("after", after[:, band])):
            decibels = 10 * np.log10(image[image > 0])
            assert found[name][f"mean_db_{when}"] == pytest.approx(decibels.mean())
            assert found[name][f"std_db_{when}"] == pytest.approx(decibels.std())
