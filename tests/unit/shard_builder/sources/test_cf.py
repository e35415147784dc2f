"""What CF attributes say of the numbers in NetCDF and zarr, held against xarray; dates of every calendar."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pytest
import zarr

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from shard_builder.config import SensorOverride
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.radiometry import Pixels, prepare
from shard_builder.sources.folder import load_cube
from shard_builder.sources.shared.cf_time import read_dates
from shard_builder.sources.shared.sensor import OwnSensor
from tests.make.reading import list_archive, reader

INT = np.array([[0, 1, 2, 3], [100, 200, -5, -32768], [32767, 250, -1, 7]], np.int16)
FLOAT = np.array([[0, 1.5, 2, np.nan], [100, -9999, -5, 1e20], [9.96921e36, 250, -1, 7]], np.float32)


def packed(folder: Path, name: str, dtype: str, bands: tuple[str, ...] = ("t",), **more: Any) -> Pixels:
    """Return the array of a file as a sensor has it."""
    files = reader(folder, folder / "work")
    dataset = "{band}" if len(bands) > 1 else bands[0]
    sensor = OwnSensor(files=name, dataset=dataset)
    spec = SensorSpec(name="x", bands=bands, dtype=dtype, units="K", **more)  # type: ignore[arg-type]
    refs = tuple(ref for ref in list_archive(folder, ".", folder / "work").members if ref.member.startswith(name))
    return prepare(load_cube(refs, spec, sensor, files), PlannedRaster(refs), spec, SensorOverride())


def write_nc(path: Path, arrays: dict[str, np.ndarray[Any, Any]], **attributes: Any) -> None:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
            file[name].attrs.update(attributes)


ATTRIBUTES: dict[str, tuple[np.ndarray[Any, Any], dict[str, Any]]] = {
    "_FillValue": (FLOAT, {"_FillValue": np.float32(-9999)}),
    "_FillValue of more digits": (FLOAT, {"_FillValue": 1e20}),
    "missing_value": (FLOAT, {"missing_value": np.float32(1e20)}),
    "both": (FLOAT, {"_FillValue": np.float32(-9999), "missing_value": np.float32(1e20)}),
    "several": (FLOAT, {"missing_value": np.array([-9999, 1e20, 7], "f4")}),
    "integers": (INT, {"_FillValue": np.int16(-32768), "scale_factor": 0.5, "add_offset": 10.0}),
    "unsigned": (INT, {"_FillValue": np.int16(-1), "_Unsigned": "true", "scale_factor": 2.0}),
    "scaled by whole numbers": (INT, {"scale_factor": np.int64(2), "add_offset": np.int64(-273)}),
    "scaled without fill": (INT, {"scale_factor": np.float32(0.25)}),
    "scaled floats": (FLOAT, {"scale_factor": 2.0, "_FillValue": np.float32(7)}),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_values_of_netcdf_are_those_of_xarray(name: str, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    values, attributes = ATTRIBUTES[name]
    write_nc(tmp_path / "a.nc", {"t": values}, **attributes)
    own = {"_FillValue of more digits": [1e20], "several": [-9999, 1e20, 7]}  # xarray: only to the bit, only one
    if name in own:
        expected = np.where(np.isin(values, np.array(own[name], values.dtype)), np.nan, values)
    else:
        variable = xarray.Variable(("y", "x"), values, dict(attributes))
        expected = xarray.conventions.decode_cf_variable("t", variable).values
    np.testing.assert_allclose(packed(tmp_path, "a.nc", "float32").raster[0], expected, rtol=1e-6)


RANGES: list[tuple[dict[str, Any], list[int]]] = [
    ({"valid_range": np.array([0, 200], "i2")}, [0, 1, 2, 3, 7, 100, 200]),
    ({"valid_min": np.int16(3)}, [3, 7, 100, 200, 250, 32767]),
    ({"valid_max": np.int16(3)}, [-32768, -5, -1, 0, 1, 2, 3]),
    ({"valid_range": np.array([0.0, 20.0]), "scale_factor": 0.1}, [0, 1, 2, 3, 7, 100, 200]),
    ({"valid_range": np.array([0.0, 20.0], "f4"), "scale_factor": np.float32(0.1)}, [0, 1, 2, 3, 7, 100, 200]),
    ({"valid_range": np.array([0, -100], "i2"), "_Unsigned": "true"}, [0, 1, 2, 3, 7, 100, 200, 250, 32767, 32768]),
]


@pytest.mark.parametrize(("attributes", "valid"), RANGES)
def test_what_lies_outside_the_valid_range_was_not_measured(
    attributes: dict[str, Any], valid: list[int], tmp_path: Path
) -> None:
    write_nc(tmp_path / "a.nc", {"t": INT}, **attributes)
    found = packed(
        tmp_path,
        "a.nc",
        "float32" if "scale_factor" in attributes else "int32",
        **({} if "scale_factor" in attributes else {"kind": "labels", "nodata": -99999}),
    )
    assert found.measured is not None
    values = INT.view(np.uint16) if "_Unsigned" in attributes else INT
    assert sorted(values[found.measured[0]].tolist()) == valid


@pytest.mark.parametrize("said", ["true", "True", b"true", np.array([b"true"]), 1, True])
def test_every_spelling_of_unsigned(said: Any, tmp_path: Path) -> None:
    write_nc(tmp_path / "a.nc", {"t": INT}, _Unsigned=said)
    np.testing.assert_array_equal(packed(tmp_path, "a.nc", "uint16").raster[0], INT.view(np.uint16))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.filterwarnings("ignore")
def test_zipped_zarr_whose_metadata_were_written_twice(version: Literal[2, 3], tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    encoding = {"dtype": "int16", "scale_factor": 0.5, "add_offset": -20, "_FillValue": -32768}
    values = np.array([[1, 2.5], [np.nan, -7]], np.float32)
    with zarr.storage.ZipStore(str(tmp_path / "a.zarr.zip"), mode="w") as store:
        data = xarray.Dataset({"t": (("y", "x"), values)})
        data.to_zarr(store, zarr_format=version, encoding={"t": encoding}, consolidated=False)
    np.testing.assert_array_equal(packed(tmp_path, "a.zarr.zip", "float32").raster[0], values)


def test_classic_netcdf_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_bytes(b"CDF\x01" + bytes(64))
    with pytest.raises(ItemError, match=r"a\.nc is NetCDF 3, expected NetCDF 4: convert it"):
        packed(tmp_path, "a.nc", "float32")


def test_every_band_has_its_own_fill_value(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.nc", "w") as file:
        for name, fill in (("t", -9999.0), ("u", -32768.0), ("v", None)):
            file[name] = np.array([[1, -9999], [-32768, 2]], np.float32)
            if fill is not None:
                file[name].attrs["_FillValue"] = np.array([fill], "f4")
    found = packed(tmp_path, "a.nc", "float32", ("t", "u", "v"))
    missing = [[[0, 1], [0, 0]], [[0, 0], [1, 0]], [[0, 0], [0, 0]]]
    np.testing.assert_array_equal(np.isnan(found.raster), missing)


def test_attributes_that_cannot_be_used_are_reported(tmp_path: Path) -> None:
    write_nc(tmp_path / "a.nc", {"t": INT}, _FillValue="unknown", valid_range=np.array([1.0]), scale_factor="x")
    found = packed(tmp_path, "a.nc", "int16")
    assert found.rules == (
        "_FillValue 'unknown' is no number: not used",
        "valid_range '[1.]' is not 2 numbers: not used",
        "scale_factor 'x' is not 1 numbers: not used",
    )


def test_scale_that_is_not_applied_is_named(tmp_path: Path) -> None:
    write_nc(tmp_path / "a.nc", {"t": INT}, scale_factor=0.5, add_offset=2.0)
    found = packed(tmp_path, "a.nc", "int16")
    assert found.rules == ("x: file declares scale 0.5, offset 2: not applied, numbers as stored",)
    np.testing.assert_array_equal(found.raster[0], INT)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("fill", [-9999, 0, np.nan])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
@pytest.mark.filterwarnings("ignore")
def test_fill_values_that_xarray_writes_to_zarr(version: int, fill: float, dtype: str, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    values = np.arange(1.0, 65).reshape(8, 8)
    values[:2] = np.nan
    data = xarray.DataArray(values, dims=("y", "x"), name="t").to_dataset()
    if dtype == "i2" and np.isnan(fill):
        fill = -1
    data["t"].encoding.update(_FillValue=np.dtype(dtype).type(fill), dtype=dtype)
    data.to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=False)
    type_name = {"f4": "float32", "f8": "float64", "i2": "int16"}[dtype]
    found = packed(tmp_path, "a.zarr", type_name, nodata=fill if dtype == "i2" else None)
    assert found.nodata_share == 0.25


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("fill", "share"), [(-9999.0, 0.25), (0.0, 0.0), (np.nan, 0.25)])
def test_fill_value_of_a_zarr_array_itself(version: Any, fill: float, share: float, tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    array = group.create_array("t", shape=(8, 8), chunks=(2, 8), dtype="f4", fill_value=fill)
    array[2:] = 5  # the first chunk is never written
    assert packed(tmp_path, "a.zarr", "float32").nodata_share == share


@pytest.mark.parametrize("text", ["NaN", "-9999", "-9999.0", base64.b64encode(struct.pack("<d", -9999)).decode()])
def test_fill_values_in_text(text: str, tmp_path: Path) -> None:
    write_nc(tmp_path / "a.nc", {"t": FLOAT}, _FillValue=text)
    assert np.isnan(packed(tmp_path, "a.nc", "float32").raster).sum() == (1 if text == "NaN" else 2)


def times(values: Any, units: str, **attributes: Any) -> Any:
    array = np.atleast_1d(np.asarray(values))
    known = {"units": units, **attributes}

    class Array:
        attrs = known
        dtype = array.dtype

        def __getitem__(self, key: object) -> Any:
            return array

    return Array()


DATES: list[tuple[Any, str, dict[str, Any], str]] = [
    (10000, "days since 1990-01-01", {}, "2017-05-19"),
    (10000.3, "days since 1990-01-01", {}, "2017-05-19T07:12:00Z"),
    (10000, "Days Since 1990-1-1 00:00:00", {}, "2017-05-19"),
    (24, "h since 2000-02-28T12", {}, "2000-02-29T12:00:00Z"),
    (1, "hours since 2000-01-01 00:00:00 +02:00", {}, "1999-12-31T23:00:00Z"),
    (0, "seconds since 1970-01-01 00:00:00 UTC", {}, "1970-01-01"),
    (1500000000123456789, "nanoseconds since 1970-01-01", {}, "2017-07-14T02:40:00Z"),
    (-1, "days since 1970-01-01", {}, "1969-12-31"),
    (737500, "days since 0001-01-01", {"calendar": "proleptic_gregorian"}, "2020-03-17"),
    (737500, "days since 0001-01-01", {}, "2020-03-15"),  # the standard calendar begins with the Julian one
    (59, "days since 2000-01-01", {"calendar": "noleap"}, "2000-03-01"),
    (59, "days since 2001-01-01", {"calendar": "all_leap"}, None),
    (60, "days since 2001-01-01", {"calendar": "366_day"}, "2001-03-01"),
    (360 * 3 + 31, "days since 2000-01-01", {"calendar": "360_day"}, "2003-02-02"),
    (0, "days since 2000-02-30", {"calendar": "360_day"}, None),
    (0, "days since 2000-01-01", {"calendar": "julian"}, "2000-01-14"),
    (0, "days since 2000-01-01", {"calendar": "martian"}, None),
    (5, "days since 2000-01-01", {"scale_factor": 2.0, "add_offset": 1.0}, "2000-01-12"),
    (-999, "days since 2000-01-01", {"_FillValue": -999}, None),
    (-999, "days since 2000-01-01", {"missing_value": np.array([-1, -999])}, None),
    (np.nan, "days since 2000-01-01", {}, None),
    (np.inf, "days since 2000-01-01", {}, None),
    (1e300, "days since 2000-01-01", {}, None),
    (-2147483648, "days since 1990-01-01", {}, None),
    (730000, "days since 0000-01-01", {}, None),
    (730000, "days since 0000-01-01", {"calendar": "noleap"}, "2000-01-01"),
    (0, "days since 2020-01-01 00:00:60", {}, None),
    (0, "days since 2020-13-01", {}, None),
    (0, "days since yesterday", {}, None),
    (0, "months since 2020-01-01", {}, None),
    (0, "furlongs", {}, None),
    (20200230, "1", {}, None),
    (20200229, "1", {}, "2020-02-29"),
    (np.datetime64("NaT"), "", {}, None),
    (np.datetime64("2020-02-29T10:00:01"), "", {}, "2020-02-29T10:00:01Z"),
    (b"S2A_20200229T101500_x", "", {}, "2020-02-29T10:15:00Z"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "units", "attributes", "expected"), DATES)
def test_dates_of_any_calendar_or_an_error(
    value: Any, units: str, attributes: dict[str, Any], expected: str | None
) -> None:
    array = times(value, units, **attributes)
    if expected is not None:
        assert read_dates(array, "k1.nc: 'time'") == (expected,)
        return
    with pytest.raises(ItemError):
        read_dates(array, "k1.nc: 'time'")


def test_a_day_of_text_that_no_month_has_is_an_error() -> None:
    with pytest.raises(ItemError, match="20210230"):
        read_dates(times(b"20210230", ""), "k1.nc")
