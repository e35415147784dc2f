"""From the numbers in an archive to the numbers in a shard: units, offsets, and what was not measured.

Without a configured conversion or offset the pixels stay as they are, bit for bit. Every change is a stated rule that
the report counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.sensors.missing import holds, is_declared, unmeasured
from gfm_pipeline.shards.codec import Raster
from shard_builder.config import SensorOverride
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.raster import Decoded, nodata_of_bands


@dataclass(frozen=True)
class Pixels:
    """A raster as the shard will hold it."""

    raster: Raster
    """[C,H,W] or [T,C,H,W]."""
    measured: NDArray[np.bool_] | None
    """Which pixels were measured, shaped like the raster; None for all of them."""
    rules: tuple[str, ...]
    changed: bool
    """Whether a pixel may differ from the archive's."""

    @property
    def nodata_share(self) -> float:
        """Share of the pixels that were not measured."""
        return 0.0 if self.measured is None else 1.0 - float(self.measured.mean())


def prepare(decoded: Decoded, planned: PlannedRaster, spec: SensorSpec, override: SensorOverride) -> Pixels:
    """Return the pixels of a sensor as its specification wants them; raise ItemError when they do not fit it."""
    where = planned.source_file
    _check_bands(decoded.raster, spec, where)
    raster, rules = _fill_nodata(decoded, spec, planned)
    _check_dtype(raster, spec, where)
    if raster.dtype.kind == "f" and np.isinf(raster).any():
        count = int(np.isinf(raster).sum())
        raise ItemError(f"{spec.name} has {count} infinite pixels in {where}, expected numbers.")
    measured = _measured(raster, spec.nodata)
    raster, measured, converted = _to_db(raster, measured, spec, override, where)
    raster, shifted = _shift(raster, measured, planned, spec, override)
    if shifted:
        measured = _measured(raster, spec.nodata)  # a pixel may have been clipped to the very value
    rules += converted + shifted
    changed = raster is not decoded.raster
    return Pixels(raster, measured, (*decoded.facts.rules, *rules), changed)


def _fill_nodata(decoded: Decoded, spec: SensorSpec, planned: PlannedRaster) -> tuple[Raster, tuple[str, ...]]:
    """Write the sensor's nodata value where the file says that nothing was measured."""
    raster, where = decoded.raster, planned.source_file
    fill = float("nan") if spec.nodata is None and raster.dtype.kind == "f" else spec.nodata
    if fill is not None and not holds(raster.dtype, fill):
        raise ItemError(
            f"{where} has {raster.dtype} pixels, which cannot be {fill:g}. Set sensors.{spec.name}.nodata to a value "
            "that they can have."
        )
    missing, rules = _declared(decoded, spec, fill)
    if decoded.mask is not None and not decoded.mask.all():
        if fill is None and planned.grid is not None:  # what lies outside the file is nobody's data
            raise ItemError(
                f"{where} has pixels of its grid that were not measured, and {spec.name} has no value for them. Set "
                f"sensors.{spec.name}.nodata."
            )
        if fill is None:
            rules += (f"{spec.name}: file carries a mask, sensor has no nodata: taken as data",)
        else:
            missing |= ~decoded.mask
            rules += (f"{spec.name}: masked pixels set to nodata",)
    if fill is not None and missing.any():
        raster = np.where(missing, raster.dtype.type(fill), raster)
    return raster, rules


