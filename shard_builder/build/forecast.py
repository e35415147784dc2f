"""What a build would do, from its plan and a trial with some of its samples."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from gfm_pipeline.config import StrictModel
from gfm_pipeline.shards.manifest import Rejected
from gfm_pipeline.storage import LocalStore, Store, open_store
from shard_builder.build.build import Event, Progress, plan_collection
from shard_builder.build.plan import BuildPlan, load_rejected
from shard_builder.build.report import LISTED, describe_ignored, describe_unpaired, describe_warnings
from shard_builder.build.trial import try_samples
from shard_builder.config import BuildConfig
from shard_builder.rasters.sentinel2 import doubt_order


class Forecast(StrictModel):
    """What is to be expected of a build."""

    plan: BuildPlan
    tried: int
    """Samples that were read, checked and encoded as a build does it."""
    packed: int
    """Of these, the ones that a build would pack."""
    without_location: int
    """Of the packed ones."""
    bytes_estimated: int
    """Of the collection's tars."""
    seconds_estimated: float
    """With the configured number of workers, were each to have a core; without the time of planning."""
    problems: tuple[str, ...]
    """Items that would be rejected, and what went wrong with the samples that were tried."""
    left_out: tuple[str, ...]
    """Samples that were tried and that `max_nodata` would leave out."""
    rules: dict[str, int]
    """Samples that were tried and packed, by stated rule that changes them."""
    doubts: tuple[str, ...]
    """What their pixels have against the configuration."""

    @property
    def packs_nothing(self) -> bool:
        """Whether there is nothing to pack, or none of the samples that were tried can be packed."""
        return not self.packed


def forecast(config: BuildConfig, save: bool, progress: Progress) -> Forecast:
    """Plan a build and try some of its samples; leaves the plan in the output with `save`, else nothing anywhere."""
    with ExitStack() as stack:
        output: Store = open_store(config.output, config.storage)
        if not save:
            output = LocalStore(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shard-builder-"))))
        plan = plan_collection(config, None if save else output, progress)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shard-builder-")))
        rejected = [row for row in load_rejected(output) if row.policy.startswith("on_error")]
        trial = try_samples(config, plan, output, scratch)
        progress(Event("plan", 0, len(plan.tasks)))
    failed = [row for row in trial.rejected if row.policy.startswith("on_error")]
    empty = [row for row in trial.rejected if row not in failed]
    means = {sensor: {band.band: band.mean for band in bands} for sensor, bands in trial.statistics.items()}
    doubts = (doubt_order(sensor, by_band) for sensor, by_band in means.items())
    total = sum(task.samples for task in plan.tasks)
    return Forecast(
        plan=plan,
        tried=trial.tried,
        packed=trial.packed,
        without_location=trial.without_location,
        bytes_estimated=round(trial.bytes / trial.tried * total) if trial.tried else 0,
        seconds_estimated=round(trial.seconds / trial.tried * total / config.workers, 1) if trial.tried else 0.0,
        problems=tuple(_named(row) for row in (*rejected, *failed)),
        left_out=tuple(_named(row) for row in empty),
        rules=dict(sorted(trial.rules.items())),
        doubts=tuple(filter(None, doubts)),
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
        f"workers, judged by {found.tried} samples, of which {found.packed} can be packed"
    )
    if found.without_location:
        yield f"  {found.without_location} of the {found.packed} have no location"
    yield from describe_unpaired(plan, config)
    for problem in found.problems[:LISTED]:
        yield f"  problem: {problem}"
    if len(found.problems) > LISTED:
        yield f"  ... and {len(found.problems) - LISTED} more problems"
    if found.left_out:
        yield f"  {len(found.left_out)} of the {found.tried} would be left out (max_nodata), e.g. {found.left_out[0]}"
    for rule, count in found.rules.items():
        yield f"  {count} of the {found.tried}: {rule}"
    yield from describe_warnings(plan)
    yield from (f"  warning: {doubt}" for doubt in found.doubts)
    yield from describe_ignored(plan)


def _named(row: Rejected) -> str:
    return f"{row.item}: {row.reason}"
