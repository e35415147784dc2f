"""Write one shard: read, check, encode, tar, then the sidecar that commits it.

The tar is written under a temporary name, synced and moved into place; the sidecar follows. A process that dies in
between leaves a temporary file or a tar without sidecar, and the shard is written again, to the same bytes.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gfm_pipeline.errors import ItemError, ShardError, StorageError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards import SHARDS_PREFIX, stats
from gfm_pipeline.shards.manifest import (
    RasterMember,
    Rejected,
    SampleEntry,
    Sidecar,
    dump_document,
    sidecar_path,
    tar_path,
)
from gfm_pipeline.shards.sample import SampleRecord, SensorRecord
from gfm_pipeline.shards.tar import ShardTar
from gfm_pipeline.storage import Store
from gfm_pipeline.storage.local import TEMPORARY_PREFIX
from shard_builder.archives import ArchiveReader, item_error
from shard_builder.build.declared import Declared, adopt, adopts_nodata
from shard_builder.build.pack import Packed, Packer
from shard_builder.build.plan import PLAN_PATH, ShardTask, load_task
from shard_builder.catalog import dump_rows, rows_path
from shard_builder.config import BuildConfig, resolve_sensors
from shard_builder.planned import OUTLINE, PlannedSample
from shard_builder.rasters.outline import footprint
from shard_builder.sources.base import make_source

WRITEBACK_BYTES = 2**23
"""Of a tar that the disk is given at a time while it is written."""


@dataclass(frozen=True)
class TaskResult:
    """What a worker says of a committed shard."""

    name: str
    samples: int
    bytes: int
    rejected: int


class ShardWriter:
    """Writes shards of one build; one per process."""

    def __init__(self, config: BuildConfig, output: Store, reader: ArchiveReader, scratch: Path) -> None:
        self._config = config
        self._source = make_source(config)
        self._specs = resolve_sensors(config, self._source.sensors)
        self._packer = Packer(config, self._source, reader)
        self._output = output
        local = output.local_path(SHARDS_PREFIX)
        self._folder = scratch if local is None else local  # a rename stays on one disk

    def write(self, name: str) -> TaskResult:
        """Write and commit a planned shard; raise ItemError for a bad item when the policy is `fail`."""
        task = load_task(self._output, name)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, path = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=".tar", dir=self._folder)
            temporary = Path(path)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    shard = _ShardUnderWay(ShardTar(file), task, adopt(self._specs, task.declared))
                    disk = _Writeback(file)
                    for sample in task.samples:
                        self._add(shard, sample)
                        disk.advance()
                    size, sha256 = shard.tar.close()
                    _sync(file)
                self._check_wanted(name)
                temporary.chmod(0o644)
                self._output.put_file(tar_path(task.name), temporary)
            finally:
                temporary.unlink(missing_ok=True)
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(
                f"cannot write shard {task.name} to {self._folder}: {error.strerror or error}. Nothing of it was "
                "committed; mend the cause and run the same command again."
            ) from error
        self._output.put(rows_path(task.name), dump_rows(task.name, shard.records))
        self._output.put(sidecar_path(task.name), dump_document(shard.sidecar(size, sha256)))
        return TaskResult(task.name, len(shard.entries), size, len(shard.rejected))

    def _check_wanted(self, name: str) -> None:
        """Raise ShardError in a process that has outlived its build: another one has finished the collection."""
        if not self._output.exists(PLAN_PATH):
            raise ShardError(f"shard {name} is not wanted any more: the build of {self._output.url} is over.")

    def _add(self, shard: _ShardUnderWay, sample: PlannedSample) -> None:
        decode = not shard.entries or self._packer.decodes(sample.key)  # a shard without statistics would be of no use
        found = pack_sample(sample, self._packer, shard.specs, self._config, decode, shard.task.declared)
        if isinstance(found, Rejected):
            shard.rejected.append(found.model_copy(update={"shard": shard.task.name}))
        else:
            shard.add(sample, found)


@dataclass(frozen=True)
class PackedSample:
    """A sample, ready for its shard."""

    members: dict[str, Packed]
    """By sensor."""
    record: SampleRecord


def pack_sample(
    sample: PlannedSample,
    packer: Packer,
    specs: Mapping[str, SensorSpec],
    config: BuildConfig,
    decode: bool,
    declared: Mapping[str, Declared],
) -> PackedSample | Rejected:
    """Return the members of a sample and its record, or why a policy of the build leaves it out.

    `specs` are those with what the files declare.

    Raises ItemError for what cannot be packed when the policy is `fail`.
    """
    loaded: dict[str, Packed] = {}
    source_file = ""
    try:
        for name, planned in sample.rasters.items():
            source_file = planned.source_file
            spec, adopted = specs[name], adopts_nodata(declared, name)
            packed = packer.pack(planned, spec, decode, adopted)
            # What a class map declares by itself is often its background: no reason to leave the place out.
            sparse = adopted and spec.kind == "labels"
            if (packed.nodata_share or 0.0) > config.max_nodata and not sparse:
                reason = f"{packed.nodata_share:.0%} of {name} was not measured"
                policy = f"max_nodata={config.max_nodata:g}"
                return Rejected(item=sample.key, source_file=source_file, reason=reason, policy=policy)
            loaded[name] = packed
        _check_one_place(sample, loaded)
        return PackedSample(loaded, _record(sample, loaded, specs, packer.stated_gsd_m))
    except Exception as raised:  # whatever a file makes its readers raise ends that file's item alone
        error = item_error(raised, source_file)
        if config.on_error == "fail":
            # Not `from` itself: an error that is its own cause has no end for who walks along causes, as Dask does.
            raise error from (raised if error is not raised else raised.__cause__)
        return Rejected(item=sample.key, source_file=source_file, reason=str(error), policy="on_error=skip")


class _ShardUnderWay:
    """Entries, statistics and rejected items of a shard while it is written."""

    def __init__(self, tar: ShardTar, task: ShardTask, specs: Mapping[str, SensorSpec]) -> None:
        self.tar = tar
        self.task = task
        self.entries: list[SampleEntry] = []
        self.records: list[SampleRecord] = []
        self.rejected: list[Rejected] = []
        self.specs = specs
        self._rules: Counter[str] = Counter()
        self._statistics: dict[str, list[stats.BandStats]] = {sensor: [] for sensor in task.sensors}

    def add(self, sample: PlannedSample, packed: PackedSample) -> None:
        """Append one sample."""
        loaded, record = packed.members, packed.record
        members = {f"{sensor}.{item.extension}": item.data for sensor, item in loaded.items()}
        for sensor, item in loaded.items():
            pixels = item.pixels
            if pixels is None:
                self._rules[f"{sensor}: kept undecoded, not in the statistics"] += 1
                continue
            self._rules.update(pixels.rules)
            measured = stats.measure(pixels.raster, self.specs[sensor].bands, pixels.measured)
            self._statistics[sensor] = stats.merge([part for part in (self._statistics[sensor], measured) if part])
        members["json"] = dump_document(record)
        written = self.tar.add(sample.key, members)
        self.records.append(record)
        self.entries.append(
            SampleEntry(
                key=sample.key,
                meta=written["json"],
                sensors={
                    sensor: RasterMember(
                        **written[f"{sensor}.{item.extension}"].model_dump(),
                        dtype=item.dtype,
                        shape=item.shape,
                    )
                    for sensor, item in loaded.items()
                },
            )
        )

    def sidecar(self, tar_bytes: int, tar_sha256: str) -> Sidecar:
        """Return the commit record."""
        return Sidecar(
            name=self.task.name,
            sensors=self.task.sensors,
            task_digest=self.task.digest,
            tar_bytes=tar_bytes,
            tar_sha256=tar_sha256,
            samples=tuple(self.entries),
            statistics=self._statistics,
            rejected=tuple(self.rejected),
            rules=dict(sorted(self._rules.items())),
        )


class _Writeback:
    """Has the disk begin with a file while it is written, so that the sync at its end finds little left to do."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._begun = 0

    def advance(self) -> None:
        """Hand over what was written since the last time, once that is worth it; waits for nothing."""
        size = self._file.tell()
        if size - self._begun >= WRITEBACK_BYTES and hasattr(os, "posix_fadvise"):
            self._file.flush()
            with suppress(OSError):  # a file system that takes no advice writes all of it at the end
                # Linux starts to write out what it is told will not be needed, and keeps what is not yet written.
                os.posix_fadvise(self._file.fileno(), self._begun, size - self._begun, os.POSIX_FADV_DONTNEED)
            self._begun = size


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _record(
    sample: PlannedSample, loaded: Mapping[str, Packed], specs: Mapping[str, SensorSpec], stated: Mapping[str, float]
) -> SampleRecord:
    labels = dict(sample.labels)
    drawn = labels.pop(OUTLINE, None)
    placed = [(item, item.facts.georeference) for item in loaded.values() if item.facts.georeference]
    placed.sort(key=lambda pair: (pair[1].transform is None, pair[1].crs is None))  # the first of the best known
    item, georeference = placed[0] if placed else (None, None)
    has_grid = georeference is not None and georeference.transform is not None
    return SampleRecord(
        key=sample.key,
        sensors={name: _sensor_record(sample, name, item, specs[name], stated) for name, item in loaded.items()},
        crs=georeference.crs if georeference and has_grid else None,
        transform=georeference.transform if georeference else None,
        footprint=(footprint(georeference, *item.shape[-2:]) if georeference and item else None) or drawn,
        labels=labels,
    )