def _declared(decoded: Decoded, spec: SensorSpec, fill: float | None) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Return which pixels are to be set, as the file declares them, shaped like the raster; and rules that say so."""
    raster = decoded.raster
    missing = np.zeros(raster.shape, np.bool_)
    rules: dict[str, None] = {}
    declared = nodata_of_bands(decoded.facts.nodata, raster.shape[-3])
    if spec.nodata is not None and raster.dtype.kind == "f":
        missing |= is_declared(raster, spec.nodata) & (raster != raster.dtype.type(spec.nodata))
        if missing.any():
            rules[f"{spec.name}: pixels nearly equal to nodata {spec.nodata:g} set to it"] = None
    for band, value in enumerate(declared):
        if value is None or value == spec.nodata or (math.isnan(value) and raster.dtype.kind == "f"):
            continue
        if not holds(raster.dtype, value):
            rules[f"{spec.name}: file declares nodata {value:g}, which {raster.dtype} cannot be: not used"] = None
            continue
        hit = is_declared(raster[..., band, :, :], value)
        if not hit.any():
            continue
        if fill is None:
            rules[f"{spec.name}: file declares nodata {value:g}, sensor has none: taken as data"] = None
        else:
            missing[..., band, :, :] |= hit
            rules[f"{spec.name}: nodata {value:g} set to {fill:g}"] = None
    return missing, tuple(rules)


def _measured(raster: Raster, nodata: float | None) -> NDArray[np.bool_] | None:
    """Return which pixels were measured, None when all were."""
    missing = unmeasured(raster, nodata)
    return None if missing is None else ~missing


def _to_db(
    raster: Raster, measured: NDArray[np.bool_] | None, spec: SensorSpec, override: SensorOverride, where: str
) -> tuple[Raster, NDArray[np.bool_] | None, tuple[str, ...]]:
    in_db = spec.units.lower().startswith("db")
    if not in_db or raster.dtype.kind != "f":
        if override.convert != "none":
            raise ItemError(
                f"sensors.{spec.name}.convert is {override.convert}, which gives floating point in dB; the sensor is "
                f"{spec.dtype} in {spec.units}. Set its dtype and units, or leave convert out."
            )
        return raster, measured, ()
    values = raster if measured is None else raster[measured]
    linear = bool(values.size) and bool(values.min() >= 0) and bool(values.max() > values.min())
    if override.convert == "none" and linear:
        raise ItemError(
            f"{spec.name} has no pixel below 0 in {where}, expected dB: it seems to be linear power. Set "
            f"sensors.{spec.name}.convert=linear_to_db (or auto for an archive of both)."
        )
    if override.convert == "none" or (override.convert == "auto" and not linear):
        return raster, measured, ()
    power = raster.astype(np.float64)
    positive = power > 0 if measured is None else (power > 0) & measured
    decibel = np.full(raster.shape, np.nan if spec.nodata is None else spec.nodata)
    np.log10(power, out=decibel, where=positive)
    np.multiply(decibel, 10, out=decibel, where=positive)
    return (
        decibel.astype(raster.dtype),
        None if positive.all() else positive,
        (f"{spec.name}: converted from linear to dB",),
    )


def _shift(
    raster: Raster,
    measured: NDArray[np.bool_] | None,
    planned: PlannedRaster,
    spec: SensorSpec,
    override: SensorOverride,
) -> tuple[Raster, tuple[str, ...]]:
    """Add the configured offset to the images it applies to."""
    if not override.offset:
        return raster, ()
    if override.offset_files and not any(fnmatchcase(ref.source_file, override.offset_files) for ref in planned.files):
        return raster, ()
    steps = _since(planned, override.offset_since, raster.ndim)
    if not steps.any():
        return raster, ()
    shifted = raster.astype(np.float64) + override.offset
    if raster.dtype.kind in "iu":
        limits = np.iinfo(str(raster.dtype))
        shifted = shifted.clip(limits.min, limits.max)
    where = steps.reshape(-1, 1, 1, 1) if raster.ndim == 4 else steps[0]
    where = where if measured is None else measured & where
    return np.where(where, shifted.astype(raster.dtype), raster), (f"{spec.name}: offset {override.offset:g} added",)


def _since(planned: PlannedRaster, day: str | None, ndim: int) -> NDArray[np.bool_]:
    """Return, per time step (one for an image), whether it was taken on `day` or later."""
    if day is None:
        return np.ones(max(1, len(planned.dates)) if ndim == 4 else 1, dtype=bool)
    if not planned.dates:
        raise ItemError(f"{planned.source_file} has no date, and an offset applies from {day} on. Use offset_files.")
    return np.array([date >= day for date in planned.dates])


def _check_bands(raster: Raster, spec: SensorSpec, where: str) -> None:
    if raster.ndim not in (3, 4) or not raster.size:
        raise ItemError(f"{spec.name} has shape {list(raster.shape)} in {where}, expected pixels [C,H,W] or [T,C,H,W].")
    bands = raster.shape[-3]
    if bands != len(spec.bands):
        raise ItemError(
            f"{spec.name} has {bands} bands in {where}, the sensor declares {len(spec.bands)} "
            f"({', '.join(spec.bands)}). Set sensors.{spec.name}.bands, or drop the file with on_error=skip."
        )


def _check_dtype(raster: Raster, spec: SensorSpec, where: str) -> None:
    if str(raster.dtype) != spec.dtype:
        raise ItemError(
            f"{spec.name} has {raster.dtype} pixels in {where}, the sensor declares {spec.dtype}. "
            f"Set sensors.{spec.name}.dtype, or drop the file with on_error=skip."
        )
