"""From the numbers of a file to those of a shard: what was not measured, however the file says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from shard_builder.archives import MemberRef
from shard_builder.config import SensorOverride
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.radiometry import Pixels, prepare
from shard_builder.rasters.raster import Decoded, Facts, Nodata

FILE = PlannedRaster((MemberRef("", "folder", "k1.tif", 1),))


def prepared(raster: np.ndarray[Any, Any], declared: Nodata = (), mask: Any = None, **spec: Any) -> Pixels:
    override = spec.pop("override", {})
    bands = tuple(f"b{i}" for i in range(raster.shape[-3]))
    known: dict[str, Any] = {"bands": bands, "dtype": str(raster.dtype), "units": "1", **spec}
    sensor = SensorSpec(name="x", **known)
    return prepare(Decoded(raster, Facts(nodata=declared), None, mask), FILE, sensor, SensorOverride(**override))


def test_declared_nodata_of_floats_becomes_nan_by_band() -> None:
    image = np.array([[[-9999, 1]], [[-32768, 2]], [[3, 4]]], np.float32)
    found = prepared(image, (-9999, -32768, None))
    np.testing.assert_array_equal(found.raster, [[[np.nan, 1]], [[np.nan, 2]], [[3, 4]]])
    assert found.rules == ("x: nodata -9999 set to nan", "x: nodata -32768 set to nan")
    assert found.nodata_share == pytest.approx(1 / 3)


def test_what_one_band_declares_is_data_of_another() -> None:
    found = prepared(np.array([[[-9999, 1]], [[-9999, 2]]], np.float32), (-9999, None))
    assert found.nodata_share == 0.25
    assert found.raster[1, 0, 0] == -9999


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2), (3, 2, 2), (2, 3, 2, 2)])
def test_a_mask_of_any_shape_that_broadcasts(shape: tuple[int, ...]) -> None:
    raster, mask = np.ones((2, 3, 2, 2), np.int16), np.ones(shape, bool)
    mask[..., 0, :] = False
    found = prepared(raster, mask=mask, nodata=-1)
    assert (found.raster[..., 0, :] == -1).all()
    assert (found.raster[..., 1, :] == 1).all()
    assert found.nodata_share == 0.5


def test_a_mask_without_a_value_for_it_is_reported() -> None:
    found = prepared(np.ones((3, 2, 2), np.uint8), mask=np.eye(2, dtype=bool))
    assert found.rules == ("x: file carries a mask, sensor has no nodata: taken as data; set sensors.x.nodata",)
    assert found.measured is None


@pytest.mark.parametrize("value", [-9999, 0.5, np.nan, np.inf, 256])
def test_a_value_that_no_pixel_can_have_is_reported(value: float) -> None:
    found = prepared(np.zeros((1, 2, 2), np.uint8), (value,), nodata=255)
    assert found.rules == (f"x: file declares nodata {value:g}, which uint8 cannot be: not used",)
    assert found.measured is None


def test_the_sensors_own_value_with_fewer_digits_than_the_pixels() -> None:
    image = np.array([[[np.finfo("f4").min, 1]]], np.float32)
    found = prepared(image, nodata=-3.40282e38)
    assert found.nodata_share == 0.5
    assert found.raster[0, 0, 0] == np.float32(-3.40282e38)


def test_a_nodata_value_that_the_type_cannot_have_is_reported() -> None:
    found = prepared(np.zeros((1, 2, 2), np.uint8), mask=np.eye(2, dtype=bool), nodata=-9999)
    assert found.measured is None
    assert found.rules == (
        "x: the sensor's nodata -9999 is no uint8: not used",
        "x: file carries a mask, sensor has no nodata: taken as data; set sensors.x.nodata",
    )


CLASSES = np.array([[[0, 1], [2, 200]]])


@pytest.mark.parametrize("kept", ["int8", "int64", "uint64", "float16", "float32", "float64", "int16", "uint32"])
def test_class_numbers_of_any_type_are_kept(kept: str) -> None:
    classes = CLASSES % 100
    found = prepared(classes.astype(kept), kind="labels", units="class", dtype="uint8")
    np.testing.assert_array_equal(found.raster, classes)
    assert found.raster.dtype == np.uint8
    assert found.rules == (f"x: {kept} stored as uint8, every number kept",)


def test_one_bit_becomes_numbers() -> None:
    found = prepared(CLASSES > 1, kind="labels", units="class", dtype="uint8")
    assert found.raster.tolist() == [[[0, 0], [1, 1]]]


@pytest.mark.parametrize(
    ("raster", "dtype"),
    [
        (np.array([[[-1, 3]]], np.int64), "uint8"),
        (np.array([[[256, 3]]], np.int64), "uint8"),
        (np.array([[[2**64 - 1, 3]]], np.uint64), "int32"),
        (np.array([[[2**24 + 1, 3]]], np.int64), "float32"),
        (np.array([[[0.5, 3]]], np.float32), "uint8"),
        (np.array([[[np.nan, 3]]], np.float32), "uint8"),
        (np.array([[[np.inf, 3]]], np.float32), "int32"),
    ],
)
def test_numbers_that_would_be_others_are_refused(raster: np.ndarray[Any, Any], dtype: str) -> None:
    with pytest.raises(ItemError, match=rf"{raster.dtype} pixels in k1.tif, of which .* none in {dtype}"):
        prepared(raster, kind="labels", units="class", dtype=dtype)


def test_nan_of_a_class_map_is_its_nodata() -> None:
    found = prepared(np.array([[[np.nan, 3]]], np.float32), kind="labels", units="class", dtype="uint8", nodata=255)
    assert found.raster.tolist() == [[[255, 3]]]
    assert found.nodata_share == 0.5


def test_images_keep_the_type_that_is_declared() -> None:
    with pytest.raises(ItemError, match=r"x has int16 pixels in k1.tif, the sensor declares uint16"):
        prepared(np.zeros((1, 2, 2), np.int16), dtype="uint16")


RNG = np.random.default_rng(0)
POWER = RNG.gamma(4, 0.05, (2, 64, 64)).astype(np.float32)
DECIBEL = 10 * np.log10(POWER)


def radar(raster: np.ndarray[Any, Any], convert: str, nodata: float | None = None) -> Pixels:
    return prepared(raster, units="dB", nodata=nodata, override={"convert": convert})


def with_few(raster: np.ndarray[Any, Any], value: float, count: int) -> np.ndarray[Any, Any]:
    found = raster.copy()
    found.reshape(-1)[RNG.choice(found.size, count, replace=False)] = value
    return found


@pytest.mark.parametrize(
    ("value", "count"), [(-1e-4, 1), (-0.01, 1), (-9999, 1), (-50, 40), (0, 4000), (1e9, 1), (-0.001, 1500)]
)
def test_few_pixels_do_not_make_linear_power_decibels(value: float, count: int) -> None:
    power = with_few(POWER, value, count)
    with pytest.raises(ItemError, match=r"k1.tif, expected dB: it seems to be linear power. Set sensors.x.convert"):
        radar(power, "none")
    found = radar(power, "auto")
    positive = power > 0
    np.testing.assert_allclose(found.raster[positive], 10 * np.log10(power[positive]), rtol=1e-4)
    assert found.nodata_share == pytest.approx(1 - positive.mean())
    assert np.isnan(found.raster[~positive]).all()


@pytest.mark.parametrize(("value", "count"), [(40, 1), (0, 6000), (1e9, 3), (3, 2000)])
def test_few_pixels_do_not_make_decibels_linear_power(value: float, count: int) -> None:
    decibel = with_few(DECIBEL, value, count)
    for convert in ("none", "auto"):
        found = radar(decibel, convert)
        np.testing.assert_array_equal(found.raster, decibel)
        assert found.rules == ()


def test_power_that_is_none_was_not_measured() -> None:
    power = POWER.astype(np.float64)
    power[0, 0, :4] = [0, -1, np.finfo(np.float64).tiny, 1]
    found = radar(power, "linear_to_db", nodata=0)
    assert found.raster[0, 0, :3].tolist() == [0, 0, 0]
    assert 0 < found.raster[0, 0, 3] < 1e-300  # 0 dB, which is no nodata
    assert found.nodata_share == 3 / power.size
    assert found.rules == (
        "x: converted from linear to dB",
        "x: power of 0 or less set to nodata",
        "x: measured pixels that would become nodata 0 set next to it",
    )


@pytest.mark.parametrize(
    ("dtype", "offset", "nodata", "values", "expected"),
    [
        ("uint16", -1000, 0, [0, 1, 999, 1000, 1001, 1002], [0, 1, 1, 1, 1, 2]),
        ("uint8", 10, 255, [255, 245, 250, 244], [255, 254, 254, 254]),
        ("int16", 5, 0, [0, -5, 1], [0, 1, 6]),
    ],
)
def test_an_offset_makes_no_measured_pixel_nodata(
    dtype: str, offset: float, nodata: float, values: list[int], expected: list[int]
) -> None:
    raster = np.array([[values]], dtype)
    found = prepared(raster, nodata=nodata, override={"offset": offset})
    assert found.raster[0, 0].tolist() == expected
    assert found.measured is not None
    assert found.measured[0, 0].tolist() == [value != nodata for value in values]
