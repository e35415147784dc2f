"""A build from configuration to manifest.

scan -> plan -> shards (any executor, any share of them, resumable) -> merge: failures.jsonl, catalog.parquet, and
manifest.json, written last. The plan stays in OUTPUT/.build while shards are missing and is gone when the build ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from gfm_pipeline.errors import ConfigError, ShardError
from gfm_pipeline.shards import MANIFEST_PATH
from gfm_pipeline.shards.manifest import Manifest, Rejected, load_manifest
from gfm_pipeline.storage import Store, open_store
from shard_builder.build.declared import adopt, find_declared
from shard_builder.build.merge import merge_shards
from shard_builder.build.plan import BuildPlan, load_plan, make_plan
from shard_builder.build.replaced import check_not_replaced, forget_replaced, is_unchanged
from shard_builder.build.resume import Mode, is_committed, survey
from shard_builder.build.scan import Scan
from shard_builder.build.workspace import (
    check_writable,
    clear_work,
    hold,
    open_input,
    open_reader,
    scratch_folder,
    sweep,
    sweep_temporary,
)
from shard_builder.build.write import TaskResult
from shard_builder.config import BuildConfig, resolve_sensors
from shard_builder.executors.executor import EXECUTORS
from shard_builder.sources.base import InputView, Source, make_source, scan_input


@dataclass(frozen=True)
class Event:
    """Something that happened in a build."""

    name: Literal["scan", "plan", "shard", "merge"]
    done: int = 0
    """Shards committed so far."""
    total: int = 0
    """Shards of the plan, or of this share of it."""
    written: int = 0
    """Shards written since the start."""
    samples: int = 0
    """Samples, bytes and rejected items of the shards written since the start."""
    bytes: int = 0
    rejected: int = 0


Progress = Callable[[Event], None]


@dataclass
class BuildReport:
    """What a build did, for people and for exit codes."""

    manifest: Manifest | None
    """None when only a share of the shards was asked for."""
    plan: BuildPlan | None = None
    """None when the collection was already complete."""
    rejected: list[Rejected] = field(default_factory=list)
    """The first ROWS_KEPT of the items in failures.jsonl."""
    resumed_shards: int = 0
    written_shards: int = 0
    seconds: float = 0.0

    @property
    def failed(self) -> list[Rejected]:
        """Items that could not be packed; places left out as a policy says are no failures."""
        return [item for item in self.rejected if item.policy.startswith("on_error")]


def build_collection(config: BuildConfig, mode: Mode, progress: Progress) -> BuildReport:
    """Build, or finish building, the configured collection.

    Raises ConfigError when the output holds another collection and `mode` is build; other GfmErrors for bad input.
    """
    started = time.perf_counter()
    source, output = _prepare(config)
    with hold(output):
        if mode == "build" and output.exists(MANIFEST_PATH):
            return BuildReport(_check_finished(output, config))
        sweep_temporary(output)
        try:
            plan = _plan(config, source, output, progress, again=mode != "build")
            done = survey(output, plan, mode)
            sweep(output, config.collection)
            missing = [task.name for task in plan.tasks if task.name not in done]
            written = _write_shards(config, plan, missing, Event("shard", len(done), len(plan.tasks)), progress)
            progress(Event("merge", len(plan.tasks), len(plan.tasks)))
            with scratch_folder(output) as scratch:
                manifest, rejected = merge_shards(config, source, plan, output, scratch)
            clear_work(output)
        finally:
            sweep_temporary(output)
    return BuildReport(manifest, plan, rejected, len(done), written, time.perf_counter() - started)


def plan_collection(config: BuildConfig, output: Store | None, progress: Progress) -> BuildPlan:
    """Return the plan of a build, written to the configured output; to `output` instead for a dry run.

    Raises ConfigError when the output holds shards of another plan.
    """
    source, configured = _prepare(config)
    if output is not None:
        return _plan(config, source, output, progress, again=True)
    with hold(configured):
        plan = _plan(config, source, configured, progress, again=False)
        survey(configured, plan, "build")
        return plan


def build_share(config: BuildConfig, index: int, count: int, progress: Progress) -> BuildReport:
    """Write every `count`-th shard of the plan, from number `index` on; no other process need know.

    All shares of one build may run at once, anywhere; `merge_collection` finishes when all are done. The plan is
    taken from the output, or made there: the same one by every share.
    """
    started = time.perf_counter()
    source, output = _prepare(config)
    with hold(output, shared=True):
        if output.exists(MANIFEST_PATH):
            return BuildReport(_check_finished(output, config))
        plan = _plan(config, source, output, progress, again=False)
        mine = plan.tasks[index::count]
        done = {task.name for task in mine if is_committed(output, task)}
        missing = [task.name for task in mine if task.name not in done]
        written = _write_shards(config, plan, missing, Event("shard", len(done), len(mine)), progress)
    return BuildReport(None, plan, [], len(done), written, time.perf_counter() - started)


def merge_collection(config: BuildConfig, progress: Progress) -> BuildReport:
    """Finish a build whose shares are done; raise ShardError that names the shards that are missing."""
    started = time.perf_counter()
    source, output = _prepare(config)
    with hold(output):
        if output.exists(MANIFEST_PATH):
            return BuildReport(_check_finished(output, config))
        plan = load_plan(output)
        if plan is None or plan.config_digest != config.digest():
            found = "holds no plan" if plan is None else "holds the plan of another configuration"
            raise ConfigError(
                f"{output.url} {found}. Run shard-builder build with --task for this configuration first."
            )
        done = survey(output, plan, "build")
        missing = [task.name for task in plan.tasks if task.name not in done]
        if missing:
            raise ShardError(
                f"{len(missing)} of {len(plan.tasks)} shards are not written yet (first: {missing[0]}). Run the shares "
                "that have them again: shard-builder build --task I/N, or build without --task to write them here."
            )
        sweep(output, config.collection)
        progress(Event("merge", len(plan.tasks), len(plan.tasks)))
        with scratch_folder(output) as scratch:
            manifest, rejected = merge_shards(config, source, plan, output, scratch)
        clear_work(output)
    return BuildReport(manifest, plan, rejected, len(done), 0, time.perf_counter() - started)


def _prepare(config: BuildConfig) -> tuple[Source, Store]:
    """Check what can be checked without looking at any data."""
    source = make_source(config)
    resolve_sensors(config, source.sensors)
    EXECUTORS.get(config.executor)
    output = open_store(config.output, config.storage)
    check_writable(output)
    return source, output


def _plan(config: BuildConfig, source: Source, output: Store, progress: Progress, again: bool) -> BuildPlan:
    """Return the plan that is there, if it is of this configuration and these archives; else make one."""
    store, only = open_input(config)
    plan = load_plan(output)
    if plan is not None and not again and plan.config_digest == config.digest() and is_unchanged(store, plan):
        return plan
    if plan is not None:
        forget_replaced(store, output, plan)
    progress(Event("scan"))
    with scratch_folder(output) as scratch:
        specs = resolve_sensors(config, source.sensors)
        scan = Scan(scratch / "scan.sqlite", tuple(specs))
        reader = open_reader(config, output, scratch)
        try:
            scan_input(source, InputView(store, only, reader, config, scan))
            declared = find_declared(source, scan, specs, reader)
            plan = make_plan(config, scan, adopt(specs, declared), source.required, output, declared)
        finally:
            reader.close()
            scan.close()
    progress(Event("plan", 0, len(plan.tasks)))
    return plan


def _write_shards(config: BuildConfig, plan: BuildPlan, names: list[str], count: Event, progress: Progress) -> int:
    """Write the named shards and return their number; raise ArchiveError when an archive was replaced meanwhile."""
    progress(count)
    for result in EXECUTORS.get(config.executor)().run(names, config):
        count = _after(count, result)
        progress(count)
    check_not_replaced(open_input(config)[0], plan)
    return count.written


def _after(event: Event, result: TaskResult) -> Event:
    return Event(
        "shard",
        event.done + 1,
        event.total,
        event.written + 1,
        event.samples + result.samples,
        event.bytes + result.bytes,
        event.rejected + result.rejected,
    )


def _check_finished(output: Store, config: BuildConfig) -> Manifest:
    manifest = load_manifest(output)
    if manifest.build_digest != config.digest() or manifest.source != config.source:
        raise ConfigError(
            f"{output.url} holds the collection {manifest.name}, built from {manifest.source} with another "
            "configuration. Set output to another folder, or give --fresh to replace it."
        )
    store, _ = open_input(config)
    with scratch_folder(output) as scratch:
        reader = open_reader(config, output, scratch)
        for item in manifest.inputs:
            if _is_there(store, item.path) and not reader.is_as_recorded(item):
                raise ConfigError(
                    f"{store.url}/{item.path} has changed since {output.url} was built from it. Set output to another "
                    "folder, give --fresh to build again, or run shard-builder retry to write only what that changes."
                )
    return manifest


def _is_there(store: Store, path: str) -> bool:
    """Return whether an input is still to be had: a collection is complete without its archives."""
    local = store.local_path(path)
    return local.exists() if local is not None else path != "." and store.exists(path)
