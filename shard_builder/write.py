"""Write one shard: read, check, encode, tar, then the sidecar that commits it.

The tar is written under a temporary name, synced and renamed; the sidecar follows. A process that dies in between
leaves a temporary file or a tar without sidecar, and the shard is written again, to the same bytes.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gfm_pipeline.errors import ItemError, StorageError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards import SHARDS_PREFIX, codec, stats
from gfm_pipeline.shards.codec import Raster
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
from gfm_pipeline.storage import LocalStore
from gfm_pipeline.storage.local import TEMPORARY_PREFIX
from shard_builder.archive import ArchiveReader
from shard_builder.config import BuildConfig, codec_of, resolve_sensors
from shard_builder.plan import ShardTask
from shard_builder.source import SOURCES, Decoded, PlannedRaster, PlannedSample, Source

DEFAULT_CODEC = "blosc2"


@dataclass(frozen=True)
class TaskResult:
    """What a worker says of a committed shard."""

    name: str
    samples: int
    bytes: int
    rejected: int


class ShardWriter:
    """Writes shards of one build; one per process."""

    def __init__(self, config: BuildConfig, root: Path, index_folder: Path) -> None:
        self._config = config
        source = SOURCES.get(config.source)
        self._source: Source = source()
        self._specs = resolve_sensors(config, source.sensors)
        self._reader = ArchiveReader(root, index_folder, config.max_member_bytes)
        self._store = LocalStore(Path(config.output))
        self._decoded: dict[str, tuple[str, Decoded]] = {}
        """Per sensor the last image that tiles were cut of, and its name: tiles of one image follow each other."""

    def write(self, task: ShardTask) -> TaskResult:
        """Write and commit one shard; raise ItemError for a bad item when the policy is `fail`."""
        folder = Path(self._config.output) / SHARDS_PREFIX
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=".tar", dir=folder)
            temporary = Path(name)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    shard = _ShardUnderWay(ShardTar(file), task, self._specs)
                    try:
                        for sample in task.samples:
                            self._add(shard, sample)
                    except BaseException:
                        shard.tar.abandon()
                        raise
                    size, sha256 = shard.tar.close()
                    file.flush()
                    os.fsync(file.fileno())
                temporary.chmod(0o644)
                self._store.put_file(tar_path(task.name), temporary)
            finally:
                temporary.unlink(missing_ok=True)
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(
                f"cannot write shard {task.name} to {folder}: {error.strerror or error}. Nothing of it was committed; "
                "mend the cause and run the same command again."
            ) from error
        self._store.put(sidecar_path(task.name), dump_document(shard.sidecar(size, sha256)))
        return TaskResult(task.name, len(shard.entries), size, len(shard.rejected))

    def close(self) -> None:
        """Close the archives."""
        self._reader.close()

    def _add(self, shard: _ShardUnderWay, sample: PlannedSample) -> None:
        decoded: dict[str, Decoded] = {}
        source_file = ""
        try:
            for name, raster in sample.rasters.items():
                source_file = raster.ref.source_file
                decoded[name] = self._decode(raster, name)
            _check_one_place(sample, decoded)
        except ItemError as error:
            if self._config.on_error == "fail":
                raise
            shard.rejected.append(
                Rejected(
                    item=sample.key,
                    source_file=source_file,
                    reason=str(error),
                    policy="on_error=skip",
                    shard=shard.task.name,
                )
            )
            return
        shard.add(sample, decoded, {name: codec_of(self._config, name) for name in decoded})

    def _decode(self, raster: PlannedRaster, sensor: str) -> Decoded:
        """Return the raster of one sensor of a sample, cut to its window and checked against the specification."""
        name = raster.ref.source_file
        kept, whole = self._decoded.get(sensor, ("", None))
        if kept != name or whole is None:
            whole = None
            self._decoded.pop(sensor, None)  # before the next one is decoded: an image may be gigabytes
            whole = self._source.decode(self._reader.read(raster.ref), raster.ref, sensor)
            _check(whole.raster, self._specs[sensor], name)
        if raster.window is None:
            return whole
        self._decoded[sensor] = name, whole
        row, column, height, width = raster.window
        tile = np.ascontiguousarray(whole.raster[:, row : row + height, column : column + width])
        placed = whole.georeference.window(row, column) if whole.georeference else None
        return Decoded(tile, placed, None, whole.rules)


class _ShardUnderWay:
    """Entries, statistics and rejected items of a shard while it is written."""

    def __init__(self, tar: ShardTar, task: ShardTask, specs: Mapping[str, SensorSpec]) -> None:
        self.tar = tar
        self.task = task
        self.entries: list[SampleEntry] = []
        self.rejected: list[Rejected] = []
        self._specs = specs
        self._rules: Counter[str] = Counter()
        self._statistics: dict[str, list[stats.BandStats]] = {sensor: [] for sensor in task.sensors}

    def add(self, sample: PlannedSample, decoded: Mapping[str, Decoded], codecs: Mapping[str, str | None]) -> None:
        """Append one sample."""
        members: dict[str, bytes] = {}
        extensions: dict[str, str] = {}
        for sensor, item in decoded.items():
            extension, data = _encode(item, codecs[sensor])
            extensions[sensor] = extension
            members[f"{sensor}.{extension}"] = data
            self._rules.update(item.rules)
            measured = stats.measure(item.raster, self._specs[sensor].bands)
            self._statistics[sensor] = stats.merge([part for part in (self._statistics[sensor], measured) if part])
        record = _record(sample, decoded, extensions, self._specs)
        members["json"] = dump_document(record)
        written = self.tar.add(sample.key, members)
        self.entries.append(
            SampleEntry(
                key=sample.key,
                meta=written["json"],
                sensors={
                    sensor: RasterMember(
                        **written[f"{sensor}.{extensions[sensor]}"].model_dump(),
                        dtype=str(item.raster.dtype),
                        shape=item.raster.shape,
                    )
                    for sensor, item in decoded.items()
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


def _record(
    sample: PlannedSample, decoded: Mapping[str, Decoded], codecs: Mapping[str, str], specs: Mapping[str, SensorSpec]
) -> SampleRecord:
    place = next((item for item in decoded.values() if item.georeference), None)
    georeference = place.georeference if place else None
    return SampleRecord(
        key=sample.key,
        sensors={
            sensor: SensorRecord(
                bands=specs[sensor].bands,
                shape=item.raster.shape,
                dtype=str(item.raster.dtype),
                codec=codecs[sensor],
                gsd_m=(item.georeference.gsd_m if item.georeference else None) or specs[sensor].gsd_m,
                source_file=sample.rasters[sensor].ref.source_file,
                window=sample.rasters[sensor].window,
            )
            for sensor, item in decoded.items()
        },
        crs=georeference.crs if georeference else None,
        transform=georeference.transform if georeference else None,
        footprint=georeference.footprint(*place.raster.shape[-2:]) if georeference and place else None,
        labels=sample.labels,
    )


def _encode(item: Decoded, configured: str | None) -> tuple[str, bytes]:
    """Return extension and bytes of a member: the archive's own bytes unless the configuration names a codec."""
    if configured is None and item.original is not None:
        return item.original
    extension = configured or DEFAULT_CODEC
    return extension, codec.encode(item.raster, extension)


