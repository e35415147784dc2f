"""What the files of a sensor declare and its specification lacks: found when a build is planned, kept in the plan.

Floating point needs none of it, as NaN always says that nothing was measured. An integer sensor for which no nodata
value is configured takes the one that its files declare, and the units of numbers that are stored before a scale factor
was applied say so. Both belong to the manifest, so they must be the same for whoever writes a shard: a few files spread
over the whole input decide, the earliest first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from gfm_pipeline.config import StrictModel
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.sensors.missing import holds
from shard_builder.archives import ArchiveReader, item_error
from shard_builder.build.scan import Scan
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.images import extension_of
from shard_builder.rasters.raster import Facts
from shard_builder.sources.base import Source

PROBED = 32
"""Samples that are looked into for each sensor, at most."""
_SILENT = ("jpg", "jpeg", "png", "npy")
"""Files of these kinds declare no nodata value and no scale."""


class Declared(StrictModel):
    """What the files of a sensor declare."""

    nodata: float | None = None
    """The value of an integer sensor for which none is configured."""
    units: str | None = None
    """Those of the numbers as they are stored, where a scale factor is not applied."""


def adopts_nodata(declared: Mapping[str, Declared], sensor: str) -> bool:
    """Return whether the nodata value of a sensor is what its files declare."""
    return sensor in declared and declared[sensor].nodata is not None


def adopt(specs: Mapping[str, SensorSpec], declared: Mapping[str, Declared]) -> dict[str, SensorSpec]:
    """Return the specifications with what the files declare."""
    return {
        name: spec.model_copy(update=declared[name].model_dump(exclude_none=True)) if name in declared else spec
        for name, spec in specs.items()
    }


def find_declared(
    source: Source, scan: Scan, specs: Mapping[str, SensorSpec], files: ArchiveReader
) -> dict[str, Declared]:
    """Return what the planned files of the integer sensors declare, by sensor; sensors without are left out."""
    found: dict[str, Declared] = {}
    for name, spec in specs.items():
        if np.dtype(spec.dtype).kind not in "iu":
            continue
        nodata, units = spec.nodata, None
        for facts in _facts(source, scan, spec, files):
            nodata = nodata if nodata is not None else _usable(facts, spec)
            if units is None and facts.scaling is not None and facts.scaling.of_floats:
                units = f"{spec.units}, before {facts.scaling}"
        adopted = nodata if spec.nodata is None else None
        if adopted is not None or units is not None:
            found[name] = Declared(nodata=adopted, units=units)
    return found


def _usable(facts: Facts, spec: SensorSpec) -> float | None:
    dtype = np.dtype(spec.dtype)
    declared = (*facts.nodata, *facts.masked)
    return next((value for value in declared if value is not None and holds(dtype, value)), None)


def _facts(source: Source, scan: Scan, spec: SensorSpec, files: ArchiveReader) -> Iterator[Facts]:
    """Yield what the files of a sensor say, of samples spread over all; what cannot be read is left to the build."""
    for planned in _spread(scan, spec.name):
        if all(extension_of(ref.member) in _SILENT for ref in planned.files):
            continue
        try:
            yield source.load(planned, spec, files).facts
        except Exception as error:
            item_error(error, planned.source_file)  # raises what is no file's fault
            continue


def _spread(scan: Scan, sensor: str) -> Iterator[PlannedRaster]:
    """Yield at most PROBED rasters of a sensor, evenly over all of them, in the order of the plan."""
    sets = {present: count for present, count in sorted(scan.sensor_sets().items()) if sensor in present}
    step = -(-sum(sets.values()) // PROBED)
    position = 0
    for present in sets:
        for sample in scan.samples(present):
            if position % step == 0:
                yield sample.rasters[sensor]
            position += 1
