"""What NetCDF and zarr attributes say by the CF conventions: dates, nodata, the grid. All of it optional."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from gfm_pipeline.errors import ItemError
from gfm_pipeline.shards.codec import Raster
from shard_builder.rasters.georeference import Georeference
from shard_builder.sources.shared.patterns import iso_date

_UNITS = re.compile(r"(day|hour|minute|second|millisecond|microsecond|nanosecond)s? since (\d{4}-\d{1,2}-\d{1,2}.*)")
_SECONDS = {"day": 86400.0, "hour": 3600.0, "minute": 60.0, "second": 1.0}
MAX_BANDS = 4096
"""An axis with more positions has no names that are read."""
_FRACTIONS = {"millisecond": 1e-3, "microsecond": 1e-6, "nanosecond": 1e-9}


def read_dates(array: Any, where: str) -> tuple[str, ...]:
    """Return the dates in an array as ISO 8601; raise ItemError for what tells none.

    Text holds them as YYYYMMDD or YYYY-MM-DD somewhere in it (a product name, say); numbers need the attribute `units`
    ("days since 1990-01-01"), or are YYYYMMDD themselves.
    """
    values = np.atleast_1d(np.asarray(array[()])).ravel()
    if values.dtype.kind == "M":
        return tuple(iso_date(str(value)) for value in values.astype("datetime64[s]"))
    if values.dtype.kind in "SOU":
        return tuple(iso_date(v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)) for v in values)
    units = _text(array.attrs.get("units", ""))
    found = _UNITS.fullmatch(units.strip())
    if found is None:
        if values.dtype.kind in "iu" and all(19000101 <= int(value) <= 21001231 for value in values):
            return tuple(iso_date(str(int(value))) for value in values)
        raise ItemError(f"{where} holds numbers of units {units!r}, expected 'days since ...' or the like.")
    start = datetime.fromisoformat(iso_date(found[2]).removesuffix("Z")).replace(tzinfo=timezone.utc)
    seconds = {**_SECONDS, **_FRACTIONS}[found[1]]
    return tuple(_iso(start + timedelta(seconds=float(value) * seconds)) for value in values)


def declared_nodata(array: Any) -> float | None:
    """Return the value for "nothing was measured" that an array declares, or None."""
    attributes = dict(array.attrs)
    for name in ("_FillValue", "missing_value", "nodata"):
        if name in attributes:
            values = np.atleast_1d(attributes[name]).ravel()
            if len(values) == 1 and values.dtype.kind in "iuf":
                return float(values[0])
    return None


def unsigned(array: Any, values: Raster) -> Raster:
    """Return integers as unsigned ones where the attribute `_Unsigned` says that they are meant so."""
    if values.dtype.kind == "i" and _text(array.attrs.get("_Unsigned", "")).lower() == "true":
        return values.view(values.dtype.str.replace("i", "u"))
    return values


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


def _iso(moment: datetime) -> str:
    whole_day = not (moment.hour or moment.minute or moment.second)
    return moment.strftime("%Y-%m-%d" if whole_day else "%Y-%m-%dT%H:%M:%SZ")
