"""What the attributes of an array in NetCDF, HDF5 or zarr say of its numbers, by the conventions of CF and NUG.

`_FillValue`, `missing_value` (several too), `valid_range`, `valid_min` and `valid_max`, `_Unsigned`, `scale_factor` and
`add_offset`; the fill value of the zarr array itself, and that of an HDF5 data set of floating point. xarray writes the
`_FillValue` of zarr 3 as base64 of a double. A fill value of 0 is what zarr writes where nobody has said anything: it
counts only where xarray wrote the array as zarr 2, where it has no other place for one.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.sensors.missing import is_declared
from gfm_pipeline.shards.codec import Raster
from shard_builder.rasters.tiff import parse_nodata

_NODATA = ("_FillValue", "missing_value", "nodata", "nodata_value", "NoDataValue", "_nodata")
"""Attributes for a value that was not measured; the first one that can be used is the array's nodata."""


@dataclass(frozen=True)
class CfValues:
    """What an array says of its numbers as they are stored."""

    nodata: tuple[float, ...]
    """Values for "nothing was measured"."""
    low: float
    high: float
    """Measured numbers lie between these; infinite where nothing is said."""
    scale: float
    offset: float
    rules: tuple[str, ...]
    """Attributes that could not be used."""
    is_scaled_range: bool
    """Whether `low` and `high` are of scaled values."""

    def mask(self, raster: Raster) -> NDArray[np.bool_] | None:
        """Return where something was measured for all but the first value in `nodata`; None for everywhere."""
        valid = np.ones(raster.shape, np.bool_)
        for value in self.nodata[1:]:
            valid &= ~is_declared(raster, value)
        if math.isfinite(self.low) or math.isfinite(self.high):
            values, slack = raster, 0.0
            if self.is_scaled_range:  # the ends are rounded to 32 bits, mostly, and so is the scale
                values = raster.astype(np.float64) * self.scale + self.offset
                slack = float(np.finfo(np.float32).eps) * max(abs(n) for n in (self.low, self.high) if math.isfinite(n))
            with np.errstate(invalid="ignore"):
                valid &= ~(np.less(values, self.low - slack) | np.greater(values, self.high + slack))
        return None if valid.all() else valid


def read_values(array: Any) -> CfValues:
    """Return what the attributes of an array say."""
    attributes, rules = dict(array.attrs), []
    dtype = stored_dtype(array)
    nodata: dict[float, None] = {}
    found: list[tuple[str, Any]] = [(name, attributes[name]) for name in _NODATA if name in attributes]
    for name, value in [*found, *(("fill value", fill) for fill in _own_fill(array, bool(found)))]:
        numbers = _numbers(value, dtype, array.dtype)
        if numbers is None:
            rules.append(f"{name} {str(value)[:40]!r} is no number: not used")
        nodata.update(dict.fromkeys(numbers or ()))
    ends: dict[str, float] = {}
    for name, count in (("valid_range", 2), ("valid_min", 1), ("valid_max", 1), ("scale_factor", 1), ("add_offset", 1)):
        if name in attributes:
            plain = name in ("scale_factor", "add_offset")
            numbers = _numbers(attributes[name], np.dtype(np.float64) if plain else dtype, array.dtype)
            if numbers is None or len(numbers) != count or (plain and not math.isfinite(numbers[0])):
                rules.append(f"{name} {str(attributes[name])[:40]!r} is not {count} numbers: not used")
            else:
                ends |= dict(zip(("valid_min", "valid_max") if count == 2 else (name,), numbers, strict=True))
    ranges = [attributes[name] for name in ("valid_range", "valid_min", "valid_max") if name in attributes]
    scaled = bool(ranges) and dtype.kind != "f" and "scale_factor" in ends and np.asarray(ranges[0]).dtype.kind == "f"
    low, high = ends.get("valid_min", -math.inf), ends.get("valid_max", math.inf)
    factor = ends.get("scale_factor", 1.0), ends.get("add_offset", 0.0)
    return CfValues(tuple(nodata), low, high, *factor, tuple(rules), scaled)


def stored_dtype(array: Any) -> np.dtype[Any]:
    """Return the type of an array's numbers, with the sign that the attribute `_Unsigned` says they have."""
    dtype: np.dtype[Any] = np.dtype(array.dtype)
    parts = np.ravel(array.attrs.get("_Unsigned", "")).tolist()
    part = parts[0] if len(parts) == 1 else ""
    said = (part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part)).strip().lower()
    if (dtype.kind, said) in (("i", "true"), ("i", "1"), ("u", "false"), ("u", "0")):
        dtype = np.dtype(dtype.str.replace(dtype.kind, "u" if dtype.kind == "i" else "i"))
    return dtype


def with_sign(array: Any, values: Raster) -> Raster:
    """Return integers with the sign that the attribute `_Unsigned` says they have."""
    dtype = stored_dtype(array)
    return values if dtype == array.dtype else values.view(dtype)


def _own_fill(array: Any, said: bool) -> Iterator[Any]:
    """Yield the fill value of the array itself, where it says that something was not measured."""
    if hasattr(array, "metadata"):  # zarr
        fill = array.fill_value
        xarrays = array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in array.attrs
        if fill is not None and np.ndim(fill) == 0 and (fill != 0 or (xarrays and not said)):
            yield fill
    elif np.dtype(array.dtype).kind == "f" and hasattr(array, "fillvalue") and array.fillvalue != 0:
        yield array.fillvalue


def _numbers(value: Any, dtype: np.dtype[Any], packed: np.dtype[Any]) -> list[float] | None:
    """Return an attribute's numbers as the array could hold them; None where it has none.

    Numbers of the signed type of an array that is meant unsigned (or the other way round) are meant so too.
    """
    try:
        parts = np.atleast_1d(np.asarray(value)).ravel()
    except Exception:  # empty or nested attributes raise types of several libraries
        return None
    if parts.dtype.kind in "SUO":
        texts = [part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part) for part in parts.tolist()]
        numbers = [_text_number(text) for text in texts]
        return None if None in numbers or not numbers else [number for number in numbers if number is not None]
    if parts.dtype.kind not in "iuf" or not parts.size:
        return None
    if dtype.kind in "iu" and dtype != packed and parts.dtype.kind in "iu":
        if parts.dtype.itemsize == dtype.itemsize:
            parts = parts.view(parts.dtype.str.replace(parts.dtype.kind, dtype.kind))
        elif dtype.kind == "u":  # JSON has one type of integers
            parts = np.where(np.less(parts, 0), parts + 2 ** (8 * dtype.itemsize), parts)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            parts = parts.astype(dtype)  # as many digits as the pixels have
    found: list[float] = parts.tolist()
    return found


def _text_number(text: str) -> float | None:
    """Return the number in a text, or in the base64 in which xarray writes doubles to zarr 3."""
    number = parse_nodata(text.removeprefix("+").replace("Infinity", "inf"))
    if number is not None:
        return number
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return float(struct.unpack("<d", data)[0]) if len(data) == 8 else None
