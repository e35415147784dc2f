"""What NetCDF and zarr attributes say of the grid by the CF conventions. All of it is optional."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from pyproj.exceptions import ProjError

from shard_builder.rasters.georeference import Georeference, crs_text, parsed_crs
from shard_builder.sources.shared.cube_limits import check_table

NAMES = (
    ("y", "lat", "latitude", "nav_lat", "Latitude", "XLAT"),
    ("x", "lon", "longitude", "nav_lon", "Longitude", "XLONG"),
)
"""Of the coordinates of rows and columns, where the axes of an array have none of their own."""
POINTS = 9
"""Along a side, of an array whose coordinates are no even grid."""
_METRES = {"m", "metre", "metres", "meter", "meters"}
_KILOMETRES = {"km", "kilometre", "kilometres", "kilometer", "kilometers"}
_RADIANS = {"rad", "radian", "radians"}
_DEGREES = {"degrees_north", "degrees_east", "degree_north", "degree_east", "latitude", "longitude"}
MAX_BANDS = 4096
"""An axis with more positions has no names that are read."""


def grid_of(group: Any, array: Any, axes: tuple[int, int], size: tuple[int, int]) -> Georeference | None:
    """Return the place of an array from the coordinates of its axes (rows, columns) and its grid mapping.

    Coordinates are of pixel centres, as CF has them: those that belong to the axes, or that have one of NAMES beside
    the array. Longitudes and latitudes need no grid mapping; uneven or two-dimensional ones give points in place of a
    grid. None where there are none.
    """
    crs = _crs(group, array)
    found = [_coordinate_of(group, array, axis, names) for axis, names in zip(axes, NAMES, strict=True)]
    if any(coordinate is None for coordinate in found):
        return _from_mapping(group, array, crs)
    rows, columns = found
    in_degrees = _is_degrees(rows) and _is_degrees(columns)
    if rows.shape == columns.shape == size and len(size) == 2 and in_degrees:
        return _points(size, lambda row, column: (_number(columns, row, column), _number(rows, row, column)))
    y, x = _axis(rows, size[0]), _axis(columns, size[1])
    crs = crs or ("EPSG:4326" if in_degrees else None)
    if x is not None and y is not None:
        (x0, dx), (y0, dy) = (
            tuple(number * _unit(group, array, axis, crs) for number in numbers)
            for axis, numbers in ((columns, x), (rows, y))
        )
        return Georeference(crs, (dx, 0.0, x0 - dx / 2, 0.0, dy, y0 - dy / 2))
    if in_degrees and rows.shape == (size[0],) and columns.shape == (size[1],):
        return _points(size, lambda row, column: (_number(columns, column), _number(rows, row)))
    return _from_mapping(group, array, crs)


def _coordinate_of(group: Any, array: Any, axis: int, names: tuple[str, ...]) -> Any:
    own = _coordinate(group, array, axis)
    others = (_member(group, name) for name in names)
    usable = (one for one in (own, *others) if getattr(one, "shape", None) and one.dtype.kind in "iuf")
    lengths = (one for one in usable if one.shape == (array.shape[axis],) or len(one.shape) == 2)
    return next(lengths, None)


def _member(group: Any, name: str) -> Any:
    """Return what a group of this very file holds by a name, or None; links could lead to other files."""
    if type(group).__module__.startswith("h5py"):
        import h5py

        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            return None
        found = group[name]
        return None if getattr(found, "is_virtual", False) or getattr(found, "external", None) else found
    return group.get(name)


def _is_degrees(coordinate: Any) -> bool:
    said = {_text(coordinate.attrs.get(name, "")).lower() for name in ("units", "standard_name")}
    return bool(said & _DEGREES)


def _number(coordinate: Any, *index: int) -> float:
    scale, offset = (coordinate.attrs.get(name, plain) for name, plain in (("scale_factor", 1), ("add_offset", 0)))
    return float(coordinate[index]) * float(scale) + float(offset)


def _points(size: tuple[int, int], at: Callable[[int, int], tuple[float, float]]) -> Georeference | None:
    """Return the georeference by the centres of pixels all over an array, in degrees."""
    rows, columns = (np.unique(np.linspace(0, length - 1, POINTS).astype(int)).tolist() for length in size)
    found = [(row + 0.5, column + 0.5, *at(row, column)) for row in rows for column in columns]
    good = tuple(point for point in found if abs(point[2]) <= 360 and abs(point[3]) <= 90)  # no fill values
    return Georeference("EPSG:4326", None, good) if len(good) > 2 else None


def _unit(group: Any, array: Any, coordinate: Any, crs: str | None) -> float:
    """Return the units of a projected system to one of a coordinate, which may be in kilometres; 1 where not known.

    Those of a geostationary view may be angles, of which its distance makes metres.
    """
    found = parsed_crs(crs) if crs else None
    if found is None or not found.is_projected:
        return 1.0
    unit = _text(coordinate.attrs.get("units", "")).strip().lower()
    metres = 1.0 if unit in _METRES else 1000.0 if unit in _KILOMETRES else None
    mapping = _mapping(group, array)
    if unit in _RADIANS and mapping is not None and "perspective_point_height" in mapping.attrs:
        metres = float(np.asarray(mapping.attrs["perspective_point_height"]).reshape(-1)[0])
    return 1.0 if metres is None else metres / found.axis_info[0].unit_conversion_factor


def _from_mapping(group: Any, array: Any, crs: str | None) -> Georeference | None:
    """Return the georeference of the upper left corner that GDAL writes to a grid mapping; None without one.

    Or that of zarr's conventions (`spatial:transform`, and as STAC has it `proj:transform`).
    """
    mapping = _mapping(group, array)
    numbers = _text(mapping.attrs.get("GeoTransform", "")).split() if mapping is not None else []
    affine = _said(group, array, "spatial:transform", "proj:transform")
    try:
        if numbers:
            c, a, b, f, d, e = map(float, numbers)
        else:
            a, b, c, d, e, f = map(float, affine[:6] if isinstance(affine, list | tuple) else ())
    except (TypeError, ValueError):
        return None
    if not np.isfinite([a, b, c, d, e, f]).all() or a * e == b * d:
        return None
    return Georeference(crs, (a, b, c, d, e, f))


def band_names_of(group: Any, array: Any, axis: int) -> tuple[str, ...]:
    """Return the texts of the coordinate that names the positions on an axis of an array; empty where there is none."""
    count = array.shape[axis]
    coordinate = _coordinate(group, array, axis)
    if getattr(coordinate, "shape", None) != (count,) or not 1 <= count <= MAX_BANDS:
        return ()
    if coordinate.dtype.kind not in "SOUT":
        return ()
    check_table(coordinate, "the coordinate of the bands")
    values = np.asarray(coordinate[()]).tolist()
    if not all(isinstance(value, bytes | str) for value in values):
        return ()
    return tuple(_text(value).strip() for value in values)


def _coordinate(group: Any, array: Any, axis: int) -> Any:
    if hasattr(array, "dims"):  # HDF5: a dimension scale, where one is attached
        return array.dims[axis][0] if len(array.dims[axis]) else None
    named = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    name = named[axis] if len(named) == len(array.shape) else None
    return group[name] if isinstance(name, str) and hasattr(group, "keys") and name in group else None


def _axis(coordinate: Any, length: int) -> tuple[float, float] | None:
    """Return (first centre, step) of an even coordinate axis."""
    if coordinate.shape != (length,) or length < 2:
        return None
    check_table(coordinate, "a coordinate of the grid")
    scale, offset = (coordinate.attrs.get(name, plain) for name, plain in (("scale_factor", 1), ("add_offset", 0)))
    values = np.asarray(coordinate[()], dtype=np.float64) * float(scale) + float(offset)
    step = (values[-1] - values[0]) / (length - 1)
    even = np.isfinite(step) and step != 0 and np.allclose(np.diff(values), step, rtol=1e-3, atol=0)
    return (float(values[0]), float(step)) if even else None


def _mapping(group: Any, array: Any) -> Any:
    names = _text(array.attrs.get("grid_mapping", "")).partition(":")[0].strip(), "spatial_ref", "crs"
    found = next((member for name in names if name and (member := _member(group, name)) is not None), None)
    return found if hasattr(found, "attrs") else None


def _crs(group: Any, array: Any) -> str | None:
    """Return the system that a grid mapping names: as text, or by CF's parameters."""
    mapping = _mapping(group, array)
    if mapping is None:
        return _crs_of_zarr(group, array)
    attributes = dict(mapping.attrs)
    for name in ("crs_wkt", "spatial_ref", "epsg_code"):
        text = _text(attributes.get(name, "")).strip()
        if text and (found := crs_text(text if not text.isdecimal() else f"EPSG:{text}")):
            return found
    if "grid_mapping_name" not in attributes:
        return None
    from pyproj import CRS

    try:
        return crs_text(CRS.from_cf({name: _plain(value) for name, value in attributes.items()}).to_wkt())
    except (ProjError, KeyError, TypeError, ValueError):
        return None


def _crs_of_zarr(group: Any, array: Any) -> str | None:
    """Return the system that the attributes of a zarr array or its group name, by GDAL's or GeoZarr's conventions."""
    by_gdal = _said(group, array, "_CRS")
    told = [_said(group, array, name) for name in ("proj:code", "proj:wkt2", "proj:projjson", "proj:epsg")]
    told += [by_gdal.get("wkt"), by_gdal.get("projjson")] if isinstance(by_gdal, dict) else []
    for value in told:
        text = json.dumps(value) if isinstance(value, dict) else str(value or "").strip()
        if text and (found := crs_text(f"EPSG:{text}" if text.isdecimal() else text)):
            return found
    return None


def _said(group: Any, array: Any, *names: str) -> Any:
    """Return the first attribute that an array or its group has by one of these names, or None."""
    holders = [dict(holder.attrs) for holder in (array, group) if hasattr(holder, "attrs")]
    return next((holder[name] for name in names for holder in holders if name in holder), None)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return _text(value)
    return np.asarray(value).tolist() if isinstance(value, np.generic | np.ndarray) else value


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
