"""A training mixture, opened: which samples each stream uses, and what their sensors are.

Opening reads the manifests only, which costs O(shards). A shard holds samples of one set of sensors; a stream uses
the shards that carry all of the sensors it wants, and says how many samples that leaves out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.config import DataConfig, StreamConfig
from gfm_pipeline.data.normalize import Normalisation, resolve_normalisation
from gfm_pipeline.data.plan import Plan, PlannedStream, Sizes, epoch_steps
from gfm_pipeline.errors import ConfigError, nearest
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.manifest import Manifest, ShardEntry, load_manifest
from gfm_pipeline.storage import Store, open_store

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collection:
    """An opened collection."""

    store: Store
    manifest: Manifest
    digest: str
    """The manifest's digest; computed once, it costs O(shards)."""


@dataclass(frozen=True)
class ShardRef:
    """One shard that a stream uses."""

    store: Store
    entry: ShardEntry
    selected: NDArray[np.int64] | None = field(default=None, compare=False)
    """Sorted indices of the samples that pass the stream's filter; None: all."""

    @property
    def samples(self) -> int:
        """Number of samples that the stream uses of it."""
        return self.entry.samples if self.selected is None else len(self.selected)


@dataclass(frozen=True)
class LeftOut:
    """Samples of a collection that a stream cannot use."""

    collection: str
    samples: int
    missing: tuple[str, ...]
    """The wanted sensors that these samples do not carry; empty for what the filter leaves out."""


@dataclass(frozen=True)
class Stream:
    """The samples of one stream."""

    name: str
    sensors: tuple[str, ...]
    samples_per_step: int
    """Samples per lane and optimizer step: the sub-batch, which counts images, by the number of sensors."""
    shards: tuple[ShardRef, ...]
    left_out: tuple[LeftOut, ...]
    digest: str
    """Digest of the collections behind it and of the choice of shards."""

    @property
    def num_samples(self) -> int:
        """Number of samples that the stream uses."""
        return sum(shard.samples for shard in self.shards)


@dataclass(frozen=True)
class Mixture:
    """Everything about the data that is fixed before the first step."""

    streams: dict[str, Stream]
    """By name, in the order of the configuration."""
    sensors: dict[str, SensorSpec]
    """Every sensor that some stream uses."""
    normalisation: dict[str, Normalisation]
    """By sensor, over all collections of the mixture that carry it."""
    manifest_digests: dict[str, str]
    """By collection, as the configuration names it."""
    steps_per_epoch: int
    """Optimizer steps per epoch: as configured, or one pass over the longest stream."""
    digest: str
    """Digest of the streams, their sensors and the normalisation."""


def open_mixture(config: DataConfig) -> Mixture:
    """Return the mixture that `config` describes.

    Raises ConfigError for a sensor that no collection carries, collections that disagree about a sensor, a sub-batch
    that its sensors do not divide, or missing statistics; ShardError for a folder that is no finished collection.
    """
    opened: dict[str, Collection] = {}
    for stream in config.streams.values():
        for name in stream.collections:
            url = _collection_url(config.root, name)
            if url not in opened:
                store = open_store(url, config.storage, config.cache)
                manifest = load_manifest(store)
                opened[url] = Collection(store, manifest, manifest.digest)
    streams = {
        name: _open_stream(name, stream, [opened[_collection_url(config.root, c)] for c in stream.collections])
        for name, stream in config.streams.items()
    }
    _check_cache(config, opened.values())
    # By digest, so that two copies of a collection count once and neither order nor place matters.
    distinct = {collection.digest: collection for collection in opened.values()}
    used = dict.fromkeys(sensor for stream in streams.values() for sensor in stream.sensors)
    sensors = {name: _agreed_spec(name, distinct.values()) for name in used}
    normalisation = resolve_normalisation(sensors, [c.manifest for c in distinct.values()], config.statistics)
    described = {
        "streams": [[s.name, s.sensors, s.samples_per_step, s.digest] for s in streams.values()],
        "sensors": {name: spec.model_dump(mode="json") for name, spec in sensors.items()},
        "normalisation": {name: asdict(statistics) for name, statistics in normalisation.items()},
    }
    return Mixture(
        streams=streams,
        sensors=sensors,
        normalisation=normalisation,
        manifest_digests={
            name: opened[_collection_url(config.root, name)].digest
            for stream in config.streams.values()
            for name in stream.collections
        },
        steps_per_epoch=epoch_steps(_planned(streams), config.lanes, config.steps_per_epoch),
        digest=hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest(),
    )


