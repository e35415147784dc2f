"""What NetCDF and zarr attributes say of the grid by the CF conventions. All of it is optional."""

from __future__ import annotations

from typing import Any

import numpy as np

from shard_builder.rasters.georeference import Georeference
from shard_builder.sources.shared.cube_limits import check_table

MAX_BANDS = 4096
"""An axis with more positions has no names that are read."""


def grid_of(group: Any, array: Any, size: tuple[int, int]) -> Georeference | None:
    """Return the place of an array from the coordinates `x` and `y` beside it and its grid mapping, if all are there.

    Coordinates are of pixel centres, as CF has them; uneven ones are no grid.
    """
    x, y = (_axis(group, name, length) for name, length in (("x", size[1]), ("y", size[0])))
    crs = _crs(group, array)
    if x is None or y is None or crs is None:
        return None
    (x0, dx), (y0, dy) = x, y
    return Georeference(crs, (dx, 0.0, x0 - dx / 2, 0.0, dy, y0 - dy / 2))


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


def _axis(group: Any, name: str, length: int) -> tuple[float, float] | None:
    """Return (first centre, step) of an even coordinate axis."""
    if name not in group or getattr(group[name], "shape", None) != (length,) or length < 2:
        return None
    check_table(group[name], name)
    values = np.asarray(group[name][()], dtype=np.float64)
    step = (values[-1] - values[0]) / (length - 1)
    even = np.isfinite(step) and step != 0 and np.allclose(np.diff(values), step, rtol=1e-3, atol=0)
    return (float(values[0]), float(step)) if even else None


def _crs(group: Any, array: Any) -> str | None:
    name = _text(array.attrs.get("grid_mapping", "spatial_ref"))
    mapping = group.get(name)
    if mapping is None:
        return None
    text = _text(mapping.attrs.get("crs_wkt", mapping.attrs.get("spatial_ref", "")))
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        code = CRS(text).to_epsg() if text else None
    except CRSError:
        return None
    return f"EPSG:{code}" if code else None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
