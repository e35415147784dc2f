"""A build from configuration to manifest.

scan -> plan -> shards (any executor, resumable) -> failures.jsonl, catalog.parquet -> manifest.json, written last.
What a build needs while it is under way lies in OUTPUT/.build and is gone when it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gfm_pipeline.errors import ConfigError, ShardError, StorageError
from gfm_pipeline.shards import CATALOG_PATH, FAILURES_PATH, MANIFEST_PATH, SHARDS_PREFIX
from gfm_pipeline.shards.manifest import (
    Manifest,
    Rejected,
    ShardEntry,
    Sidecar,
    dump_document,
    load_manifest,
    load_sidecar,
    sidecar_path,
    tar_path,
)
from gfm_pipeline.shards.stats import merge
from gfm_pipeline.storage import LocalStore
from gfm_pipeline.storage.local import TEMPORARY_PREFIX
from shard_builder.catalog import make_catalog
from shard_builder.config import BuildConfig, resolve_sensors
from shard_builder.executors.executor import EXECUTORS
from shard_builder.plan import BuildPlan, ShardTask, plan_build
from shard_builder.source import SOURCES, Scan, check_settings, input_bytes, scan_input
from shard_builder.write import TaskResult

WORK = ".build"
_SHARD_FILE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}-\d{6,}\.(tar|json)")


@dataclass
class BuildReport:
    """What a build did, for people and for exit codes."""

    manifest: Manifest
    scan: Scan | None = None
    """None when the collection was already complete."""
    plan: BuildPlan | None = None
    rejected: list[Rejected] = field(default_factory=list)
    resumed_shards: int = 0
    seconds: float = 0.0

    @property
    def failed(self) -> list[Rejected]:
        """Items that could not be packed; places left out as `unpaired: drop` says are no failures."""
        return [item for item in self.rejected if not item.policy.startswith("unpaired")]


Progress = Callable[[str, int, int], None]
"""Told (event, done, total): "scan", "shard" after every committed shard."""


def build_collection(config: BuildConfig, fresh: bool, progress: Progress) -> BuildReport:
    """Build, or finish building, the configured collection.

    Raises ConfigError when the output holds another collection and `fresh` is not set; other GfmErrors for bad input.
    """
    started = time.perf_counter()
    source = SOURCES.get(config.source)
    sensors = source.sensors
    check_settings(config, source)
    resolve_sensors(config, sensors)
    EXECUTORS.get(config.executor)
    out = Path(config.output)
    store = LocalStore(out)
    with _own(out):
        if not fresh and store.exists(MANIFEST_PATH):
            return BuildReport(_check_finished(store, config))
        progress("scan", 0, 0)
        scan = scan_input(config, out / WORK)
        plan = plan_build(config, scan, sensors)
        if fresh:  # not earlier: an input that is mistyped or damaged must not cost the old collection
            _clear(out)
        _sweep(out, config.collection)
        done = [task for task in plan.tasks if _is_committed(store, task)]
        _check_foreign(store, plan)
        committed = {task.name for task in done}
        _write_shards(config, plan, len(done), [task for task in plan.tasks if task.name not in committed], progress)
        sidecars = [load_sidecar(store, task.name) for task in plan.tasks]
        rejected = [*scan.rejected, *plan.dropped, *(item for sidecar in sidecars for item in sidecar.rejected)]
        manifest = _manifest(config, scan, plan, sidecars)
        store.put(FAILURES_PATH, b"".join(dump_document(item) for item in rejected))
        store.put(CATALOG_PATH, make_catalog(store, sidecars))
        _sweep(out, config.collection)
        store.put(MANIFEST_PATH, dump_document(manifest))
    return BuildReport(manifest, scan, plan, rejected, len(done), time.perf_counter() - started)


def _write_shards(
    config: BuildConfig, plan: BuildPlan, done: int, tasks: list[ShardTask], progress: Progress
) -> list[TaskResult]:
    path = Path(config.input)
    root = path if path.is_dir() else path.parent
    results: list[TaskResult] = []
    progress("shard", done, len(plan.tasks))
    executor = EXECUTORS.get(config.executor)()
    for result in executor.run(tasks, config, root, Path(config.output) / WORK):
        results.append(result)
        progress("shard", done + len(results), len(plan.tasks))
    return results


def _manifest(config: BuildConfig, scan: Scan, plan: BuildPlan, sidecars: list[Sidecar]) -> Manifest:
    present = [sensor for sensor in SOURCES.get(config.source).sensors if any(sensor in s.sensors for s in sidecars)]
    specs = resolve_sensors(config, SOURCES.get(config.source).sensors)
    packed = sum(len(sidecar.samples) for sidecar in sidecars)
    unpaired = {sample.key for sample, _ in plan.unpaired}
    counts = {
        "items_found": scan.items,
        "items_rejected": len(scan.rejected),
        "samples_planned": len(scan.samples),
        "samples_packed": packed,
        "samples_rejected": sum(len(sidecar.rejected) for sidecar in sidecars),
        "samples_unpaired": len(unpaired),
        "samples_dropped": len(plan.dropped),
    }
    for sidecar in sidecars:
        for rule, count in sidecar.rules.items():
            counts[f"rule: {rule}"] = counts.get(f"rule: {rule}", 0) + count
    return Manifest(
        name=config.collection,
        source=config.source,
        sensors={sensor: specs[sensor] for sensor in present},
        num_samples=packed,
        samples_with={s: sum(len(sidecar.samples) for sidecar in sidecars if s in sidecar.sensors) for s in present},
        shards=tuple(_shard_entry(sidecar) for sidecar in sidecars),
        statistics={
            sensor: merge(part for sidecar in sidecars if (part := sidecar.statistics.get(sensor)))
            for sensor in present
        },
        inputs=tuple(scan.inputs),
        build_digest=config.digest(),
        counts=counts,
    )


def _shard_entry(sidecar: Sidecar) -> ShardEntry:
    return ShardEntry(
        name=sidecar.name,
        sensors=sidecar.sensors,
        samples=len(sidecar.samples),
        bytes=sidecar.tar_bytes,
        sha256=sidecar.tar_sha256,
        sidecar_sha256=hashlib.sha256(dump_document(sidecar)).hexdigest(),
    )


def _is_committed(store: LocalStore, task: ShardTask) -> bool:
    """Return whether the shard is there as this plan wants it."""
    if not store.exists(sidecar_path(task.name)):
        return False
    try:
        sidecar = load_sidecar(store, task.name)
    except ShardError:
        return False
    tar = store.root / tar_path(task.name)
    return sidecar.task_digest == task.digest and tar.is_file() and tar.stat().st_size == sidecar.tar_bytes


def _check_finished(store: LocalStore, config: BuildConfig) -> Manifest:
    manifest = load_manifest(store)
    if manifest.build_digest != config.digest() or manifest.source != config.source:
        raise ConfigError(
            f"{store.url} holds the collection {manifest.name}, built from {manifest.source} with another "
            "configuration. Set output to another folder, or give --fresh to replace it."
        )
    path = Path(config.input)
    root = path if path.is_dir() else path.parent
    for item in manifest.inputs:
        if (root / item.path).exists() and (found := input_bytes(root, item.path)) != item.bytes:
            raise ConfigError(
                f"{root / item.path} has {found} bytes, {store.url} was built from {item.bytes}. "
                "Set output to another folder, or give --fresh to build again."
            )
    return manifest


def _check_foreign(store: LocalStore, plan: BuildPlan) -> None:
    """Raise ConfigError when the folder holds committed shards that this plan would not write.

    A shard of this plan whose tar is lost or whose sidecar is damaged is not foreign: it is written again.
    """
    planned = {task.name: task.digest for task in plan.tasks}
    names = [path.stem for path in _shard_files(store.root) if path.suffix == ".json"]
    foreign = [
        sidecar_path(name)
        for name in names
        if name not in planned or _task_digest(store, name, planned[name]) != planned[name]
    ]
    if foreign:
        raise ConfigError(
            f"{store.url} holds {len(foreign)} shards of another plan (first: {foreign[0]}): the configuration or the "
            "input has changed since. Set output to another folder, or give --fresh to start over."
        )


def _task_digest(store: LocalStore, shard: str, otherwise: str) -> str:
    """Return the digest of the task that a committed shard was written for; `otherwise` for a damaged sidecar."""
    try:
        return load_sidecar(store, shard).task_digest
    except ShardError:
        return otherwise


def _clear(out: Path) -> None:
    """Remove what builds write, and nothing else: the folder "shards" may hold other tars or collections, say."""
    for name in (MANIFEST_PATH, CATALOG_PATH, FAILURES_PATH):
        (out / name).unlink(missing_ok=True)
    committed = [path for path in _shard_files(out) if path.suffix == ".json"]
    for sidecar in committed:
        sidecar.with_suffix(".tar").unlink(missing_ok=True)
        sidecar.unlink()


def _sweep(out: Path, collection: str) -> None:
    """Remove unfinished writes of processes that are gone: temporary files, and own tars without their sidecar.

    Tars of another name are somebody's data, whatever folder they lie in.
    """
    _sweep_temporary(out)
    for path in _shard_files(out):
        own = path.stem.rpartition("-")[0] == collection
        if own and path.suffix == ".tar" and not path.with_suffix(".json").exists():
            path.unlink()


def _sweep_temporary(out: Path) -> None:
    for folder in (out, out / SHARDS_PREFIX):
        for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
            leftover.unlink(missing_ok=True)


def _shard_files(out: Path) -> list[Path]:
    """Return the tars and sidecars of shards, sorted."""
    found = sorted((out / SHARDS_PREFIX).glob("*"))
    return [path for path in found if _SHARD_FILE.fullmatch(path.name) and path.is_file()]


@contextmanager
def _own(out: Path) -> Iterator[None]:
    """Hold the output's lock; leave neither the work folder nor an empty output behind."""
    work = out / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / "lock").open("w")
    except OSError as error:
        raise StorageError(
            f"cannot write to {out}: {error.strerror}. Set output to a folder you may write to."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(lock.fileno()).st_nlink > 0  # 0: a build that ended just now has removed it
        except BlockingIOError:
            held = False
        except OSError as error:
            raise StorageError(f"cannot lock {work / 'lock'}: {error.strerror}. Set output to a local disk.") from error
        if not held:
            raise StorageError(f"another build is writing to {out}; wait for it, or set output to another folder.")
        try:
            yield
        finally:
            _sweep_temporary(out)  # an interrupt may come between making a temporary file and minding it
            shutil.rmtree(work, ignore_errors=True)
            if not any(out.iterdir()):
                out.rmdir()
