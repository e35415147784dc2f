"""The plan of a build: which samples go to which shard. It is a pure function of the scan and the configuration.

Every shard holds samples of one set of sensors, so that a training stream that wants pairs chooses shards, not
samples. Who writes a shard, when, and in which order, changes nothing in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.manifest import Rejected
from shard_builder.config import BuildConfig, resolve_sensors
from shard_builder.source import PlannedRaster, PlannedSample, Scan


@dataclass(frozen=True)
class ShardTask:
    """One shard to be written, complete in itself: any process may do it."""

    name: str
    sensors: tuple[str, ...]
    samples: tuple[PlannedSample, ...]
    digest: str
    """sha256 of the configuration, of the sizes of all archives and of everything above."""


@dataclass(frozen=True)
class BuildPlan:
    """All shards of a build, and what was decided on the way."""

    tasks: tuple[ShardTask, ...]
    unpaired: tuple[tuple[PlannedSample, tuple[str, ...]], ...]
    """Samples that lack sensors of the source, with the missing ones; packed or not, as the policy says."""
    dropped: tuple[Rejected, ...]
    digest: str
    """sha256 of the configuration and all tasks: equal plans give equal collections."""


def plan_build(config: BuildConfig, scan: Scan, sensors: tuple[str, ...]) -> BuildPlan:
    """Return the plan; raise ItemError for an unpaired sample when the policy is `error`."""
    unpaired = tuple(
        (sample, missing)
        for sample in scan.samples
        if (missing := tuple(sensor for sensor in sensors if sensor not in sample.rasters))
    )
    if unpaired and config.unpaired == "error":
        sample, missing = unpaired[0]
        raise ItemError(
            f"{sample.key} has {' and '.join(sample.rasters)} but no {' and no '.join(missing)} "
            f"({len(unpaired)} such samples). Set unpaired to keep or drop to build all the same."
        )
    incomplete = {sample.key for sample, _ in unpaired}
    groups: dict[tuple[str, ...], list[PlannedSample]] = {sensors: []}
    for sample in scan.samples:
        if sample.key not in incomplete:
            groups[sensors].append(sample)
        elif config.unpaired == "keep":
            groups.setdefault(tuple(s for s in sensors if s in sample.rasters), []).append(sample)
    tasks: list[ShardTask] = []
    # Archives too: other pixels may well come in members of the same names and sizes.
    base = json.dumps([config.digest(), [item.model_dump() for item in scan.inputs]])
    specs = resolve_sensors(config, sensors)
    for present, samples in sorted(groups.items(), key=lambda group: (-len(group[0]), group[0])):
        for members in _split(samples, config, specs):
            tasks.append(_task(f"{config.collection}-{len(tasks):06d}", present, members, base))
    dropped = [_dropped(sample, missing) for sample, missing in unpaired if config.unpaired == "drop"]
    everything = json.dumps([base, [task.digest for task in tasks], [item.model_dump() for item in dropped]])
    return BuildPlan(tuple(tasks), unpaired, tuple(dropped), hashlib.sha256(everything.encode()).hexdigest())


def _split(
    samples: list[PlannedSample], config: BuildConfig, specs: Mapping[str, SensorSpec]
) -> list[list[PlannedSample]]:
    shards: list[list[PlannedSample]] = []
    size = 0
    for sample in samples:
        weight = sum(_weight(raster, specs[sensor]) for sensor, raster in sample.rasters.items())
        if not shards or len(shards[-1]) == config.max_samples or size + weight > config.max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(sample)
        size += weight
    return shards


def _weight(raster: PlannedRaster, spec: SensorSpec) -> int:
    """Return the bytes a raster counts for: those of its file; those of its pixels for a tile of one."""
    if raster.window is None:
        return raster.ref.size
    return raster.window[2] * raster.window[3] * len(spec.bands) * np.dtype(spec.dtype).itemsize


def _task(name: str, sensors: tuple[str, ...], samples: list[PlannedSample], base: str) -> ShardTask:
    described = json.dumps([base, name, sensors, [asdict(sample) for sample in samples]], sort_keys=True)
    return ShardTask(name, sensors, tuple(samples), hashlib.sha256(described.encode()).hexdigest())


def _dropped(sample: PlannedSample, missing: tuple[str, ...]) -> Rejected:
    first = next(iter(sample.rasters.values())).ref
    return Rejected(
        item=sample.key,
        source_file=first.source_file,
        reason=f"no {' and no '.join(missing)} of this place",
        policy="unpaired=drop",
    )
