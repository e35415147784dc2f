"""What a build would do, from its plan and a trial with a few of its samples."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from gfm_pipeline.config import StrictModel
from gfm_pipeline.errors import ItemError
from gfm_pipeline.storage import LocalStore, Store, open_store
from shard_builder.build.build import Event, Progress, plan_collection
from shard_builder.build.pack import Packer
from shard_builder.build.plan import BuildPlan, load_rejected, load_task
from shard_builder.build.report import describe_ignored, describe_unpaired
from shard_builder.build.workspace import open_reader
from shard_builder.config import BuildConfig, resolve_sensors
from shard_builder.sources.base import make_source

TRIED = 16
"""Samples that are read and encoded for the estimate, from shards all over the plan."""


class Forecast(StrictModel):
    """What is to be expected of a build."""

    plan: BuildPlan
    tried: int
    """Samples that were read and encoded for the estimates."""
    bytes_estimated: int
    """Of the collection's tars."""
    seconds_estimated: float
    """With the configured number of workers, were each to have a core; without the time of planning."""
    problems: tuple[str, ...]
    """Items that would be rejected, and what went wrong with the samples that were tried."""


def forecast(config: BuildConfig, save: bool, progress: Progress) -> Forecast:
    """Plan a build and try a few of its samples; leaves the plan in the output with `save`, else nothing anywhere."""
    with ExitStack() as stack:
        output: Store = open_store(config.output, config.storage)
        if not save:
            output = LocalStore(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shard-builder-"))))
        plan = plan_collection(config, None if save else output, progress)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shard-builder-")))
        problems = [f"{row.item}: {row.reason}" for row in load_rejected(output)]
        tried, size, seconds = _try(config, plan, output, scratch, problems)
        progress(Event("plan", 0, len(plan.tasks)))
    total = sum(task.samples for task in plan.tasks)
    return Forecast(
        plan=plan,
        tried=tried,
        bytes_estimated=round(size / tried * total) if tried else 0,
        seconds_estimated=round(seconds / tried * total / config.workers, 1) if tried else 0.0,
        problems=tuple(problems),
    )


def describe_forecast(found: Forecast, config: BuildConfig) -> Iterator[str]:
    """Yield the lines for a person."""
    plan = found.plan
    yield (
        f"{plan.name}: {plan.num_items} items in {len(plan.inputs)} archives or folders -> {plan.num_samples} samples "
        f"in {len(plan.tasks)} shards"
    )
    sets = Counter[tuple[str, ...]]()
    for task in plan.tasks:
        sets[task.sensors] += task.samples
    for sensors, count in sets.items():
        yield f"  {count} with {', '.join(sensors)}"
    yield (
        f"  about {found.bytes_estimated / 1e6:.1f} MB and {found.seconds_estimated:.0f} s with {config.workers} "
        f"workers, judged by {found.tried} samples"
    )
    yield from describe_unpaired(plan, config)
    for problem in found.problems[:TRIED]:
        yield f"  problem: {problem}"
    if len(found.problems) > TRIED:
        yield f"  ... and {len(found.problems) - TRIED} more problems"
    yield from describe_ignored(plan)


def _try(
    config: BuildConfig, plan: BuildPlan, output: Store, scratch: Path, problems: list[str]
) -> tuple[int, int, float]:
    """Read and encode the first samples of shards spread over the plan; return their number, bytes and seconds."""
    source = make_source(config)
    specs = resolve_sensors(config, source.sensors)
    reader = open_reader(config, output, scratch)
    packer = Packer(config, source, reader)
    shards = plan.tasks[:: max(1, len(plan.tasks) // TRIED)]
    each = max(1, TRIED // max(1, len(shards)))
    tried, size, seconds = 0, 0, 0.0
    try:
        for entry in shards:
            for sample in load_task(output, entry.name).samples[:each]:
                started = time.perf_counter()
                for sensor, planned in sample.rasters.items():
                    try:
                        decode = packer.decodes(sample.key)
                        size += len(packer.pack(planned, specs[sensor], decode).data)
                    except ItemError as error:
                        problems.append(str(error))
                seconds += time.perf_counter() - started
                tried += 1
    finally:
        reader.close()
    return tried, size, seconds
