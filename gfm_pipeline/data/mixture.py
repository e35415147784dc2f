"""A training mixture, opened: which samples each stream uses, and what their sensors are.

Opening reads the manifests only, which costs O(shards), and the catalogs of streams with a filter.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from gfm_pipeline.data.agree import StreamUse, agree, refuse_several_types
from gfm_pipeline.data.choose import Collection, LeftOut, ShardRef, choose_shards
from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.data.normalize import Normalisation, resolve_normalisation
from gfm_pipeline.data.plan import Plan, PlannedStream, Sizes, epoch_steps
from gfm_pipeline.data.sub_batch import StreamSize, samples_per_step
from gfm_pipeline.errors import ConfigError, nearest
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.manifest import load_manifest
from gfm_pipeline.storage import open_store

__all__ = ["LeftOut", "Mixture", "ShardRef", "Stream", "make_plan", "open_mixture"]


@dataclass(frozen=True)
class Stream:
    """The samples of one stream."""

    name: str
    sensors: tuple[str, ...]
    samples_per_step: int
    """Samples per lane and optimizer step that the stream takes part in."""
    shards: tuple[ShardRef, ...]
    left_out: tuple[LeftOut, ...]
    digest: str
    """Digest of the collections behind it and of the choice of shards."""

    @property
    def num_samples(self) -> int:
        """Number of samples that the stream uses."""
        return sum(shard.samples for shard in self.shards)

    @property
    def sub_batch(self) -> int:
        """Images per lane and optimizer step that the stream takes part in."""
        return self.samples_per_step * len(self.sensors)


@dataclass(frozen=True)
class Mixture:
    """Everything about the data that is fixed before the first step."""

    streams: dict[str, Stream]
    """By name, in the order of the configuration."""
    sensors: dict[str, SensorSpec]
    """Every sensor that some stream uses, with the bands that are read of it, see `agree`."""
    nodata: dict[str, tuple[float, ...]]
    """By sensor, the nodata values that its collections declare; a collection's rasters are read by its own."""
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
                opened[url] = Collection(name, store, manifest, manifest.digest)
    choices = {
        name: choose_shards(name, stream, [opened[_collection_url(config.root, c)] for c in stream.collections])
        for name, stream in config.streams.items()
    }
    _check_cache(config, opened.values())
    counts = samples_per_step(config, {name: StreamSize(c.num_samples, c.sensors) for name, c in choices.items()})
    streams = {
        name: Stream(name, c.sensors, counts[name], c.shards, c.left_out, c.digest) for name, c in choices.items()
    }
    uses = {
        name: StreamUse(c.sensors, config.streams[name].bands, _digests(config, opened, name))
        for name, c in choices.items()
    }
    # By digest, so that two copies of a collection count once and neither order nor place matters.
    distinct: dict[str, Collection] = {}
    for collection in opened.values():
        distinct.setdefault(collection.digest, collection)
    agreed = agree(list(distinct.values()), uses)
    sensors = {name: found.spec for name, found in agreed.items()}
    if config.pixels == "stored":
        refuse_several_types(agreed)
    for name in config.time:
        if name not in sensors:
            raise ConfigError(f"data.time.{name}: no stream uses this sensor. {nearest(name, sensors)}")
    normalisation = resolve_normalisation(agreed, config.statistics)
    described = {
        "streams": [[s.name, s.sensors, s.samples_per_step, s.digest] for s in streams.values()],
        "sensors": {name: spec.model_dump(mode="json") for name, spec in sensors.items()},
        "normalisation": {name: asdict(statistics) for name, statistics in normalisation.items()},
    }
    return Mixture(
        streams=streams,
        sensors=sensors,
        nodata={name: found.nodata for name, found in agreed.items()},
        normalisation=normalisation,
        manifest_digests={
            name: opened[_collection_url(config.root, name)].digest
            for stream in config.streams.values()
            for name in stream.collections
        },
        steps_per_epoch=epoch_steps(_planned(streams), _sizes(config), config.steps_per_epoch),
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
    return Plan(_planned(mixture.streams), _sizes(config), seed, config.steps_per_epoch)


def _sizes(config: DataConfig) -> Sizes:
    return Sizes(config.lanes, config.chunk_samples, config.window_chunks, config.batches)


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


def _digests(config: DataConfig, opened: Mapping[str, Collection], stream: str) -> frozenset[str]:
    """Return the digests of a stream's collections."""
    return frozenset(opened[_collection_url(config.root, name)].digest for name in config.streams[stream].collections)
