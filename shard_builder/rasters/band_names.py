"""What a file calls its bands, compared with what the sensor declares.

Stated rules: bands that the file names are taken by name, in whatever order it holds them, and more than the sensor
declares are left out. Names of the same kind (B4, VV, red) that are others than the declared ones are an error. Names
of another kind say nothing of the declared ones: the file's order counts, and the report says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gfm_pipeline.errors import ConfigError, ItemError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.sensors.bands import canonical_band, match_bands, vocabulary
from shard_builder.rasters.raster import Decoded

_ORDINAL = re.compile(r"(?:band|channel|layer)[ _]?0*(\d+)", re.IGNORECASE)


def in_declared_order(decoded: Decoded, spec: SensorSpec, where: str) -> Decoded:
    """Return a raster with its bands as the sensor declares them, by the names that the file has for them.

    An alpha channel beside the declared bands becomes a part of the mask. Raises ItemError for names that are of the
    same kind as the declared ones and others.
    """
    if decoded.raster.ndim < 3:
        return decoded
    decoded = _without_alpha(decoded, spec)
    names, count = decoded.facts.bands, decoded.raster.shape[-3]
    if len(names) != count or _ordinal(names):
        return decoded
    if "" in names or len(set(map(canonical_band, names))) < count:
        return _where_they_stand(decoded, spec, where)
    try:
        order = match_bands(names, spec.bands)
    except ConfigError as error:
        if _comparable(names, spec.bands):
            raise _mismatch(names, spec, where) from error
        shown = ", ".join(names[:8]) + (" ..." if count > 8 else "")
        rule = f"{spec.name}: bands that the file calls {shown} taken in its order as {', '.join(spec.bands[:8])}"
        return _with_rule(decoded, rule) if count > 1 else decoded
    if order == tuple(range(count)):
        return decoded
    return _with_rule(_taken(decoded, order), f"{spec.name}: bands brought to the declared order by name")


def check_band(decoded: Decoded, band: str, where: str) -> None:
    """Raise ItemError for a file of one band that has a name of the same kind as `band`, and another one."""
    for name in decoded.facts.bands:
        kind = vocabulary(name)
        if kind is not None and kind == vocabulary(band) and canonical_band(name) != canonical_band(band):
            raise ItemError(f"{where} is band {band} by its path, and calls itself {name}. Correct the pattern, or it.")


def _where_they_stand(decoded: Decoded, spec: SensorSpec, where: str) -> Decoded:
    """Return a raster of which not every band has a name of its own, if none of these names is that of another band."""
    names = decoded.facts.bands
    if len(names) != len(spec.bands):
        return decoded
    declared = [canonical_band(band) for band in spec.bands]
    for i, name in enumerate(names):
        known = canonical_band(name)
        if name and names.count(name) == 1 and known != declared[i] and known in declared:
            raise _mismatch(names, spec, where)
    return decoded


def _comparable(names: Sequence[str], declared: Sequence[str]) -> bool:
    kinds = {vocabulary(name) for name in names} & {vocabulary(band) for band in declared} - {None}
    return bool(kinds) or bool(set(map(canonical_band, names)) & set(map(canonical_band, declared)))


def _mismatch(names: Sequence[str], spec: SensorSpec, where: str) -> ItemError:
    found = ", ".join(name or "(no name)" for name in names)
    return ItemError(
        f"{where} calls its bands {found}, the sensor {spec.name} declares {', '.join(spec.bands)}. Set "
        f"sensors.{spec.name}.bands to what the files hold."
    )


def _ordinal(names: Sequence[str]) -> bool:
    """Return whether names only count the bands: "Band 1", "Band 2" ..."""
    found = [_ORDINAL.fullmatch(name) for name in names]
    return all(match and int(match[1]) == i for i, match in enumerate(found, start=1))


def _without_alpha(decoded: Decoded, spec: SensorSpec) -> Decoded:
    """Return an image without the alpha channel beside the sensor's bands; it becomes a part of the mask."""
    raster, alpha = decoded.raster, decoded.facts.alpha
    if alpha is None or raster.ndim < 3 or raster.shape[-3] != len(spec.bands) + 1 or alpha >= raster.shape[-3]:
        return decoded
    opaque = np.take(raster, [alpha], axis=-3) != 0
    found = _taken(decoded, [band for band in range(raster.shape[-3]) if band != alpha])
    if not opaque.all():
        found = replace(found, mask=opaque if found.mask is None else found.mask & opaque)
    found = replace(found, facts=replace(found.facts, alpha=None))
    return _with_rule(found, f"{spec.name}: alpha channel dropped")


def _taken(decoded: Decoded, order: Sequence[int]) -> Decoded:
    """Return some bands of a raster, with what its file says of each."""
    chosen, count = list(order), decoded.raster.shape[-3]
    facts, mask = decoded.facts, decoded.mask
    nodata, scaling, bands = facts.nodata, facts.scaling, facts.bands
    if len(nodata) == count > 1:
        nodata = tuple(nodata[i] for i in chosen)
    if scaling is not None and len(scaling.scales) == count:
        scales, offsets = (tuple(part[i] for i in chosen) for part in (scaling.scales, scaling.offsets))
        scaling = scaling._replace(scales=scales, offsets=offsets)
    if len(bands) == count:
        bands = tuple(bands[i] for i in chosen)
    if mask is not None and mask.ndim > 2 and mask.shape[-3] == count:
        mask = np.take(mask, chosen, axis=-3)
    facts = replace(facts, nodata=nodata, scaling=scaling, bands=bands)
    return Decoded(np.take(decoded.raster, chosen, axis=-3), facts, None, mask)


def _with_rule(decoded: Decoded, rule: str) -> Decoded:
    return replace(decoded, facts=replace(decoded.facts, rules=(*decoded.facts.rules, rule)))
