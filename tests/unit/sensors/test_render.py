from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from gfm_pipeline.sensors import BUILTIN_SENSORS, Display, SensorSpec
from gfm_pipeline.sensors.render import (
    HIDDEN_GREY,
    MISSING,
    display_bands,
    hide,
    limits_of,
    paste,
    render,
    render_classes,
)

S1, S2, RGB, DSM = (BUILTIN_SENSORS[name] for name in ("s1", "s2", "rgb", "dsm"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def scene(rng, spec, size=64):
    """An image [C,size,size] in the units of the sensor."""
    y, x = np.mgrid[:size, :size] / size
    waves = np.sin(6 * x) * np.cos(5 * y)
    ranges = {"s1": (-16, 6), "s2": (1500, 900), "rgb": (120, 80), "dsm": (480, 25)}
    centre, spread = ranges[spec.name]
    shifted = [waves * (1 - 0.02 * band) + 0.05 * rng.standard_normal(waves.shape) for band in range(len(spec.bands))]
    return (centre + spread * np.stack(shifted)).astype(np.float32)


@pytest.mark.parametrize("spec", [S1, S2, RGB, DSM], ids=lambda spec: spec.name)
def test_every_sensor_becomes_a_picture_that_uses_the_range(rng, spec):
    picture = render(scene(rng, spec), spec)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 25


def test_colour_shows_bands_by_name(rng):
    assert display_bands(S2) == [3, 2, 1]
    image = np.full((13, 8, 8), 500, np.float32)
    image[3, :, :4] = 2500  # B4 is red
    picture = render(image, S2)
    assert picture[0, 0].argmax() == 0
    assert picture[0, 0, 0] == 255


def test_eight_bit_colour_is_shown_as_it_is(rng):
    image = rng.integers(0, 256, (3, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(render(image, RGB), np.moveaxis(image, 0, -1).astype(np.uint8))


def test_grey_is_grey_and_rises_with_the_value():
    ramp = np.stack([np.tile(np.linspace(-25, -3, 50, dtype=np.float32), (20, 1))] * 2)
    picture = render(ramp, S1)
    assert (picture[..., 0] == picture[..., 1]).all()
    assert (picture[..., 0] == picture[..., 2]).all()
    assert (np.diff(picture[0, :, 0].astype(int)) >= 0).all()


def test_shading_lights_slopes_that_face_north_west():
    y, x = np.mgrid[:64, :64]
    hill = 30 - np.hypot(y - 32, x - 32).astype(np.float32)
    picture = render(hill[None], DSM).astype(int).sum(2)
    assert picture[20:26, 20:26].mean() > picture[38:44, 38:44].mean() + 60


def test_equal_values_get_equal_colours_under_shared_limits(rng):
    for spec in (S1, S2):
        target = scene(rng, spec)
        limits = limits_of(target, spec)
        other = target * 0.5
        other[:, :8, :8] = target[:, :8, :8]
        np.testing.assert_array_equal(render(target, spec, limits)[:8, :8], render(other, spec, limits)[:8, :8])


@pytest.mark.parametrize("spec", [S1, S2, DSM], ids=lambda spec: spec.name)
def test_constant_and_broken_images_are_still_drawn(spec):
    image = np.full((len(spec.bands), 16, 16), 7, np.float32)
    assert render(image, spec).shape == (16, 16, 3)
    image[:, 3:5] = np.nan
    assert render(image, spec).shape == (16, 16, 3)
    assert render(np.full_like(image, np.nan), spec).shape == (16, 16, 3)


def test_a_pixel_without_a_measurement_has_a_colour_of_its_own(rng):
    image = scene(rng, S2)
    image[2, 5, 7] = np.nan  # B3 is green
    picture = render(image, S2)
    assert tuple(picture[5, 7]) == MISSING
    assert (picture == MISSING).all(axis=2).sum() == 1


def test_a_class_has_the_same_colour_on_every_map():
    first, second = render_classes(np.array([[0, 3], [17, 3]])), render_classes(np.array([[3, 200]]))
    assert first.shape == (2, 2, 3)
    np.testing.assert_array_equal(first[0, 1], second[0, 0])
    np.testing.assert_array_equal(first[0, 1], first[1, 1])
    assert len({tuple(colour) for colour in [*first[0], first[1, 0], second[0, 1]]}) == 4


def test_a_sensor_that_names_no_display_shows_its_first_bands():
    pan = SensorSpec(name="pan", bands=("P",), dtype="uint16", units="digital number")
    assert display_bands(pan) == [0]
    two = SensorSpec(name="two", bands=("A", "B"), dtype="uint16", units="x", display=Display(mode="colour"))
    assert display_bands(two) == [0, 1, 1]


@pytest.mark.parametrize("size", [64, 70])
def test_hidden_cells_are_neutral_grey_and_the_rest_untouched(rng, size):
    picture = render(scene(rng, S2, size), S2)
    mask = np.zeros((4, 4), bool)
    mask[1, 2] = mask[3, 0] = True
    out = hide(picture, mask)
    hidden = mask[np.arange(size) * 4 // size][:, np.arange(size) * 4 // size]
    np.testing.assert_array_equal(out[~hidden], picture[~hidden])
    veil = out[hidden].astype(int)
    assert (veil.max(1) == veil.min(1)).all()
    assert np.abs(veil - HIDDEN_GREY).max() < 30
    assert np.median(veil) == HIDDEN_GREY
    assert len(np.unique(veil)) > 1


def test_paste_takes_hidden_cells_from_the_prediction(rng):
    visible, predicted = scene(rng, S1), scene(rng, S1) + 3
    mask = rng.random((4, 4)) < 0.5
    out = paste(visible, predicted, mask)
    cells = np.kron(mask, np.ones((16, 16), bool)).astype(bool)
    np.testing.assert_array_equal(out[:, cells], predicted[:, cells])
    np.testing.assert_array_equal(out[:, ~cells], visible[:, ~cells])


def test_drawing_needs_neither_torch_nor_global_figures():
    code = (
        "import sys; from gfm_pipeline.sensors import render; from gfm_pipeline.viz import curves, experts, grid; "
        "print(sorted({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_relief_shows_no_cliff_where_the_data_end() -> None:
    spec = BUILTIN_SENSORS["dsm"]
    slope = np.tile(np.linspace(0, 100, 32, dtype=np.float32), (32, 1))[None]
    holed = slope.copy()
    holed[:, 10:20, 12:] = np.nan
    limits = limits_of(slope, spec)
    whole, seen = render(slope, spec, limits), render(holed, spec, limits)
    measured = np.isfinite(holed[0])
    assert (seen[~measured] == MISSING).all()
    # A pixel beside the gap has a neighbour less to tell its slope by: half a slope of light at most.
    assert np.abs(seen[measured].astype(int) - whole[measured]).max() < 40
    far = measured.copy()
    far[9:21, 11:] = False
    assert np.array_equal(seen[far], whole[far])
