"""Check one shard: sidecar against manifest, tar against sidecar, rows of the catalog and statistics against the tar.

The tar is read once, in bounded ranges; what is in memory is one sample and the records of one shard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ShardError, StorageError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards import CATALOG_PATH
from gfm_pipeline.shards.manifest import (
    SampleEntry,
    ShardEntry,
    Sidecar,
    load_sidecar,
    sidecar_path,
    tar_path,
)
from gfm_pipeline.shards.quantise import stored_dtype
from gfm_pipeline.shards.sample import SampleRecord
from gfm_pipeline.shards.stats import BandStats, measure, merge
from gfm_pipeline.storage import Store, open_store
from shard_builder.catalog import catalog_row
from shard_builder.collection.catalog_rows import CatalogRows
from shard_builder.collection.key_hash import hash_keys
from shard_builder.collection.pixels import valid_pixels
from shard_builder.collection.problem import Place, Problem, ProblemList
from shard_builder.collection.sample_check import check_sample, span_of
from shard_builder.collection.tar_stream import TarStream

TOLERANCE = 1e-9
"""Of statistics, relative: a sum of squares may be taken in another order by another version of numpy."""
END_BYTES = 1024
"""Zero bytes that end a tar, at least."""


@dataclass
class ShardResult:
    """What came of one shard."""

    problems: list[Problem]
    num_problems: int
    samples: int = 0
    """Checked samples."""
    members: int = 0
    bytes_read: int = 0
    statistics: dict[str, list[BandStats]] = field(default_factory=dict)
    """As the sidecar has them."""
    rejected: int = 0
    catalog_rows: int = 0
    key_hashes: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))


class ShardChecker:
    """Checks shards of one collection; one per process."""

    def __init__(self, url: str, specs: dict[str, SensorSpec], with_catalog: bool) -> None:
        self._store = open_store(url)
        self._specs = specs
        self._catalog = CatalogRows(self._store) if with_catalog else None

    def check(self, entry: ShardEntry, chosen: Sequence[int] | None) -> ShardResult:
        """Check a whole shard, or its sidecar and the `chosen` of its samples."""
        problems = ProblemList(self._store.url, tar_path(entry.name), entry.name)
        result = ShardResult([], 0)
        try:
            self._check(entry, chosen, problems, result)
        except Exception as error:  # damage may lead anywhere; what it led to is a problem of this shard alone
            text = f"{type(error).__name__}: {error}"
            problems.add("shard", "one that can be checked to its end", text, Place(path=sidecar_path(entry.name)))
        result.problems, result.num_problems = problems.kept, problems.count
        return result

    def _check(
        self, entry: ShardEntry, chosen: Sequence[int] | None, problems: ProblemList, result: ShardResult
    ) -> None:
        sidecar = self._sidecar(entry, problems)
        if sidecar is not None:
            result.rejected = len(sidecar.rejected)
            result.statistics = sidecar.statistics
            result.key_hashes = hash_keys(sample.key for sample in sidecar.samples)
            self._check_links(entry, sidecar, problems)
            check = _TarCheck(self._store, self._specs, sidecar, problems, result)
            try:
                check.read(chosen)
            except StorageError as error:
                problems.add("tar", f"{entry.bytes} bytes that can be read", str(error))
            self._check_catalog(sidecar, check.records, problems, result)

    def _sidecar(self, entry: ShardEntry, problems: ProblemList) -> Sidecar | None:
        """Return the sidecar if it can be read at all, even if it is not the one that the manifest recorded."""
        at = Place(path=sidecar_path(entry.name))
        try:
            return load_sidecar(self._store, entry.name, entry.sidecar_sha256)
        except ShardError as error:
            problems.add("sidecar", f"sha256 {entry.sidecar_sha256}", str(error), at)
        try:
            return load_sidecar(self._store, entry.name)
        except ShardError:
            return None

    def _check_links(self, entry: ShardEntry, sidecar: Sidecar, problems: ProblemList) -> None:
        at = Place(path=sidecar_path(entry.name))
        problems.compare("bytes of the tar", entry.bytes, sidecar.tar_bytes, at)
        problems.compare("sha256 of the tar", entry.sha256, sidecar.tar_sha256, at)
        problems.compare("number of samples", entry.samples, len(sidecar.samples), at)
        problems.compare("sensors", list(entry.sensors), list(sidecar.sensors), at)
        problems.compare("sensors with statistics", sorted(sidecar.sensors), sorted(sidecar.statistics), at)
        seen: set[str] = set()
        for sample in sidecar.samples:
            here = at._replace(key=sample.key)
            problems.compare("sensors of the sample", sorted(sidecar.sensors), sorted(sample.sensors), here)
            if sample.key in seen:
                problems.add("key", "one sample of this key", "another one", here)
            seen.add(sample.key)
            for name, member in sample.sensors.items():
                spec = self._specs.get(name)
                if spec is None:
                    problems.add("sensor", f"one of {', '.join(self._specs)}", name, here)
                elif len(member.shape) not in (3, 4) or member.shape[-3] != len(spec.bands):
                    shape = f"[C,H,W] or [T,C,H,W] with {len(spec.bands)} bands"
                    problems.add(f"shape of {name}", shape, list(member.shape), here)
                else:
                    problems.compare(f"dtype of {name}", stored_dtype(spec), member.dtype, here)

    def _check_catalog(
        self, sidecar: Sidecar, records: dict[str, SampleRecord], problems: ProblemList, result: ShardResult
    ) -> None:
        if self._catalog is None:
            return
        at = Place(path=CATALOG_PATH)
        try:
            rows = self._catalog.of_shard(sidecar.name)
        except ShardError as error:
            problems.add("rows of the shard", f"{len(sidecar.samples)} rows", str(error), at)
            return
        result.catalog_rows = len(rows)
        by_key = {row["key"]: row for row in rows}
        keys = {sample.key for sample in sidecar.samples}
        for key in sorted(keys - by_key.keys()):
            problems.add("row of the sample", "one row", "none", at._replace(key=key))
        for key in sorted(by_key.keys() - keys):
            problems.add("row of no sample", "no row", "one", at._replace(key=key))
        problems.compare("rows of the shard", len(by_key), len(rows), at)
        for key, record in records.items():
            _compare_row(catalog_row(sidecar.name, record), by_key.get(key), at._replace(key=key), problems)


def _compare_row(expected: dict[str, object], row: dict[str, Any] | None, at: Place, problems: ProblemList) -> None:
    for column, value in expected.items() if row is not None else ():
        assert row is not None
        if row[column] != value:
            problems.add(f"column {column}", _plain(value), _plain(row[column]), at)


def _plain(value: object) -> object:
    return f"{len(value)} bytes {value[:48].hex()}" if isinstance(value, bytes) else value


class _TarCheck:
    """One tar under examination."""

    def __init__(
        self,
        store: Store,
        specs: Mapping[str, SensorSpec],
        sidecar: Sidecar,
        problems: ProblemList,
        result: ShardResult,
    ) -> None:
        self._store = store
        self._specs = specs
        self._sidecar = sidecar
        self._problems = problems
        self._result = result
        self._statistics: dict[str, list[BandStats]] = {}
        self.records: dict[str, SampleRecord] = {}

    def read(self, chosen: Sequence[int] | None) -> None:
        """Check all samples and the sums of the tar, or the `chosen` samples alone."""
        path = tar_path(self._sidecar.name)
        size = self._store.stat(path).size
        whole = self._problems.compare("bytes of the tar", self._sidecar.tar_bytes, size)
        if chosen is not None:
            for sample in (self._sidecar.samples[i] for i in chosen if i < len(self._sidecar.samples)):
                start, end = span_of(sample)
                self._check(sample, self._store.get_range(path, max(start, 0), min(end, size) - max(start, 0)))
            return
        before = self._problems.count
        stream = TarStream(self._store, path, size)
        for sample in self._sidecar.samples:
            start, end = span_of(sample)
            if start != stream.position:
                at = Place(sample.key, None, start, sidecar_path(self._sidecar.name))
                self._problems.add("start of the sample", stream.position, start, at)
                break
            data = stream.read(end - start)
            self._check(sample, data)
            if len(data) < end - start:
                break
        self._finish(stream, size, whole)
        if self._problems.count == before:
            self._check_statistics()

    def _check(self, sample: SampleEntry, data: bytes) -> None:
        checked = check_sample(data, sample, self._specs, self._problems)
        self._result.samples += 1
        self._result.members += 1 + len(sample.sensors)
        self._result.bytes_read += len(data)
        if checked.record is not None:
            self.records[sample.key] = checked.record
        for name, raster in checked.rasters.items():
            said = checked.record.sensors.get(name) if checked.record is not None else None
            if said is not None and said.nodata_share is None:
                continue  # kept undecoded: the build's statistics leave it out
            if name in self._specs and raster.shape[-3] == len(self._specs[name].bands):
                spec = self._specs[name]
                measured = measure(raster, spec.bands, valid_pixels(raster, spec))
                self._statistics[name] = merge([p for p in (self._statistics.get(name), measured) if p])

    def _finish(self, stream: TarStream, size: int, whole: bool) -> None:
        end = stream.position
        zero, sha256 = stream.finish()
        self._result.bytes_read += size - end
        if whole and (not zero or size - end < END_BYTES):
            found = f"{size - end} bytes" + ("" if zero else ", not all of them zero")
            self._problems.add("end of the tar", f"{END_BYTES} zero bytes or more", found, Place(offset=end))
        if whole:
            self._problems.compare("sha256 of the tar", self._sidecar.tar_sha256, sha256)

    def _check_statistics(self) -> None:
        at = Place(path=sidecar_path(self._sidecar.name))
        for sensor, recorded in self._sidecar.statistics.items():
            measured = self._statistics.get(sensor, [])
            compare_statistics(sensor, recorded, measured, self._problems, at)


def compare_statistics(
    sensor: str,
    recorded: Sequence[BandStats],
    measured: Sequence[BandStats],
    problems: ProblemList,
    at: Place,
    tolerance: float = TOLERANCE,
) -> None:
    """Note every band whose recorded statistics are not the measured ones."""
    if not problems.compare(f"bands of {sensor}", [b.band for b in measured], [b.band for b in recorded], at):
        return
    for found, expected in zip(recorded, measured, strict=True):
        scale = max(abs(expected.min), abs(expected.max))
        same = (
            (found.count, found.min, found.max) == (expected.count, expected.min, expected.max)
            and math.isclose(found.mean, expected.mean, rel_tol=tolerance, abs_tol=tolerance * scale)
            and math.isclose(found.m2, expected.m2, rel_tol=tolerance, abs_tol=tolerance * scale**2 * expected.count)
        )
        if not same:
            problems.add(f"statistics of {sensor} {expected.band}", _numbers(expected), _numbers(found), at)


def _numbers(band: BandStats) -> str:
    return f"count {band.count}, mean {band.mean!r}, std {band.std!r}, min {band.min!r}, max {band.max!r}"
