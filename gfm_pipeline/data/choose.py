"""Which samples of its collections a stream uses.

A shard holds samples of one set of sensors, which the manifest tells; a stream uses the shards that carry all of the
sensors it wants, less what its filter leaves out, and says how many samples that costs.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.config import StreamConfig
from gfm_pipeline.errors import ConfigError, nearest
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.manifest import Manifest, ShardEntry
from gfm_pipeline.storage import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collection:
    """An opened collection."""

    name: str
    """As the configuration calls it."""
    store: Store
    manifest: Manifest
    digest: str
    """The manifest's digest; computed once, it costs O(shards)."""


@dataclass(frozen=True)
class ShardRef:
    """One shard that a stream uses."""

    store: Store
    entry: ShardEntry
    specs: Mapping[str, SensorSpec] = field(compare=False)
    """The sensors as its collection stores them; those of another collection may differ in type, nodata and order."""
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
    """As the configuration calls it."""
    samples: int
    missing: tuple[str, ...]
    """The wanted sensors that these samples do not carry; empty for what else the filter leaves out."""


class Choice(NamedTuple):
    """A stream, but for its sub-batch."""

    sensors: tuple[str, ...]
    shards: tuple[ShardRef, ...]
    left_out: tuple[LeftOut, ...]
    digest: str

    @property
    def num_samples(self) -> int:
        """Number of samples chosen."""
        return sum(shard.samples for shard in self.shards)


def choose_shards(name: str, config: StreamConfig, collections: list[Collection]) -> Choice:
    """Return which shards, and samples of them, the stream `name` uses.

    Raises ConfigError for a sensor that no collection carries, or when no sample is left.
    """
    where = f"data.streams.{name}"
    digests = [collection.digest for collection in collections]
    if len(set(digests)) != len(digests):
        raise ConfigError(f"{where}.collections names one collection twice: {', '.join(config.collections)}.")
    if not any(collection.manifest.num_samples for collection in collections):
        raise ConfigError(
            f"{where}: {', '.join(config.collections)} holds no samples: its build packed nothing. Its failures.jsonl "
            "says why; build it again, or leave the stream out."
        )
    sensors = _wanted_sensors(where, config, collections)
    required = _required_sensors(where, config, sensors, collections)
    shards: list[ShardRef] = []
    left_out: list[LeftOut] = []
    for collection in collections:
        manifest = collection.manifest
        usable = [entry for entry in manifest.shards if set(required) <= set(entry.sensors)]
        left_out += _left_out(collection, required)
        refs = [ShardRef(collection.store, entry, manifest.sensors) for entry in usable]
        if config.filter is not None and config.filter.asks_catalog:
            from gfm_pipeline.data.select import select_samples  # its libraries take a while to load

            passed = select_samples(collection.store, usable, config.filter)
            refs = [replace(ref, selected=passed[ref.entry.name]) for ref in refs]
            gone = sum(ref.entry.samples - ref.samples for ref in refs)
            left_out += [LeftOut(collection.name, gone, ())] if gone else []
        shards += [ref for ref in refs if ref.samples]
    for loss in left_out:
        why = f"which have no {' and no '.join(loss.missing)}" if loss.missing else "which do not pass its filter"
        _log.warning("stream %s leaves out %d samples of %s, %s", name, loss.samples, loss.collection, why)
    if not shards:
        raise ConfigError(
            f"{where}: no sample of {', '.join(config.collections)} carries all of {', '.join(required)}"
            f"{' and passes the filter' if config.filter else ''}. "
            f"Set {where}.sensors to sensors that occur together, or make a stream of each collection."
        )
    chosen = [[c.digest, [_named(shard) for shard in shards if shard.store is c.store]] for c in collections]
    digest = hashlib.sha256(json.dumps(chosen).encode()).hexdigest()
    return Choice(sensors, tuple(shards), tuple(left_out), digest)


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


def _required_sensors(
    where: str, config: StreamConfig, sensors: tuple[str, ...], collections: list[Collection]
) -> tuple[str, ...]:
    """Return the sensors that a sample must carry: those to read, then those that the filter asks for."""
    asked = config.filter.sensors if config.filter else ()
    carried = sorted({sensor for collection in collections for sensor in collection.manifest.sensors})
    for sensor in asked:
        if sensor not in carried:
            raise ConfigError(
                f"{where}.filter.sensors: no sensor '{sensor}' in {', '.join(config.collections)}. "
                f"{nearest(sensor, carried)}"
            )
    return tuple(dict.fromkeys([*sensors, *asked]))


def _left_out(collection: Collection, sensors: tuple[str, ...]) -> list[LeftOut]:
    samples: dict[tuple[str, ...], int] = {}
    for entry in collection.manifest.shards:
        missing = tuple(sensor for sensor in sensors if sensor not in entry.sensors)
        if missing:
            samples[missing] = samples.get(missing, 0) + entry.samples
    return [LeftOut(collection.name, count, missing) for missing, count in samples.items()]
