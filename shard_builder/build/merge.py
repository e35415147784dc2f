"""The end of a build: from shards to failures.jsonl, catalog.parquet and manifest.json, one shard at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from gfm_pipeline.shards import CATALOG_PATH, FAILURES_PATH, MANIFEST_PATH
from gfm_pipeline.shards.manifest import (
    Manifest,
    Rejected,
    ShardEntry,
    Sidecar,
    dump_document,
    dump_manifest,
    load_sidecar_with_digest,
)
from gfm_pipeline.shards.stats import BandStats, merge
from gfm_pipeline.storage import Store
from shard_builder.build.declared import adopt
from shard_builder.build.plan import BuildPlan, load_rejected
from shard_builder.build.scratch_tables import ScratchTables
from shard_builder.catalog import write_catalog
from shard_builder.config import BuildConfig, resolve_sensors
from shard_builder.sources.base import Source

ROWS_KEPT = 1000
"""Rejected items that a report holds in memory; failures.jsonl has all."""


class _Tally:
    """What the manifest says of all shards together, gathered while each is looked at once."""

    def __init__(self, path: Path) -> None:
        """Use the new local file `path` to tell which pixels were there before: there may be millions of samples."""
        self.entries: list[ShardEntry] = []
        self.statistics: dict[str, list[BandStats]] = {}
        self.samples_with: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.rules: Counter[str] = Counter()
        self.num_doubles = 0
        self._seen = ScratchTables(path, "CREATE TABLE seen (pixels BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, sidecar: Sidecar, sha256: str) -> None:
        """Count one shard, with the sha256 of its sidecar; shards come in the order of the plan."""
        self.entries.append(
            ShardEntry(
                name=sidecar.name,
                sensors=sidecar.sensors,
                samples=len(sidecar.samples),
                bytes=sidecar.tar_bytes,
                sha256=sidecar.tar_sha256,
                sidecar_sha256=sha256,
            )
        )
        for sensor in sidecar.sensors:
            self.samples_with[sensor] += len(sidecar.samples)
            known, part = self.statistics.get(sensor, []), sidecar.statistics.get(sensor, [])
            self.statistics[sensor] = merge([some for some in (known, part) if some])
        self.rejected.update(item.policy.partition("=")[0] for item in sidecar.rejected)
        self.rules.update(sidecar.rules)
        for sample in sidecar.samples:
            pixels = repr([(sensor, m.size, m.crc32) for sensor, m in sorted(sample.sensors.items())]).encode()
            digest = hashlib.blake2b(pixels, digest_size=16).digest()
            self.num_doubles += not self._seen.run("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount

    def close(self) -> None:
        """Close the file."""
        self._seen.close()


def merge_shards(
    config: BuildConfig, source: Source, plan: BuildPlan, output: Store, scratch: Path
) -> tuple[Manifest, list[Rejected]]:
    """Write what makes the plan's shards a collection, the manifest last of all.

    Returns the manifest and the first ROWS_KEPT rejected items. Every shard of the plan must be committed.
    """
    tally = _Tally(scratch / "seen.sqlite")
    rows: list[Rejected] = []
    failures = scratch / "failures.jsonl"
    with failures.open("wb") as file:

        def leave_out(items: Iterator[Rejected]) -> None:
            for item in items:
                file.write(dump_document(item))
                if len(rows) < ROWS_KEPT:
                    rows.append(item)

        def sidecars() -> Iterator[Sidecar]:
            for task in plan.tasks:
                sidecar, sha256 = load_sidecar_with_digest(output, task.name)
                tally.add(sidecar, sha256)
                leave_out(iter(sidecar.rejected))
                yield sidecar

        leave_out(load_rejected(output))
        without_location = write_catalog(scratch / "catalog.parquet", output, sidecars())
    tally.close()
    beside = {FAILURES_PATH: failures, CATALOG_PATH: scratch / "catalog.parquet"}
    sums = {name: _sha256(path) for name, path in beside.items()}
    manifest = _manifest(config, source, plan, tally, without_location, sums)
    output.put_file(FAILURES_PATH, failures)
    output.put_file(CATALOG_PATH, scratch / "catalog.parquet")
    output.put(MANIFEST_PATH, dump_manifest(manifest))
    return manifest, rows


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            total.update(piece)
    return total.hexdigest()


def _manifest(
    config: BuildConfig,
    source: Source,
    plan: BuildPlan,
    tally: _Tally,
    without_location: int,
    file_sha256: dict[str, str],
) -> Manifest:
    specs = adopt(resolve_sensors(config, source.sensors), plan.declared)
    present = [sensor for sensor in specs if sensor in tally.samples_with]
    packed = sum(entry.samples for entry in tally.entries)
    counts = {
        "items_found": plan.num_items,
        "items_rejected": plan.num_rejected,
        "samples_planned": plan.num_samples,
        "samples_packed": packed,
        "samples_rejected": tally.rejected["on_error"],
        "samples_unpaired": plan.num_unpaired,
        "samples_dropped": plan.num_dropped,
        "samples_duplicate": plan.num_duplicates + tally.num_doubles,
        "samples_without_data": tally.rejected["max_nodata"],
        "samples_without_location": without_location,
    }
    return Manifest(
        name=config.collection,
        source=config.source,
        sensors={sensor: specs[sensor] for sensor in present},
        num_samples=packed,
        samples_with={sensor: tally.samples_with[sensor] for sensor in present},
        shards=tuple(tally.entries),
        statistics={sensor: tally.statistics[sensor] for sensor in present},
        inputs=plan.inputs,
        synthetic=plan.synthetic,
        build_digest=config.digest(),
        counts=counts | {f"rule: {rule}": count for rule, count in sorted(tally.rules.items())},
        file_sha256=file_sha256,
    )
