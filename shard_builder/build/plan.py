"""The plan of a build: which samples go to which shard. It follows from the scan and the configuration alone.

Every shard holds samples of one set of sensors, so that a training stream that wants pairs chooses shards, not
samples. Who writes a shard, when, where, and in which order changes nothing in it. The plan is kept in the output
while a build is under way: plan.json names the shards, and each has a task of its own beside it, so that no process
ever holds more than a shard's worth of samples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from gfm_pipeline.config import StrictModel
from gfm_pipeline.errors import ItemError, ShardError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.manifest import InputFile, Rejected, dump_document
from gfm_pipeline.storage import Store
from shard_builder.build.declared import Declared
from shard_builder.build.scan import Scan
from shard_builder.config import BuildConfig
from shard_builder.planned import PlannedRaster, PlannedSample

PLAN_PATH = ".build/plan.json"
TASKS_PREFIX = ".build/tasks"
REJECTED_PATH = ".build/rejected.jsonl"
EXAMPLES = 20
"""Unpaired samples that the plan names; it counts them all."""


@dataclass(frozen=True)
class ShardTask:
    """One shard to be written, complete in itself: any process may do it."""

    name: str
    sensors: tuple[str, ...]
    samples: tuple[PlannedSample, ...]
    digest: str
    """sha256 of the configuration, of the archives that the samples lie in, and of everything else here."""
    declared: dict[str, Declared] = field(default_factory=dict)
    """What the files of its sensors declare and the configuration does not say."""


class TaskEntry(StrictModel):
    """What the plan says of one shard."""

    name: str
    sensors: tuple[str, ...]
    samples: int
    bytes: int
    """Of its samples, as the archive stores them; tiles count with their pixels."""
    digest: str


class IgnoredFiles(StrictModel):
    """Files of the input that are not packed, and why."""

    path: str
    reason: str
    files: int


class BuildPlan(StrictModel):
    """All shards of a build, and what was decided on the way."""

    format: Literal["gfm-build-plan"] = "gfm-build-plan"
    version: Literal[1] = 1
    name: str
    source: str
    config_digest: str
    inputs: tuple[InputFile, ...]
    versions: dict[str, str]
    """By archive, what changes when it does: a build goes on only with the archives it began with."""
    tasks: tuple[TaskEntry, ...]
    num_items: int
    num_samples: int
    num_rejected: int
    num_duplicates: int
    num_unpaired: int
    num_dropped: int
    unpaired: tuple[str, ...]
    """The first unpaired samples, each with what it lacks."""
    ignored: tuple[IgnoredFiles, ...]
    synthetic: bool = False
    """Whether an input says that it shows no real place."""
    warnings: tuple[str, ...] = ()
    """Settings and tables that have nothing to do in this input."""
    declared: dict[str, Declared] = {}
    """By sensor, what its files declare and the configuration does not say."""

    @property
    def digest(self) -> str:
        """sha256 of what the collection will hold: equal plans give equal collections."""
        described = [self.config_digest, [task.digest for task in self.tasks]]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def make_plan(
    config: BuildConfig,
    scan: Scan,
    specs: Mapping[str, SensorSpec],
    required: tuple[str, ...],
    store: Store,
    declared: Mapping[str, Declared] | None = None,
) -> BuildPlan:
    """Plan the shards and write the plan to `store`, plan.json last.

    Raises ItemError for an unpaired sample when the policy is `error`.
    """
    lacking = {present: tuple(sensor for sensor in required if sensor not in present) for present in scan.sensor_sets()}
    unpaired = {present: missing for present, missing in lacking.items() if missing}
    examples = [
        f"{sample.key} has no {' and no '.join(missing)}"
        for present, missing in sorted(unpaired.items())
        for sample, _ in zip(scan.samples(present), range(EXAMPLES), strict=False)
    ]
    sizes = scan.sensor_sets()
    num_unpaired = sum(sizes[present] for present in unpaired)
    if unpaired and config.unpaired == "error":
        raise ItemError(
            f"{examples[0]} ({num_unpaired} such samples). Set unpaired to keep or drop to build all the same."
        )
    dropped = sorted(unpaired) if config.unpaired == "drop" else []
    tasks: list[TaskEntry] = []
    for present in sorted(set(sizes) - set(dropped), key=lambda present: (-len(present), present)):
        for samples in _split(scan.samples(present), config, specs):
            said = {sensor: declared[sensor] for sensor in present if declared and sensor in declared}
            task = _task(f"{config.collection}-{len(tasks):06d}", present, samples, config, scan, said)
            store.put(f"{TASKS_PREFIX}/{task.name}.json", _TASK.dump_json(task))
            size = sum(_weight(raster, specs[s]) for sample in samples for s, raster in sample.rasters.items())
            entry = TaskEntry(name=task.name, sensors=present, samples=len(samples), bytes=size, digest=task.digest)
            tasks.append(entry)
    _put_rejected(store, scan, {present: unpaired[present] for present in dropped})
    plan = BuildPlan(
        name=config.collection,
        source=config.source,
        config_digest=config.digest(),
        inputs=tuple(scan.inputs),
        versions=scan.versions,
        tasks=tuple(tasks),
        num_items=scan.num_items,
        synthetic=scan.synthetic,
        num_samples=scan.num_samples,
        num_rejected=scan.num_rejected,
        num_duplicates=scan.num_duplicates,
        num_unpaired=num_unpaired,
        num_dropped=sum(sizes[present] for present in dropped),
        unpaired=tuple(examples[:EXAMPLES]),
        ignored=tuple(IgnoredFiles(**asdict(item)) for item in scan.ignored),
        warnings=tuple(scan.warnings),
        declared=dict(declared or {}),
    )
    store.put(PLAN_PATH, dump_document(plan))
    return plan


def load_plan(store: Store) -> BuildPlan | None:
    """Return the plan that a build left in its output, or None; one that is damaged is as good as none."""
    if not store.exists(PLAN_PATH):
        return None
    try:
        return BuildPlan.model_validate_json(store.get(PLAN_PATH))
    except ValidationError:
        return None


def load_task(store: Store, name: str) -> ShardTask:
    """Return the task of a planned shard; raise ShardError when it is damaged."""
    try:
        return _TASK.validate_json(store.get(f"{TASKS_PREFIX}/{name}.json"))
    except ValidationError as error:
        raise ShardError(
            f"{store.url}/{TASKS_PREFIX}/{name}.json is damaged: {error.errors()[0]['msg']}. Remove {PLAN_PATH} there "
            "and run the build again."
        ) from None


def load_rejected(store: Store) -> Iterator[Rejected]:
    """Yield what the plan left out."""
    for line in store.get(REJECTED_PATH).splitlines():
        yield Rejected.model_validate_json(line)


_TASK = TypeAdapter(ShardTask)


def _split(
    samples: Iterator[PlannedSample], config: BuildConfig, specs: Mapping[str, SensorSpec]
) -> Iterator[list[PlannedSample]]:
    shard: list[PlannedSample] = []
    size = 0
    for sample in samples:
        weight = sum(_weight(raster, specs[sensor]) for sensor, raster in sample.rasters.items())
        if shard and (len(shard) == config.max_samples or size + weight > config.max_bytes):
            yield shard
            shard, size = [], 0
        shard.append(sample)
        size += weight
    if shard:
        yield shard


def _weight(raster: PlannedRaster, spec: SensorSpec) -> int:
    """Return the bytes a raster counts for: those of its files; those of its pixels for a tile of one."""
    if raster.window is None:
        return sum(ref.size for ref in raster.files)
    pixels = raster.window[2] * raster.window[3] * max(1, len(raster.dates))
    return pixels * len(spec.bands) * np.dtype(spec.dtype).itemsize


def _task(
    name: str,
    sensors: tuple[str, ...],
    samples: list[PlannedSample],
    config: BuildConfig,
    scan: Scan,
    declared: dict[str, Declared],
) -> ShardTask:
    archives = {ref.archive for sample in samples for raster in sample.rasters.values() for ref in raster.files}
    # Archives too: other pixels may well come in members of the same names and sizes.
    prints = [[item.path, item.fingerprint] for item in scan.inputs if item.path in archives]
    said = [{sensor: item.model_dump() for sensor, item in declared.items()}] if declared else []
    base = json.dumps([config.digest(), prints, name, sensors, *said]).encode()
    digest = hashlib.sha256(base + _SAMPLES.dump_json(tuple(samples))).hexdigest()
    return ShardTask(name, sensors, tuple(samples), digest, declared)


_SAMPLES = TypeAdapter(tuple[PlannedSample, ...])


def _put_rejected(store: Store, scan: Scan, dropped: Mapping[tuple[str, ...], tuple[str, ...]]) -> None:
    rows = [dump_document(row) for row in scan.rejected()]
    for present, missing in dropped.items():
        for sample in scan.samples(present):
            first = next(iter(sample.rasters.values())).files[0]
            reason = f"no {' and no '.join(missing)} of this place"
            row = Rejected(item=sample.key, source_file=first.source_file, reason=reason, policy="unpaired=drop")
            rows.append(dump_document(row))
    store.put(REJECTED_PATH, b"".join(rows))
