"""Where the wanted bytes of a shard are: a sidecar, cut down to what reading needs.

A sidecar as parsed costs kilobytes per sample. The index keeps a key and three numbers per sensor, and answers which
byte ranges to read: neighbouring members share a range, unless bytes of an unwanted sensor or sample lie between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.mixture import ShardRef
from gfm_pipeline.errors import ShardError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.manifest import Member, load_sidecar
from gfm_pipeline.shards.quantise import stored_dtype

MAX_RANGE_BYTES = 64 * 2**20
"""No more is read at once, to bound the memory of a thread."""
RECORD = ".json"
"""Name of the column of the samples' json members, which no sensor can have."""
_GAP_BYTES = 3 * 512
"""Between two neighbouring members of a tar lie less: padding and a header. An unwanted one between them makes it
more: two headers and a block of content."""


class Stored(NamedTuple):
    """How the raster of one member is encoded."""

    extension: str
    dtype: str
    shape: tuple[int, ...]


class Location(NamedTuple):
    """The bytes of one wanted member."""

    sample: int
    """Index of the sample in the shard."""
    sensor: str
    offset: int
    size: int


class Range(NamedTuple):
    """One range read and the members it brings."""

    start: int
    length: int
    members: list[Location]


@dataclass(frozen=True)
class SensorColumn:
    """One sensor over all n samples of a shard."""

    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    crc32: NDArray[np.int64]
    stored: list[Stored]
    """Equal entries are one object."""


@dataclass(frozen=True)
class ShardIndex:
    """The wanted sensors of one shard."""

    keys: list[str]
    columns: dict[str, SensorColumn]
    unwanted: NDArray[np.int64]
    """Offsets of the members of all other sensors and samples, sorted."""

    def ranges(self, samples: Sequence[int]) -> list[Range]:
        """Return the reads that bring the wanted sensors of `samples` and no other sensor's or sample's pixels."""
        members = [
            Location(sample, sensor, int(column.offset[sample]), int(column.size[sample]))
            for sample in samples
            for sensor, column in self.columns.items()
        ]
        members.sort(key=lambda member: member.offset)
        ranges: list[Range] = []
        for member in members:
            end = member.offset + member.size
            last = ranges[-1] if ranges else None
            if last and self._adjacent(last.members[-1], member) and end - last.start <= MAX_RANGE_BYTES:
                last.members.append(member)
                ranges[-1] = last._replace(length=end - last.start)
            else:
                ranges.append(Range(member.offset, member.size, [member]))
        return ranges

    def sample_ranges(self, sample: int) -> list[Range]:
        """Return the reads that bring the wanted sensors of one sample and no other's pixels."""
        located = sorted(
            (int(column.offset[sample]), int(column.size[sample]), sensor) for sensor, column in self.columns.items()
        )
        ranges: list[Range] = []
        end = -_GAP_BYTES
        for offset, size, sensor in located:
            member = Location(sample, sensor, offset, size)
            if offset - end < _GAP_BYTES:
                ranges[-1].members.append(member)
                ranges[-1] = ranges[-1]._replace(length=offset + size - ranges[-1].start)
            else:
                ranges.append(Range(offset, size, [member]))
            end = offset + size
        return ranges

    def _adjacent(self, a: Location, b: Location) -> bool:
        between = np.searchsorted(self.unwanted, [a.offset, b.offset])
        return b.sample - a.sample <= 1 and between[0] == between[1]


_STORED_RECORD = Stored("json", "", ())


def load_shard_index(shard: ShardRef, sensors: Sequence[str], with_records: bool = False) -> ShardIndex:
    """Read the sidecar of `shard`; raise ShardError when it is damaged or not the one the manifest knows.

    `with_records` adds the json members to the `sensors`, as the column RECORD.
    """
    name, where = shard.entry.name, shard.store.url
    sidecar = load_sidecar(shard.store, name, shard.entry.sidecar_sha256)
    if len(sidecar.samples) != shard.entry.samples:
        raise ShardError(
            f"{where}: the sidecar of shard {name} lists {len(sidecar.samples)} samples, the manifest says "
            f"{shard.entry.samples}. Build the collection again."
        )
    chosen = range(len(sidecar.samples)) if shard.selected is None else shard.selected.tolist()
    samples = [sidecar.samples[index] for index in chosen]
    taken = set(chosen)
    others = [sample for index, sample in enumerate(sidecar.samples) if index not in taken]
    known: dict[Stored, Stored] = {}
    columns: dict[str, SensorColumn] = {}
    for sensor in sensors:
        try:
            members = [sample.sensors[sensor] for sample in samples]
        except KeyError:
            raise ShardError(f"{where}: a sample of shard {name} has no {sensor}, its sidecar promises one.") from None
        stored = [Stored(member.extension, member.dtype, member.shape) for member in members]
        columns[sensor] = _column(members, [known.setdefault(entry, entry) for entry in stored])
    if with_records:
        columns[RECORD] = _column([sample.meta for sample in samples], [_STORED_RECORD] * len(samples))
    unwanted = [m.offset for sample in samples for s, m in sample.sensors.items() if s not in columns]
    unwanted += [m.offset for sample in others for m in sample.sensors.values()]
    return ShardIndex([sample.key for sample in samples], columns, np.sort(np.array(unwanted, dtype=np.int64)))


def misfit(stored: Stored, spec: SensorSpec, may_be_series: bool) -> str | None:
    """Return what is wrong with a raster of the sensor `spec`, and what to do about it; None for nothing."""
    *dates, bands, _, _ = stored.shape if len(stored.shape) in (3, 4) else (0, 0, 0)
    if bands != len(spec.bands) or stored.dtype != stored_dtype(spec):
        return (
            f"the raster is {stored.dtype}{list(stored.shape)}, expected {stored_dtype(spec)} with {len(spec.bands)} "
            f"bands [C,H,W]. Leave sensor {spec.name} out of the stream's sensors."
        )
    if dates in ([], [1]) or (may_be_series and dates != [0]):
        return None
    return (
        f"the raster is a series of {dates[0]} dates, expected one image. Set data.time.{spec.name}.frames to how many "
        "dates of each sample to take; 1 draws another one in each pass."
    )


def _column(members: Sequence[Member], stored: list[Stored]) -> SensorColumn:
    return SensorColumn(
        offset=np.array([member.offset for member in members], dtype=np.int64),
        size=np.array([member.size for member in members], dtype=np.int64),
        crc32=np.array([member.crc32 for member in members], dtype=np.int64),
        stored=stored,
    )
