"""Where NetCDF and zarr arrays lie: coordinates in any unit, and the conventions of zarr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from pyproj import CRS

from shard_builder.sources.shared.cf import grid_of

SIZE = 4, 5
POLAR = {
    "grid_mapping_name": "polar_stereographic",
    "straight_vertical_longitude_from_pole": -45.0,
    "latitude_of_projection_origin": 90.0,
    "standard_parallel": 70.0,
    "false_easting": 0.0,
    "false_northing": 0.0,
    "semi_major_axis": 6378273.0,
    "semi_minor_axis": 6356889.44891,
}


def netcdf(path: Path, y: Any, x: Any, units: str, mapping: dict[str, Any]) -> Any:
    file = h5py.File(path, "w")
    file["v"] = np.zeros(SIZE, "f4")
    for axis, (name, values) in enumerate((("y", y), ("x", x))):
        file[name] = np.asarray(values, "f8")
        file[name].attrs["units"] = units
        file[name].make_scale(name)
        file["v"].dims[axis].attach_scale(file[name])
    file["grid"] = np.int32(0)
    file["grid"].attrs.update(mapping)
    file["v"].attrs["grid_mapping"] = "grid"
    return file


@pytest.mark.parametrize(
    ("units", "factor"), [("km", 1e-3), ("kilometers", 1e-3), ("m", 1.0), ("metre", 1.0), ("", 1.0)]
)
def test_coordinates_may_be_in_kilometres(units: str, factor: float, tmp_path: Path) -> None:
    y, x = 5.8e6 - 1e4 * np.arange(4), -3.8e6 + 1e4 * np.arange(5)
    with netcdf(tmp_path / "a.nc", y * factor, x * factor, units, POLAR) as file:
        found = grid_of(file, file["v"], (0, 1), SIZE)
    assert found is not None
    assert found.crs is not None
    np.testing.assert_allclose(found.transform or (), (1e4, 0, -3.805e6, 0, -1e4, 5.805e6))


def test_angles_of_a_geostationary_view_are_metres_by_its_distance(tmp_path: Path) -> None:
    mapping = {
        "grid_mapping_name": "geostationary",
        "perspective_point_height": 35786023.0,
        "semi_major_axis": 6378137.0,
        "semi_minor_axis": 6356752.31414,
        "longitude_of_projection_origin": -75.0,
        "latitude_of_projection_origin": 0.0,
        "sweep_angle_axis": "x",
    }
    y, x = 0.1 - 5.6e-5 * np.arange(4), 0.02 + 5.6e-5 * np.arange(5)
    with netcdf(tmp_path / "a.nc", y, x, "rad", mapping) as file:
        found = grid_of(file, file["v"], (0, 1), SIZE)
    assert found is not None
    assert found.transform is not None
    assert found.transform[0] == pytest.approx(5.6e-5 * 35786023.0)
    assert CRS(found.crs).to_dict()["proj"] == "geos"


UTM = [10.0, 0.0, 6e5, 0.0, -10.0, 5.4e6]


@pytest.mark.parametrize("on_group", [True, False])
@pytest.mark.parametrize(
    ("attributes", "crs"),
    [
        ({"proj:code": "EPSG:32632", "spatial:transform": UTM}, "EPSG:32632"),
        ({"proj:epsg": 32632, "proj:transform": [*UTM, 0, 0, 1]}, "EPSG:32632"),
        ({"proj:wkt2": CRS("EPSG:32632").to_wkt(), "proj:transform": UTM}, "EPSG:32632"),
        ({"proj:projjson": CRS("ESRI:54009").to_json_dict(), "spatial:transform": UTM}, "ESRI:54009"),
        ({"_CRS": {"wkt": CRS("EPSG:32632").to_wkt()}, "spatial:transform": UTM}, "EPSG:32632"),
        ({"spatial:transform": UTM}, None),
    ],
)
def test_conventions_of_zarr(attributes: dict[str, Any], crs: str | None, on_group: bool) -> None:
    group = zarr.open_group({}, mode="w")
    array = group.create_array("v", shape=SIZE, dtype="f4")
    (group if on_group else array).attrs.update(attributes)
    found = grid_of(group, array, (0, 1), SIZE)
    assert found is not None
    assert (found.crs, found.transform) == (crs, tuple(UTM))


@pytest.mark.parametrize(
    "bad", ["10 0 0", [1, 2], [0, 0, 0, 0, 0, 0], {"a": 1}, [1, 2, "x", 4, 5, 6], [[1], 2, 3, 4, 5, 6]]
)
def test_a_transform_that_is_none_is_no_location(bad: Any) -> None:
    group = zarr.open_group({}, mode="w")
    array = group.create_array("v", shape=SIZE, dtype="f4")
    array.attrs.update({"spatial:transform": bad, "proj:code": [3]})
    assert grid_of(group, array, (0, 1), SIZE) is None