def _sensor_record(
    sample: PlannedSample, sensor: str, item: Packed, spec: SensorSpec, stated: Mapping[str, float]
) -> SensorRecord:
    planned, place = sample.rasters[sensor], item.facts.georeference
    own = stated.get(sensor) if planned.grid is None else None  # what is stated is of the sensor's own pixels
    return SensorRecord(
        bands=spec.bands,
        shape=item.shape,
        dtype=item.dtype,
        codec=item.extension,
        gsd_m=own or (place.gsd_m(*item.shape[-2:]) if place else None) or spec.gsd_m,
        dates=planned.dates,
        step=spec.quantised.step if spec.quantised else None,
        nodata_share=None if item.nodata_share is None else round(item.nodata_share, 6),
        source_file=planned.source_file,
        window=planned.window,
    )


def _check_one_place(sample: PlannedSample, loaded: Mapping[str, Packed]) -> None:
    """Raise ItemError when the tags of a sample's sensors say that they lie apart."""
    placed = [(name, (item.shape[-2], item.shape[-1]), item.facts.georeference) for name, item in loaded.items()]
    known = [(name, size, place) for name, size, place in placed if place]
    for name, size, place in known[1:]:
        first, home_size, home = known[0]
        if not home.lies_with(home_size, place, size):
            files = (sample.rasters[sensor].source_file for sensor in (first, name))
            where = [f"{p.described} in {file}" for p, file in zip((home, place), files, strict=True)]
            raise ItemError(
                f"{first} and {name} of {sample.key} lie apart: {' and '.join(where)}, expected one place. "
                "Drop them with on_error=skip."
            )