def _check_one_place(sample: PlannedSample, decoded: Mapping[str, Decoded]) -> None:
    """Raise ItemError when the tags of a sample's sensors say that they lie apart."""
    placed = [(name, item, item.georeference) for name, item in decoded.items() if item.georeference]
    for name, item, place in placed[1:]:
        first, other, home = placed[0]
        if not home.lies_with(other.raster.shape[-2:], place, item.raster.shape[-2:]):
            files = (sample.rasters[sensor].ref.source_file for sensor in (first, name))
            where = [f"{p.crs} {p.transform} in {file}" for p, file in zip((home, place), files, strict=True)]
            raise ItemError(
                f"{first} and {name} of {sample.key} lie apart: {' and '.join(where)}, expected one place. "
                "Drop them with on_error=skip."
            )


def _check(raster: Raster, spec: SensorSpec, where: str) -> None:
    bands = raster.shape[0]
    if bands != len(spec.bands):
        raise ItemError(
            f"{spec.name} has {bands} bands in {where}, the sensor declares {len(spec.bands)} "
            f"({', '.join(spec.bands)}). Set sensors.{spec.name}.bands, or drop the file with on_error=skip."
        )
    if str(raster.dtype) != spec.dtype:
        raise ItemError(
            f"{spec.name} has {raster.dtype} pixels in {where}, the sensor declares {spec.dtype}. "
            f"Set sensors.{spec.name}.dtype, or drop the file with on_error=skip."
        )
    if raster.dtype.kind == "f" and not np.isfinite(raster).all():
        count = int((~np.isfinite(raster)).sum())
        raise ItemError(
            f"{spec.name} has {count} pixels that are NaN or infinite in {where}, expected numbers only. "
            "Drop the file with on_error=skip."
        )
