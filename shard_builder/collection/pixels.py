"""Samples of a collection as arrays, for pictures and counts: checked bytes, decoded, with what their record says."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ChecksumError, ShardError, UsageError, nearest
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.sensors.missing import unmeasured
from gfm_pipeline.shards.codec import Raster
from gfm_pipeline.shards.manifest import Manifest, Member, SampleEntry, load_sidecar, sidecar_path, tar_path
from gfm_pipeline.shards.quantise import decode_member
from gfm_pipeline.shards.sample import SampleRecord, parse_record
from gfm_pipeline.storage import Store
from shard_builder.collection.choose import choose_samples


@dataclass(frozen=True)
class ShownSample:
    """One sample with the pixels of the wanted sensors."""

    record: SampleRecord
    rasters: dict[str, Raster]
    """By sensor in the manifest's order, [C,H,W] or [T,C,H,W], as stored."""


def is_labels(spec: SensorSpec) -> bool:
    """Return whether the sensor's pixels are class numbers and not measurements."""
    return spec.kind == "labels" or spec.units == "class"


def valid_pixels(raster: Raster, spec: SensorSpec) -> NDArray[np.bool_]:
    """Return, in the shape of `raster`, where something was measured."""
    missing = unmeasured(raster, spec.nodata)
    return np.ones(raster.shape, np.bool_) if missing is None else ~missing


def wanted_sensors(manifest: Manifest, names: Sequence[str]) -> list[str]:
    """Return the sensors to look at, all, class maps last, when none are named; raise UsageError for an unknown one."""
    for name in names:
        if name not in manifest.sensors:
            raise UsageError(f"collection {manifest.name} has no sensor '{name}'. {nearest(name, manifest.sensors)}")
    return list(names) or sorted(manifest.sensors, key=lambda name: is_labels(manifest.sensors[name]))


def read_chosen(
    store: Store, manifest: Manifest, sensors: Collection[str], count: int, seed: int
) -> Iterator[ShownSample]:
    """Yield `count` samples that carry one of `sensors`, evenly over their shards, in the collection's order."""
    shards = [shard for shard in manifest.shards if set(shard.sensors) & set(sensors)]
    for index, samples in choose_samples([shard.samples for shard in shards], count, seed).items():
        shard = shards[index]
        entries = load_sidecar(store, shard.name, shard.sidecar_sha256).samples
        if len(entries) != shard.samples:
            raise ShardError(
                f"{store.url}/{sidecar_path(shard.name)} lists {len(entries)} samples, the manifest says "
                f"{shard.samples}. Run shard-builder verify."
            )
        for sample in samples:
            yield read_sample(store, shard.name, entries[sample], sensors, manifest.sensors)


def read_keys(store: Store, manifest: Manifest, sensors: Collection[str], keys: Sequence[str]) -> Iterator[ShownSample]:
    """Yield the samples of `keys` in the order given; raise UsageError for one that the collection does not hold."""
    places: dict[str, tuple[str, SampleEntry]] = {}
    for shard in manifest.shards:
        if len(places) == len(set(keys)):
            break
        for entry in load_sidecar(store, shard.name, shard.sidecar_sha256).samples:
            if entry.key in keys:
                places[entry.key] = shard.name, entry
    if missing := [key for key in keys if key not in places]:
        raise UsageError(f"{store.url} holds no sample {', '.join(missing)}. catalog.parquet lists all keys.")
    for key in keys:
        yield read_sample(store, *places[key], sensors, manifest.sensors)


def read_sample(
    store: Store, shard: str, entry: SampleEntry, sensors: Collection[str], specs: Mapping[str, SensorSpec]
) -> ShownSample:
    """Return one sample with the rasters of those of `sensors` that it carries; raise ShardError for damaged bytes."""
    where = f"{store.url}/{tar_path(shard)}: sample {entry.key}"
    record = parse_record(_read(store, shard, entry.meta, where), f"{where}: its json member")
    rasters = {}
    for name in sensors:
        if (member := entry.sensors.get(name)) is not None:
            data = _read(store, shard, member, where)
            if len(member.shape) not in (3, 4) or member.shape[-3] != len(specs[name].bands):
                raise ShardError(
                    f"{where} has {name} of the shape {list(member.shape)}, expected [C,H,W] or [T,C,H,W] with "
                    f"{len(specs[name].bands)} bands. Run shard-builder verify."
                )
            rasters[name] = decode_member(data, member.extension, member.dtype, member.shape, specs[name])
    return ShownSample(record, rasters)


def count_classes(samples: Iterable[ShownSample], specs: Mapping[str, SensorSpec]) -> dict[str, dict[int, int]]:
    """Return {sensor: {class: pixels}} over the label rasters of `samples`, classes in rising order."""
    counts: dict[str, dict[int, int]] = {}
    for sample in samples:
        for sensor, raster in sample.rasters.items():
            if is_labels(specs[sensor]):
                values, times = np.unique(raster[valid_pixels(raster, specs[sensor])], return_counts=True)
                seen = counts.setdefault(sensor, {})
                for value, pixels in zip(values.tolist(), times.tolist(), strict=True):
                    seen[int(value)] = seen.get(int(value), 0) + pixels
    return {sensor: dict(sorted(seen.items())) for sensor, seen in counts.items()}


def _read(store: Store, shard: str, member: Member, where: str) -> bytes:
    data = store.get_range(tar_path(shard), member.offset, member.size)
    if zlib.crc32(data) != member.crc32:
        raise ChecksumError(
            f"{where} has a wrong checksum at byte {member.offset}, the shard is damaged. Run shard-builder verify."
        )
    return data
