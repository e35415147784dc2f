"""The offset of Sentinel-2's processing baseline 04.00 is found in the pixels, or the image is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import builtin_sensor
from gfm_pipeline.shards.codec import Raster
from shard_builder.archives import MemberRef
from shard_builder.config import BuildConfig, SensorOverride
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.radiometry import prepare
from shard_builder.rasters.raster import Decoded
from shard_builder.rasters.sentinel2 import carries_offset

FILE = MemberRef("", "folder", "a.tif", 1)
L1C, L2A = builtin_sensor("s2").bands, builtin_sensor("s2_l2a").bands
GROUND = {"B1": 1300, "B2": 1000, "B3": 900, "B4": 800, "B8": 2500, "B8A": 2600, "B9": 600, "B10": 15, "B12": 900}


def image(bands: tuple[str, ...], add: float = 0, brightest: float = 0, dark: int = 40) -> Raster:
    """Return [C,40,40] of reflectances around GROUND, the first `dark` pixels of them in shadow."""
    rng = np.random.default_rng(3)
    pixels = np.stack([rng.normal(GROUND.get(band, 2000), 30, 1600) for band in bands]) + brightest
    pixels[:, :dark] *= 0.1
    return (pixels.clip(1, None) + add).reshape(len(bands), 40, 40).astype(np.uint16)


@pytest.mark.parametrize("bands", [L1C, L2A, tuple(b.replace("B", "B0") if len(b) == 2 else b for b in L2A)])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_both_kinds_are_told_apart(bands: tuple[str, ...], dtype: type, tmp_path: Path) -> None:
    both = np.stack([image(bands).astype(dtype), image(bands, 1000).astype(dtype)])
    assert carries_offset(both, None, bands, 1000, "x").tolist() == [False, True]


def test_level_1c_needs_no_shadow() -> None:
    assert carries_offset(image(L1C, 1000, dark=0), None, L1C, 1000, "x").tolist() == [True]


@pytest.mark.parametrize(
    ("bands", "raster"),
    [
        (L2A, image(L2A, brightest=4000, dark=0)),  # clouds without the offset
        (L2A, image(L2A, 1000, brightest=4000, dark=0)),  # and with it
        (L1C, image(L1C, brightest=3000, dark=0)),
        (L2A[:4], image(L2A[:4], 1000)),  # nothing infrared
    ],
)
def test_what_shows_neither_is_refused(bands: tuple[str, ...], raster: Raster) -> None:
    with pytest.raises(ItemError, match=r"x does not show whether it carries an offset of 1000: .*B2"):
        carries_offset(raster, None, bands, 1000, "x")


def test_pixels_of_nothing_do_not_count() -> None:
    raster = image(L1C, 1000)
    raster[:, :3] = 0
    assert carries_offset(raster, None, L1C, 1000, "x").tolist() == [True]
    raster[:, 3:6] = 7
    measured = np.ones((1, 40, 40), np.bool_)
    measured[:, 3:6] = False
    assert carries_offset(raster, measured, L1C, 1000, "x").tolist() == [True]
    assert carries_offset(np.zeros_like(raster), None, L1C, 1000, "x").tolist() == [False]


def test_it_is_taken_off_image_by_image() -> None:
    spec = builtin_sensor("s2")
    series = np.stack([image(L1C), image(L1C, 1000)])
    override = SensorOverride(offset=-1000, offset_evidence="pixels")
    pixels = prepare(Decoded(series), PlannedRaster((FILE,), dates=("2021-01-01", "2023-01-01")), spec, override)
    np.testing.assert_array_equal(pixels.raster, np.stack([series[0], series[1] - 1000]))
    assert pixels.rules == ("s2: offset -1000 added",)
    alone = prepare(Decoded(series[0]), PlannedRaster((FILE,)), spec, override)
    np.testing.assert_array_equal(alone.raster, series[0])
    assert alone.rules == ("s2: no offset in the pixels: none taken off",)


def test_only_a_negative_offset_can_be_shown() -> None:
    with pytest.raises(ValueError, match="set a negative offset"):
        SensorOverride(offset_evidence="pixels")


def test_configurations_of_before_keep_their_digest() -> None:
    base = {"source": "sen12ms", "input": "a", "output": "b"}
    plain = BuildConfig(**base, sensors={"s2": {"offset": -1000}})
    assert plain.digest() == "6a78ac680fca2c3100e4c55c35ca2825399645c481324c63f335a4dcce64c018"
    assert (
        plain.digest() != BuildConfig(**base, sensors={"s2": {"offset": -1000, "offset_evidence": "pixels"}}).digest()
    )
