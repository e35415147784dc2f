"""From the numbers in an archive to the numbers in a shard: units, offsets, and what was not measured.

Without a configured conversion or offset the pixels stay as they are, bit for bit. Every change is a stated rule that
the report counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import Dtype, SensorSpec
from gfm_pipeline.sensors.missing import holds, is_declared, unmeasured
from gfm_pipeline.shards.codec import Raster
from shard_builder.config import SensorOverride
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.band_names import in_declared_order
from shard_builder.rasters.raster import Decoded, Scaling, nodata_of_bands
from shard_builder.rasters.units import shift, to_db


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


def prepare(
    decoded: Decoded, planned: PlannedRaster, spec: SensorSpec, override: SensorOverride, adopted: bool = False
) -> Pixels:
    """Return the pixels of a sensor as its specification wants them; raise ItemError when they do not fit it.

    `adopted`: the sensor's nodata is what its files declare, so that a pixel of another file that has this value by
    chance is an error, or reported where its file declares nothing.
    """
    where = planned.source_file
    given = decoded.raster
    decoded = in_declared_order(decoded, spec, where)
    _check_bands(decoded, spec, where)
    known = _adopted(decoded, spec, where) if adopted else ()
    raster, rules = _fill_nodata(decoded, spec, planned)
    rules = known + rules
    if raster.dtype.kind == "f" and np.isinf(raster).any():
        count = int(np.isinf(raster).sum())
        raise ItemError(f"{spec.name} has {count} infinite pixels in {where}, expected numbers.")
    measured = _measured(raster, spec.nodata)
    raster, measured, converted = to_db(raster, measured, spec, override, where)
    raster, shifted = shift(raster, measured, planned, spec, override)
    rules += converted + shifted
    changed = raster is not given
    return Pixels(raster, measured, (*decoded.facts.rules, *rules), changed)


def _fill_nodata(decoded: Decoded, spec: SensorSpec, planned: PlannedRaster) -> tuple[Raster, tuple[str, ...]]:
    """Return the raster in the sensor's type, with its nodata value where the file says that nothing was measured."""
    raster, where, dtype = decoded.raster, planned.source_file, np.dtype(spec.dtype)
    fill = float("nan") if spec.nodata is None and dtype.kind == "f" else spec.nodata
    unusable: tuple[str, ...] = ()
    if fill is not None and not holds(dtype, fill):
        unusable, fill = (f"{spec.name}: the sensor's nodata {fill:g} is no {dtype}: not used",), None
    missing, rules = _declared(decoded, spec, fill)
    rules += unusable
    if decoded.mask is not None and not decoded.mask.all():
        if fill is None and planned.grid is not None:  # what lies outside the file is nobody's data
            raise ItemError(
                f"{where} has pixels of its grid that were not measured, and {spec.name} has no value for them. Set "
                f"sensors.{spec.name}.nodata."
            )
        if fill is None:
            rules += (f"{spec.name}: file carries a mask, {_taken(spec)}",)
        else:
            missing |= ~decoded.mask
            rules += (f"{spec.name}: masked pixels set to nodata",)
    raster, changed = _as_declared(raster, missing, decoded.facts.scaling, spec, where)
    if fill is not None and missing.any():
        raster = np.where(missing, raster.dtype.type(fill), raster)
    return raster, (*rules, *changed)


