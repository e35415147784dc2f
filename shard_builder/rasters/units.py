"""From linear power to dB, and offsets: numbers that change on their way to a shard, as the configuration says.

What was measured stays measured: no pixel becomes the sensor's nodata value by chance.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.sensors.missing import unmeasured
from gfm_pipeline.shards.codec import Raster
from shard_builder.config import SensorOverride
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.sentinel2 import carries_offset

_FEW = 0.05
"""Share of pixels that decides nothing."""
_NO_POWER = 1e-30
"""Linear power of -300 dB."""


def to_db(
    raster: Raster, measured: NDArray[np.bool_] | None, spec: SensorSpec, override: SensorOverride, where: str
) -> tuple[Raster, NDArray[np.bool_] | None, tuple[str, ...]]:
    """Return a raster of a sensor in dB in these units, which of it was measured, and the rules that changed it.

    Raises ItemError for linear power where no conversion is configured, and for sensors that are not in dB where one
    is.
    """
    in_db = spec.units.lower().startswith("db")
    if not in_db or raster.dtype.kind != "f":
        if override.convert != "none":
            raise ItemError(
                f"sensors.{spec.name}.convert is {override.convert}, which gives floating point in dB; the sensor is "
                f"{spec.dtype} in {spec.units}. Set its dtype and units, or leave convert out."
            )
        return raster, measured, ()
    linear = _is_linear(raster if measured is None else raster[measured])
    if override.convert == "none" and linear:
        raise ItemError(
            f"{spec.name} has hardly a pixel below 0 in {where}, expected dB: it seems to be linear power. Set "
            f"sensors.{spec.name}.convert=linear_to_db (or auto for an archive of both)."
        )
    if override.convert == "none" or (override.convert == "auto" and not linear):
        return raster, measured, ()
    power = raster.astype(np.float64)
    # A number so small that no instrument measures it stands for 0, as where tools add one to take logarithms.
    positive = power > _NO_POWER if measured is None else (power > _NO_POWER) & measured
    decibel = np.full(raster.shape, np.nan if spec.nodata is None else spec.nodata)
    np.log10(power, out=decibel, where=positive)
    np.multiply(decibel, 10, out=decibel, where=positive)
    rules: tuple[str, ...] = (f"{spec.name}: converted from linear to dB",)
    if not positive.all() and (measured is None or bool((measured & ~positive).any())):
        rules += (f"{spec.name}: power of 0 or less set to nodata",)
    found, moved = _apart(decibel.astype(raster.dtype), positive, spec)
    return found, None if positive.all() else positive, rules + moved


def _is_linear(values: NDArray[np.generic]) -> bool:
    """Return whether measured numbers are linear power and not dB.

    Shares of all pixels decide, never a single one. Most power is positive, and what the removal of noise leaves below
    0 is a twentieth of the pixels at most, or nearly all of it is too small to be dB. Zeros, which pad scenes of both
    kinds, say nothing.
    """
    values = values[values != 0]
    if not values.size or values.min() == values.max():
        return False
    numbers = values.astype(np.float64)
    low, middle, high = np.quantile(numbers, [_FEW, 0.5, 1 - _FEW], method="inverted_cdf")
    return bool(middle > 0 and (np.mean(numbers < 0) <= _FEW or max(-low, high) < 1))


def _apart(raster: Raster, measured: NDArray[np.bool_] | None, spec: SensorSpec) -> tuple[Raster, tuple[str, ...]]:
    """Return a raster of new numbers in which no measured pixel is the sensor's nodata by chance, but next to it."""
    chance = unmeasured(raster, spec.nodata) if spec.nodata is not None else None
    if chance is not None and measured is not None:
        chance &= measured
    if chance is None or not chance.any() or spec.nodata is None:
        return raster, ()
    dtype = raster.dtype
    if dtype.kind == "f":
        beside = np.nextafter(dtype.type(spec.nodata), dtype.type(np.inf))
    else:
        beside = dtype.type(int(spec.nodata) + (1 if spec.nodata < np.iinfo(str(dtype)).max else -1))
    rule = f"{spec.name}: measured pixels that would become nodata {spec.nodata:g} set next to it"
    return np.where(chance, beside, raster), (rule,)


def offset_applies(planned: PlannedRaster, override: SensorOverride) -> bool:
    """Return whether the configured offset is added to at least a part of a raster, by the names and dates of it."""
    since = override.offset_since
    return _offset_names(planned, override) and (since is None or any(date >= since for date in planned.dates))


def _offset_names(planned: PlannedRaster, override: SensorOverride) -> bool:
    pattern = override.offset_files
    return not pattern or any(fnmatchcase(ref.source_file, pattern) for ref in planned.files)


def shift(
    raster: Raster,
    measured: NDArray[np.bool_] | None,
    planned: PlannedRaster,
    spec: SensorSpec,
    override: SensorOverride,
) -> tuple[Raster, tuple[str, ...]]:
    """Add the configured offset to the images it applies to."""
    if not override.offset:
        return raster, ()
    if not _offset_names(planned, override):
        return raster, ()
    steps = _since(planned, override.offset_since, raster.ndim)
    if override.offset_evidence == "product":
        steps = steps & np.array(planned.carries_offset)
        if not steps.any():
            return raster, (f"{spec.name}: no offset by the product: none taken off",)
    if override.offset_evidence == "pixels" and steps.any():
        steps = steps & carries_offset(raster, measured, spec.bands, -override.offset, planned.source_file)
        if not steps.any():
            return raster, (f"{spec.name}: no offset in the pixels: none taken off",)
    if not steps.any():
        return raster, ()
    shifted = raster.astype(np.float64) + override.offset
    if raster.dtype.kind in "iu":
        limits = np.iinfo(str(raster.dtype))
        shifted = shifted.clip(limits.min, limits.max)
    where = steps.reshape(-1, 1, 1, 1) if raster.ndim == 4 else steps[0]
    where = where if measured is None else measured & where
    found, moved = _apart(np.where(where, shifted.astype(raster.dtype), raster), measured, spec)
    return found, (f"{spec.name}: offset {override.offset:g} added", *moved)


def _since(planned: PlannedRaster, day: str | None, ndim: int) -> NDArray[np.bool_]:
    """Return, per time step (one for an image), whether it was taken on `day` or later."""
    if day is None:
        return np.ones(max(1, len(planned.dates)) if ndim == 4 else 1, dtype=bool)
    if not planned.dates:
        raise ItemError(f"{planned.source_file} has no date, and an offset applies from {day} on. Use offset_files.")
    return np.array([date >= day for date in planned.dates])
