"""Write a small collection with the shard contract alone, as a stand-in for a build."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards import CATALOG_PATH, FAILURES_PATH, MANIFEST_PATH
from gfm_pipeline.shards.codec import encode
from gfm_pipeline.shards.manifest import (
    Manifest,
    Member,
    RasterMember,
    SampleEntry,
    ShardEntry,
    Sidecar,
    dump_document,
    dump_manifest,
    sidecar_path,
    tar_path,
)
from gfm_pipeline.shards.sample import SampleRecord, SensorRecord
from gfm_pipeline.shards.stats import BandStats, measure, merge
from gfm_pipeline.shards.tar import ShardTar
from gfm_pipeline.storage import LocalStore
from shard_builder.catalog import write_catalog

Sample = tuple[str, dict[str, np.ndarray]]
"""A key and its rasters [C,H,W] by sensor."""


def random_samples(
    specs: Sequence[SensorSpec], count: int, side: int = 16, seed: int = 0, prefix: str = "place"
) -> list[Sample]:
    """Return `count` samples of noise with all of `specs`."""
    rng = np.random.default_rng(seed)
    return [
        (
            f"{prefix}-{i:04d}",
            {s.name: (rng.random((len(s.bands), side, side)) * 200 + 10).astype(s.dtype) for s in specs},
        )
        for i in range(count)
    ]


def make_collection(
    folder: Path,
    samples: Sequence[Sample],
    specs: Sequence[SensorSpec],
    samples_per_shard: int = 8,
    extension: str = "blosc2",
    **changes: Any,
) -> Manifest:
    """Write `samples` to `folder`; `changes` replace fields of the manifest. A shard never mixes sensor sets."""
    store = LocalStore(folder)
    by_sensors: dict[tuple[str, ...], list[Sample]] = {}
    for sample in samples:
        by_sensors.setdefault(tuple(sorted(sample[1])), []).append(sample)
    shards: list[ShardEntry] = []
    sidecars: list[Sidecar] = []
    statistics: dict[str, list[list[BandStats]]] = {spec.name: [] for spec in specs}
    for sensors, group in by_sensors.items():
        for begin in range(0, len(group), samples_per_shard):
            name = f"{folder.name}-{len(shards):06d}"
            sidecar = _write_shard(store, name, sensors, group[begin : begin + samples_per_shard], specs, extension)
            for sensor, bands in sidecar.statistics.items():
                statistics[sensor].append(bands)
            document = dump_document(sidecar)
            store.put(sidecar_path(name), document)
            sidecars.append(sidecar)
            shards.append(
                ShardEntry(
                    name=name,
                    sensors=sensors,
                    samples=len(sidecar.samples),
                    bytes=sidecar.tar_bytes,
                    sha256=sidecar.tar_sha256,
                    sidecar_sha256=hashlib.sha256(document).hexdigest(),
                )
            )
    manifest = Manifest(
        name=folder.name,
        source="test",
        sensors={spec.name: spec for spec in specs},
        num_samples=len(samples),
        samples_with={spec.name: sum(spec.name in rasters for _, rasters in samples) for spec in specs},
        shards=tuple(shards),
        statistics={sensor: merge(parts) for sensor, parts in statistics.items()},
        inputs=(),
        build_digest="0" * 64,
        counts={},
    ).model_copy(update=changes)
    write_catalog(folder / CATALOG_PATH, store, sidecars)
    store.put(FAILURES_PATH, b"")
    store.put(MANIFEST_PATH, dump_manifest(manifest))
    return manifest


def _write_shard(
    store: LocalStore,
    name: str,
    sensors: tuple[str, ...],
    samples: Sequence[Sample],
    specs: Sequence[SensorSpec],
    extension: str,
) -> Sidecar:
    buffer = io.BytesIO()
    tar = ShardTar(buffer)
    entries: list[SampleEntry] = []
    for key, rasters in samples:
        members = {f"{sensor}.{extension}": encode(raster, extension) for sensor, raster in rasters.items()}
        record = _record(key, rasters, specs, extension)
        records = tar.add(key, {"json": dump_document(record), **members})
        entries.append(
            SampleEntry(
                key=key,
                meta=records["json"],
                sensors={s: _raster_member(records[f"{s}.{extension}"], raster) for s, raster in rasters.items()},
            )
        )
    size, sha256 = tar.close()
    store.put(tar_path(name), buffer.getvalue())
    by_name = {spec.name: spec for spec in specs}
    return Sidecar(
        name=name,
        sensors=sensors,
        task_digest="0" * 64,
        tar_bytes=size,
        tar_sha256=sha256,
        samples=tuple(entries),
        statistics={s: merge(_measure(rasters[s], by_name[s]) for _, rasters in samples) for s in sensors},
    )


def _measure(raster: np.ndarray, spec: SensorSpec) -> list[BandStats]:
    missing = np.isnan(raster) if raster.dtype.kind == "f" else np.zeros(raster.shape, bool)
    return measure(raster, spec.bands, ~(missing | (raster == spec.nodata)))


def _record(key: str, rasters: dict[str, np.ndarray], specs: Sequence[SensorSpec], extension: str) -> SampleRecord:
    """A record with a footprint that depends on the key, and a month between the dates of a series."""
    east, north = zlib.crc32(key.encode()) % 3000 / 10 - 150, zlib.crc32(key.encode()) % 1200 / 10 - 60
    sensors = {
        spec.name: SensorRecord(
            bands=spec.bands,
            shape=raster.shape,
            dtype=str(raster.dtype),
            codec=extension,
            gsd_m=spec.gsd_m,
            dates=tuple(f"2019-{month + 1:02d}-15" for month in range(len(raster))) if raster.ndim == 4 else (),
            source_file=f"made.zip!{key}.tif",
        )
        for spec in specs
        if (raster := rasters.get(spec.name)) is not None
    }
    corners = ((east, north), (east + 0.1, north), (east + 0.1, north + 0.1), (east, north + 0.1))
    return SampleRecord(
        key=key,
        sensors=sensors,
        crs="EPSG:4326",
        footprint=corners,
        labels={"class": "even" if len(key) % 2 else "odd"},
    )


def _raster_member(record: Member, raster: np.ndarray) -> RasterMember:
    return RasterMember(**record.model_dump(), dtype=str(raster.dtype), shape=raster.shape)