def _as_declared(
    raster: Raster, missing: NDArray[np.bool_], scaling: Scaling | None, spec: SensorSpec, where: str
) -> tuple[Raster, tuple[str, ...]]:
    """Return a raster in the type of its sensor: scaled where that makes it values, else with every number kept.

    `missing` is extended by NaN that integers cannot be. Raises ItemError for a type that the sensor is not.
    """
    dtype = np.dtype(spec.dtype)
    if scaling is not None and dtype.kind == "f" and (raster.dtype.kind in "iu" or scaling.of_floats):
        scales, offsets = (np.resize(part, (raster.shape[-3], 1, 1)) for part in (scaling.scales, scaling.offsets))
        scaled: Raster = (raster.astype(np.float64) * scales + offsets).astype(dtype)
        return scaled, (f"{spec.name}: {scaling} of the file applied",)
    rules = () if scaling is None else (f"{spec.name}: file declares {scaling}: not applied, numbers as stored",)
    if raster.dtype == dtype:
        return raster, rules
    if spec.kind != "labels" and spec.units != "class" and str(raster.dtype) in get_args(Dtype):
        raise ItemError(
            f"{spec.name} has {raster.dtype} pixels in {where}, the sensor declares {spec.dtype}. "
            f"Set sensors.{spec.name}.dtype, or drop the file with on_error=skip."
        )
    if raster.dtype.kind == "f" and dtype.kind != "f" and spec.nodata is not None:
        missing |= np.isnan(raster)
    with np.errstate(invalid="ignore", over="ignore"):
        cast: Raster = np.where(missing, raster.dtype.type(0), raster).astype(dtype)
        kept = missing | (cast.astype(raster.dtype) == raster) & (np.less(cast, 0) == np.less(raster, 0))
    if raster.dtype.kind == dtype.kind == "f":
        kept |= np.isnan(raster)
    if not kept.all():
        raise ItemError(
            f"{spec.name} has {raster.dtype} pixels in {where}, of which {raster[~kept].flat[0]} and "
            f"{np.count_nonzero(~kept) - 1} more are none in {spec.dtype}, as the sensor declares. Set "
            f"sensors.{spec.name}.dtype to a type that holds them, or its nodata where they are NaN."
        )
    return cast, (*rules, f"{spec.name}: {raster.dtype} stored as {spec.dtype}, every number kept")


def _adopted(decoded: Decoded, spec: SensorSpec, where: str) -> tuple[str, ...]:
    """Return the rules of a nodata value that other files of the sensor declare; raise ItemError for clashes."""
    raster, nodata = decoded.raster, spec.nodata
    assert nodata is not None
    declared = nodata_of_bands(decoded.facts.nodata, raster.shape[-3])
    rules: dict[str, None] = {}
    for band, value in enumerate(declared):
        if value == nodata:
            rules[f"{spec.name}: nodata {nodata:g} as the files declare it"] = None
            continue
        taken = is_declared(raster[..., band, :, :], nodata)
        if decoded.mask is not None:
            taken &= np.broadcast_to(decoded.mask, raster.shape)[..., band, :, :]
        count = np.count_nonzero(taken)
        if not count:
            continue
        others = [other for other in (value, *decoded.facts.masked) if other is not None and holds(raster.dtype, other)]
        if others:
            said = ", ".join(f"{other:g}" for other in others)
            raise ItemError(
                f"{where} declares nodata {said} for {spec.name}, and {count} of its pixels have the value "
                f"{nodata:g}, which other files declare. Set sensors.{spec.name}.nodata to a value that no pixel has."
            )
        rules[f"{spec.name}: file declares no nodata, its pixels of {nodata:g} count as not measured"] = None
    return tuple(rules)


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
            rules[f"{spec.name}: file declares nodata {value:g}, {_taken(spec)}"] = None
        else:
            missing[..., band, :, :] |= hit
            rules[f"{spec.name}: nodata {value:g} set to {fill:g}"] = None
    return missing, tuple(rules)


def _taken(spec: SensorSpec) -> str:
    return f"sensor has no nodata: taken as data; set sensors.{spec.name}.nodata"


def _measured(raster: Raster, nodata: float | None) -> NDArray[np.bool_] | None:
    """Return which pixels were measured, None when all were."""
    missing = unmeasured(raster, nodata)
    return None if missing is None else ~missing


def _check_bands(decoded: Decoded, spec: SensorSpec, where: str) -> None:
    raster, pages = decoded.raster, decoded.facts.pages
    if raster.ndim not in (3, 4) or not raster.size:
        raise ItemError(f"{spec.name} has shape {list(raster.shape)} in {where}, expected pixels [C,H,W] or [T,C,H,W].")
    bands = raster.shape[-3]
    if bands != len(spec.bands):
        held = f"{pages} images of one size with {bands} bands in all" if pages > 1 else f"{bands} bands"
        raise ItemError(
            f"{spec.name} has {held} in {where}, the sensor declares {len(spec.bands)} "
            f"({', '.join(spec.bands)}). Set sensors.{spec.name}.bands, or drop the file with on_error=skip."
        )
    if decoded.facts.photometric and spec.kind != "labels" and spec.units != "class":
        raise ItemError(
            f"{where} is a TIFF of photometric {decoded.facts.photometric}, whose numbers are no intensities, expected "
            f"RGB, YCBCR or MINISBLACK. For a map of classes declare {spec.name} with kind: labels."
        )
