"""What a source plans, without building it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from gfm_pipeline.storage import LocalStore
from shard_builder.build.build import plan_collection
from shard_builder.build.plan import BuildPlan, load_task
from shard_builder.config import BuildConfig
from shard_builder.planned import PlannedSample


def plan_input(source: str, raw: Path, **more: Any) -> BuildPlan:
    """Return the plan of a build."""
    with tempfile.TemporaryDirectory() as work:
        config = BuildConfig(source=source, input=str(raw), output=f"{work}/out", **more)
        return plan_collection(config, LocalStore(Path(work)), lambda _: None)


def plan_samples(config: BuildConfig) -> list[PlannedSample]:
    """Return the samples of all shards of a build."""
    with tempfile.TemporaryDirectory() as work:
        store = LocalStore(Path(work))
        plan = plan_collection(config, store, lambda _: None)
        return [sample for task in plan.tasks for sample in load_task(store, task.name).samples]
