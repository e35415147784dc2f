"""Write a small collection with the shard contract alone, as a stand-in for a build."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards import MANIFEST_PATH
from gfm_pipeline.shards.codec import encode
from gfm_pipeline.shards.manifest import (
    Manifest,
    Member,
    RasterMember,
    SampleEntry,
    ShardEntry,
    Sidecar,
    dump_document,
    sidecar_path,
    tar_path,
)
from gfm_pipeline.shards.stats import BandStats, measure, merge
from gfm_pipeline.shards.tar import ShardTar
from gfm_pipeline.storage import LocalStore

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
    statistics: dict[str, list[list[BandStats]]] = {spec.name: [] for spec in specs}
    for sensors, group in by_sensors.items():
        for begin in range(0, len(group), samples_per_shard):
            name = f"{folder.name}-{len(shards):06d}"
            sidecar = _write_shard(store, name, sensors, group[begin : begin + samples_per_shard], specs, extension)
            for sensor, bands in sidecar.statistics.items():
                statistics[sensor].append(bands)
            document = dump_document(sidecar)
            store.put(sidecar_path(name), document)
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
    store.put(MANIFEST_PATH, dump_document(manifest))
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
        records = tar.add(key, {"json": json.dumps({"key": key}).encode(), **members})
        entries.append(
            SampleEntry(
                key=key,
                meta=records["json"],
                sensors={s: _raster_member(records[f"{s}.{extension}"], raster) for s, raster in rasters.items()},
            )
        )
    size, sha256 = tar.close()
    store.put(tar_path(name), buffer.getvalue())
    bands = {spec.name: spec.bands for spec in specs}
    return Sidecar(
        name=name,
        sensors=sensors,
        task_digest="0" * 64,
        tar_bytes=size,
        tar_sha256=sha256,
        samples=tuple(entries),
        statistics={s: merge(measure(rasters[s], bands[s]) for _, rasters in samples) for s in sensors},
    )


def _raster_member(record: Member, raster: np.ndarray) -> RasterMember:
    return RasterMember(**record.model_dump(), dtype=str(raster.dtype), shape=raster.shape)
