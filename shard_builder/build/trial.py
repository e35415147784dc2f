"""A dry run: some samples of a plan are read, checked and encoded as a build does it, and nothing is written.

All samples of a small plan are tried. Of a large one those from shards spread over it, of every set of sensors, and
of a shard first the ones whose files are the smallest and the largest of a sensor: what is cut short, or of another
type or number of bands, is seldom of the usual size.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards import stats
from gfm_pipeline.shards.manifest import Rejected
from gfm_pipeline.storage import Store
from shard_builder.build.declared import adopt
from shard_builder.build.pack import Packed, Packer
from shard_builder.build.plan import BuildPlan, TaskEntry, load_task
from shard_builder.build.workspace import open_reader
from shard_builder.build.write import pack_sample
from shard_builder.config import BuildConfig, resolve_sensors
from shard_builder.planned import PlannedSample
from shard_builder.sources.base import make_source

SAMPLES = 64
"""Tried at most, unless there are more sets of sensors."""
BYTES = 512 * 2**20
"""Of files, after which no more samples are tried than one of every set of sensors."""


@dataclass
class Trial:
    """What a build would do with the samples that were tried."""

    tried: int = 0
    packed: int = 0
    without_location: int = 0
    """Of the packed ones."""
    bytes: int = 0
    """Of the members of the packed ones."""
    seconds: float = 0.0
    statistics: dict[str, list[stats.BandStats]] = field(default_factory=dict)
    """By sensor, of the packed ones that were decoded."""
    rules: Counter[str] = field(default_factory=Counter)
    """Packed ones by stated rule that changed them, as a manifest counts them."""
    rejected: list[Rejected] = field(default_factory=list)
    """Those that a build would leave out, or be ended by; `policy` names the rule."""

    def add(self, packed: Packed, spec: SensorSpec) -> None:
        """Count one member of a packed sample."""
        self.bytes += len(packed.data)
        if packed.pixels is not None:
            self.rules.update(packed.pixels.rules)
            measured = stats.measure(packed.pixels.raster, spec.bands, packed.pixels.measured)
            parts = (self.statistics.get(spec.name), measured)
            self.statistics[spec.name] = stats.merge([part for part in parts if part])


def try_samples(config: BuildConfig, plan: BuildPlan, output: Store, scratch: Path) -> Trial:
    """Return what becomes of some samples of the plan in `output`; raise what would end a build whatever its policy."""
    lenient = config.model_copy(update={"on_error": "skip"})  # all that is wrong is of interest, not the first
    source = make_source(config)
    specs = adopt(resolve_sensors(config, source.sensors), plan.declared)
    reader = open_reader(config, output, scratch)
    packer = Packer(config, source, reader)
    trial = Trial()
    try:
        for sample, is_first in _chosen(plan, output):
            started = time.perf_counter()
            decode = is_first or packer.decodes(sample.key)
            found = pack_sample(sample, packer, specs, lenient, decode, plan.declared)
            trial.seconds += time.perf_counter() - started
            trial.tried += 1
            if isinstance(found, Rejected):
                trial.rejected.append(found)
            else:
                trial.packed += 1
                trial.without_location += found.record.footprint is None
                for sensor, packed in found.members.items():
                    trial.add(packed, specs[sensor])
    finally:
        reader.close()
    return trial


def _chosen(plan: BuildPlan, output: Store) -> Iterator[tuple[PlannedSample, bool]]:
    """Yield samples to try, each with whether it is the first of its shard."""
    shards = _spread(plan.tasks)
    each = max(1, SAMPLES // max(1, len(shards)))
    known: set[tuple[str, ...]] = set()
    size = 0
    for entry in shards:
        if size > BYTES and entry.sensors in known:
            continue
        known.add(entry.sensors)
        samples = load_task(output, entry.name).samples
        for number in _numbers(samples, each):
            yield samples[number], number == 0
            size += _weight(samples[number])
            if size > BYTES:
                break


def _spread(tasks: tuple[TaskEntry, ...]) -> list[TaskEntry]:
    """Return shards from all over the plan, the first one of every set of sensors among them."""
    firsts = {task.sensors: task for task in reversed(tasks)}
    chosen = {task.name for task in (*firsts.values(), *tasks[:: -(-len(tasks) // SAMPLES) or 1])}
    return [task for task in tasks if task.name in chosen]


def _numbers(samples: tuple[PlannedSample, ...], most: int) -> list[int]:
    """Return which samples of a shard are tried: the first, those of unusual size, and others at equal distances."""
    numbers = range(len(samples))
    picked = [0]
    for sensor in samples[0].rasters:

        def size(number: int, sensor: str = sensor) -> int:
            return sum(ref.size for ref in samples[number].rasters[sensor].files)

        picked += [min(numbers, key=size), max(numbers, key=size)]
    picked += numbers[:: -(-len(samples) // most) or 1]
    picked += numbers[:most]
    return sorted(list(dict.fromkeys(picked))[:most])


def _weight(sample: PlannedSample) -> int:
    return sum(ref.size for raster in sample.rasters.values() for ref in raster.files)