def _check_cache(config: DataConfig, collections: Iterable[Collection]) -> None:
    """Raise ConfigError for a cache that could not hold a chunk for every lane that reads at the same time."""
    remote = [c.manifest for c in collections if c.store.local_path("") is None]
    if config.cache is None or not remote:
        return
    largest = max(
        -(-entry.bytes * min(config.chunk_samples, entry.samples) // entry.samples)
        for manifest in remote
        for entry in manifest.shards
    )
    readers = max(config.lanes, config.threads)
    if config.cache.max_bytes < largest * readers:
        raise ConfigError(
            f"data.cache.max_gb is {config.cache.max_gb:g}, but {readers} readers hold a chunk each, of up to "
            f"{largest / 1e6:.3g} MB. Set it to {math.ceil(largest * readers / 1e5) / 1e4:g} at least, or lower "
            "data.chunk_samples."
        )


def make_plan(mixture: Mixture, config: DataConfig, seed: int) -> Plan:
    """Return the order of samples of `mixture`; raise PlanError when there are too few for the lanes."""
    sizes = Sizes(lanes=config.lanes, chunk_samples=config.chunk_samples, window_chunks=config.window_chunks)
    return Plan(_planned(mixture.streams), sizes, seed, config.steps_per_epoch)


def _planned(streams: Mapping[str, Stream]) -> list[PlannedStream]:
    return [
        PlannedStream(
            name=stream.name,
            shard_samples=tuple(shard.samples for shard in stream.shards),
            samples_per_step=stream.samples_per_step,
            digest=stream.digest,
        )
        for stream in streams.values()
    ]


def _collection_url(root: str, name: str) -> str:
    return name if "://" in name or Path(name).is_absolute() else f"{root.rstrip('/') or '/'}/{name}"


def _open_stream(name: str, config: StreamConfig, collections: list[Collection]) -> Stream:
    where = f"data.streams.{name}"
    digests = [collection.digest for collection in collections]
    if len(set(digests)) != len(digests):
        raise ConfigError(f"{where}.collections names one collection twice: {', '.join(config.collections)}.")
    sensors = _wanted_sensors(where, config, collections)
    if config.sub_batch % len(sensors):
        raise ConfigError(
            f"{where}.sub_batch is {config.sub_batch} images, expected a multiple of its {len(sensors)} sensors "
            f"({', '.join(sensors)}): a sample is one image of each."
        )
    shards: list[ShardRef] = []
    left_out: list[LeftOut] = []
    for collection in collections:
        manifest = collection.manifest
        usable = [entry for entry in manifest.shards if set(sensors) <= set(entry.sensors)]
        left_out += _left_out(manifest, sensors)
        refs = [ShardRef(collection.store, entry) for entry in usable]
        if config.filter is not None:
            from gfm_pipeline.data.select import select_samples  # its libraries take a while to load

            passed = select_samples(collection.store, usable, config.filter)
            refs = [replace(ref, selected=passed[ref.entry.name]) for ref in refs]
            gone = sum(ref.entry.samples - ref.samples for ref in refs)
            left_out += [LeftOut(manifest.name, gone, ())] if gone else []
        shards += [ref for ref in refs if ref.samples]
    for loss in left_out:
        why = f"which have no {' and no '.join(loss.missing)}" if loss.missing else "which do not pass its filter"
        _log.warning("stream %s leaves out %d samples of %s, %s", name, loss.samples, loss.collection, why)
    if not shards:
        raise ConfigError(
            f"{where}: no sample of {', '.join(config.collections)} carries all of {', '.join(sensors)}"
            f"{' and passes the filter' if config.filter else ''}. "
            f"Set {where}.sensors to sensors that occur together, or make a stream of each collection."
        )
    chosen = [[c.digest, [_named(shard) for shard in shards if shard.store is c.store]] for c in collections]
    digest = hashlib.sha256(json.dumps(chosen).encode()).hexdigest()
    return Stream(name, sensors, config.sub_batch // len(sensors), tuple(shards), tuple(left_out), digest)


def _named(shard: ShardRef) -> str | list[str]:
    """Return what stands for a shard in a digest: its name, and which samples if not all."""
    if shard.selected is None:
        return shard.entry.name
    return [shard.entry.name, hashlib.sha256(shard.selected.astype("<i8").tobytes()).hexdigest()]


def _wanted_sensors(where: str, config: StreamConfig, collections: list[Collection]) -> tuple[str, ...]:
    specs = {name: spec for collection in collections for name, spec in collection.manifest.sensors.items()}
    carried = sorted(specs)
    if config.sensors is None:
        return tuple(name for name in carried if specs[name].kind == "image")
    if not config.sensors or len(set(config.sensors)) != len(config.sensors):
        raise ConfigError(f"{where}.sensors is {list(config.sensors)}, expected one or more distinct names.")
    for sensor in config.sensors:
        if sensor not in carried:
            raise ConfigError(
                f"{where}.sensors: no sensor '{sensor}' in {', '.join(config.collections)}. {nearest(sensor, carried)}"
            )
    return config.sensors


def _left_out(manifest: Manifest, sensors: tuple[str, ...]) -> list[LeftOut]:
    samples: dict[tuple[str, ...], int] = {}
    for entry in manifest.shards:
        missing = tuple(sensor for sensor in sensors if sensor not in entry.sensors)
        if missing:
            samples[missing] = samples.get(missing, 0) + entry.samples
    return [LeftOut(manifest.name, count, missing) for missing, count in samples.items()]


def _agreed_spec(sensor: str, collections: Iterable[Collection]) -> SensorSpec:
    carrying = [collection.manifest for collection in collections if sensor in collection.manifest.sensors]
    first = carrying[0].sensors[sensor]
    for manifest in carrying[1:]:
        spec = manifest.sensors[sensor]
        for name in ("bands", "dtype", "units", "kind", "nodata"):
            ours, theirs = getattr(first, name), getattr(spec, name)
            if ours != theirs:
                raise ConfigError(
                    f"collections {carrying[0].name} and {manifest.name} disagree about sensor {sensor}: {name} is "
                    f"{ours} in one and {theirs} in the other. Build one of them with another name for its sensor."
                )
    return first
