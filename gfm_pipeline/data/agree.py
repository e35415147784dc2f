"""What collections must agree about for a model to see one sensor in all of them: bands, by name, and units.

Everything else is a matter of storage and may differ: the type of the pixels, the nodata value, the order and the
spelling of the bands. Each raster is read by its own collection's word for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from gfm_pipeline.data.choose import Collection
from gfm_pipeline.errors import ConfigError, nearest
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.sensors.bands import canonical_band, match_bands
from gfm_pipeline.sensors.spec import Display, Dtype

_RENAME = "Build one of them with another name for its sensor"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamUse:
    """What one stream reads."""

    sensors: tuple[str, ...]
    bands: Mapping[str, tuple[str, ...]]
    """As configured."""
    collections: frozenset[str]
    """Digests."""


@dataclass(frozen=True)
class Agreed:
    """One sensor of a mixture."""

    spec: SensorSpec
    """As the first collection has it, with the bands that are read."""
    collections: tuple[Collection, ...]
    """Those whose statistics count: all that carry the sensor, as it is read."""
    nodata: tuple[float, ...] = ()
    """Every value that a collection which is read declares for "nothing was measured here", in order."""


def agree(collections: Sequence[Collection], uses: Mapping[str, StreamUse]) -> dict[str, Agreed]:
    """Return the sensors that the streams use, in their order; `collections` are distinct.

    The specification of a sensor has the bands that a stream names for it, or those of the first collection that is
    read for it, spelt as there. Where collections differ, its type is one that holds all of their pixels, and its
    nodata value the one that any of them declares, none when they declare several.
    Raises ConfigError, naming collections and streams, when bands or units differ.
    """
    used = dict.fromkeys(sensor for use in uses.values() for sensor in use.sensors)
    for name, use in uses.items():
        for sensor in use.bands:
            if sensor not in use.sensors:
                raise ConfigError(
                    f"data.streams.{name}.bands.{sensor}: the stream reads no such sensor. "
                    f"{nearest(sensor, use.sensors)}"
                )
    return {sensor: _agree_about(sensor, collections, uses) for sensor in used}


def _agree_about(sensor: str, collections: Sequence[Collection], uses: Mapping[str, StreamUse]) -> Agreed:
    carrying = [collection for collection in collections if sensor in collection.manifest.sensors]
    reading = {name: use for name, use in uses.items() if sensor in use.sensors}
    read = [one for one in carrying if any(one.digest in use.collections for use in reading.values())]
    first, chosen = read[0], _chosen_bands(sensor, reading)
    ours = first.manifest.sensors[sensor]
    bands = ours.bands
    if chosen is not None:
        where, wanted = chosen
        positions = [match_bands(_spec(one, sensor).bands, wanted, f"{where}: collection {one.name}") for one in read]
        bands = tuple(ours.bands[index] for index in positions[0])
    for other in read[1:]:
        complaint = _complaint(sensor, first, other, bands, whole=chosen is None)
        if complaint:
            streams = " and ".join(f"data.streams.{name}" for name in reading)
            raise ConfigError(
                f"collections {first.name} and {other.name} disagree about sensor {sensor}: {complaint} ({streams})"
            )
        match_bands(_spec(other, sensor).bands, bands, f"collection {other.name}, sensor {sensor}")
    counted = [one for one in carrying if one in read or _complaint(sensor, first, one, bands, chosen is None) is None]
    declared = {spec.nodata for spec in (_spec(one, sensor) for one in read) if spec.nodata is not None}
    return Agreed(_joined(sensor, bands, read), tuple(counted), tuple(sorted(declared)))


def _chosen_bands(sensor: str, reading: Mapping[str, StreamUse]) -> tuple[str, tuple[str, ...]] | None:
    """Return the bands that streams name for a sensor, and where they do; None when none does."""
    told = [
        (f"data.streams.{name}.bands.{sensor}", use.bands[sensor])
        for name, use in reading.items()
        if sensor in use.bands
    ]
    for where, bands in told[1:]:
        if [canonical_band(band) for band in bands] != [canonical_band(band) for band in told[0][1]]:
            raise ConfigError(
                f"{told[0][0]} is {', '.join(told[0][1])} and {where} is {', '.join(bands)}: a model has one set of "
                "bands for a sensor. Set both to the same list, in the same order."
            )
    return told[0] if told else None


def _complaint(sensor: str, first: Collection, other: Collection, bands: Sequence[str], whole: bool) -> str | None:
    """Return what keeps `other` from being read as `first` is; None for nothing. `whole`: all bands are read."""
    ours, theirs = _spec(first, sensor), _spec(other, sensor)
    if ours.kind != theirs.kind:
        return f"kind is {ours.kind} in one and {theirs.kind} in the other. {_RENAME}"
    if not same_units(ours.units, theirs.units):
        return (
            f"units are {ours.units} in one and {theirs.units} in the other. Build one of them in the units of the "
            "other, or with another name for its sensor"
        )
    common = [band for band in ours.bands if canonical_band(band) in set(map(canonical_band, theirs.bands))]
    if (len(common) < len(bands) or len(common) != len(theirs.bands)) if whole else not set(bands) <= set(common):
        advice = f"Set the stream's bands.{sensor} to what both have: [{', '.join(common)}]" if common else _RENAME
        return f"bands are {', '.join(ours.bands)} in one and {', '.join(theirs.bands)} in the other. {advice}"
    return None


def _joined(sensor: str, bands: tuple[str, ...], read: Sequence[Collection]) -> SensorSpec:
    specs = [_spec(one, sensor) for one in read]
    changes: dict[str, object] = {}
    if bands != specs[0].bands:
        shown = specs[0].display
        kept = set(shown.bands) <= set(bands)
        changes |= {"bands": bands, "display": shown if kept else Display(mode="grey")}
    types = {spec.dtype for spec in specs}
    if len(types) > 1:
        joined = np.result_type(*types).name
        changes["dtype"] = joined if joined in get_args(Dtype) else "float64"
    declared = {spec.nodata for spec in specs if spec.nodata is not None}
    if len({spec.nodata for spec in specs}) > 1:
        changes["nodata"] = declared.pop() if len(declared) == 1 else None
        if len(declared) > 1:
            _log.warning(
                "collections declare several nodata values of sensor %s (%s): each is read by its own, and an exported "
                "model takes any of them for not measured",
                sensor,
                ", ".join(f"{value:g}" for value in sorted(declared)),
            )
    if len({spec.quantised for spec in specs}) > 1:
        changes["quantised"] = None
    return specs[0].model_copy(update=changes) if changes else specs[0]


def refuse_several_types(agreed: Mapping[str, Agreed]) -> None:
    """Raise ConfigError for a sensor whose collections store pixels of several types: a batch has one."""
    for sensor, found in agreed.items():
        types = {one.name: _spec(one, sensor).dtype for one in found.collections}
        if len(set(types.values())) > 1:
            listed = ", ".join(f"{dtype} in {name}" for name, dtype in types.items())
            raise ConfigError(
                f"data.pixels is stored, and sensor {sensor} is {listed}: a batch has one type. Set data.pixels to "
                "normalised, or make a run of each."
            )


def _spec(collection: Collection, sensor: str) -> SensorSpec:
    return collection.manifest.sensors[sensor]


def same_units(one: str, other: str) -> bool:
    """Return whether two descriptions of units are the same, but for case and spaces."""
    return one.casefold().split() == other.casefold().split()
