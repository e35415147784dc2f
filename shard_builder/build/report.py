"""The account of a build, such that the numbers add up and nothing is missing without a name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from gfm_pipeline.shards.manifest import Manifest
from shard_builder.build.build import BuildReport
from shard_builder.build.plan import BuildPlan
from shard_builder.config import BuildConfig
from shard_builder.rasters.sentinel2 import doubt_order

LISTED = 20
"""Names printed of a long list; failures.jsonl has all."""


def describe(report: BuildReport, config: BuildConfig) -> Iterator[str]:
    """Yield the lines of the account."""
    manifest, plan = report.manifest, report.plan
    if manifest is None:
        yield f"{config.output}: {report.written_shards} shards written, {report.resumed_shards} were there already"
        yield "  when all shares are done: shard-builder merge with the same configuration"
        return
    if plan is None:
        held = f"{manifest.num_samples} samples in {len(manifest.shards)} shards"
        yield f"{config.output} is complete: {held}. Nothing to do."
        return
    counts = manifest.counts
    yield (
        f"{manifest.name}: {counts['items_found']} items in {len(manifest.inputs)} archives or folders"
        f" -> {counts['samples_planned']} samples planned, {counts['samples_packed']} packed in "
        f"{len(manifest.shards)} shards ({sum(shard.bytes for shard in manifest.shards) / 1e6:.1f} MB, "
        f"{report.seconds:.1f} s)"
    )
    if report.resumed_shards:
        yield f"  {report.resumed_shards} shards were there from an earlier start"
    yield from describe_unpaired(plan, config)
    num_failed = counts["items_rejected"] + counts["samples_rejected"]
    if num_failed:
        yield f"  {num_failed} rejected (on_error=skip), listed in failures.jsonl:"
        yield from _some([f"{item.item}: {item.reason}" for item in report.failed], num_failed)
    if counts["samples_without_data"]:
        yield (
            f"  {counts['samples_without_data']} left out, more than {config.max_nodata:g} of a sensor not measured "
            "(max_nodata), listed in failures.jsonl:"
        )
        empty = [f"{item.item}: {item.reason}" for item in report.rejected if item.policy.startswith("max_nodata")]
        yield from _some(empty, counts["samples_without_data"])
    if counts["samples_duplicate"]:
        what = {"keep": "packed all the same", "drop": "left out, listed in failures.jsonl"}[config.duplicates]
        yield f"  {counts['samples_duplicate']} hold the same pixels as an earlier place ({what})"
    if lost := counts.get("samples_without_location"):
        yield f"  {lost} of {counts['samples_packed']} samples have no location"
    for name, count in counts.items():
        if name.startswith("rule: "):
            yield f"  {count} samples: {name.removeprefix('rule: ')}"
    yield from describe_warnings(plan)
    for sensor, bands in manifest.statistics.items():
        if doubt := doubt_order(sensor, {band.band: band.mean for band in bands}):
            yield f"  warning: {doubt}"
    yield from describe_ignored(plan)
    yield from describe_statistics(manifest)


def describe_unpaired(plan: BuildPlan, config: BuildConfig) -> Iterator[str]:
    """Yield what lacks a sensor, and what becomes of it."""
    if plan.num_unpaired:
        what = {"keep": "packed without it, in shards of their own", "drop": "left out, listed in failures.jsonl"}
        yield f"  {plan.num_unpaired} lack a sensor (unpaired={config.unpaired}: {what[config.unpaired]}):"
        yield from _some(plan.unpaired, plan.num_unpaired)


def describe_warnings(plan: BuildPlan) -> Iterator[str]:
    """Yield what the configuration asks for and the input does not have."""
    yield from (f"  warning: {text}" for text in plan.warnings)


def describe_ignored(plan: BuildPlan) -> Iterator[str]:
    """Yield what the input holds beside, one line per reason."""
    by_reason: dict[str, list[str]] = {}
    for item in plan.ignored:
        path = "the input folder itself" if item.path == "." else item.path
        named = f"{path} ({item.files} files inside)" if item.files > 1 or item.path == "." else path
        by_reason.setdefault(item.reason, []).append(named)
    for reason, names in by_reason.items():
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        yield f"  not read, {reason}: {', '.join(names[:LISTED])}{more}"


def describe_statistics(manifest: Manifest) -> Iterator[str]:
    """Yield a table of what was measured of every band."""
    rows = [(sensor, band) for sensor, bands in manifest.statistics.items() for band in bands]
    names = max([8, *(len(sensor) for sensor, _ in rows)]), max([8, *(len(band.band) for _, band in rows)])
    yield f"  {'sensor':<{names[0]}} {'band':<{names[1]}}    samples       mean        std        min        max"
    for sensor, band in rows:
        numbers = "".join(f"{value:>11.4g}" for value in (band.mean, band.std, band.min, band.max))
        yield f"  {sensor:<{names[0]}} {band.band:<{names[1]}} {manifest.samples_with[sensor]:>10}{numbers}"


def as_json(report: BuildReport) -> str:
    """Return the account for machines, one JSON object on one line."""
    manifest = report.manifest
    tree = {
        "complete": manifest is not None,
        "written_shards": report.written_shards,
        "resumed_shards": report.resumed_shards,
        "seconds": round(report.seconds, 3),
        "shards": len(manifest.shards) if manifest else None,
        "samples": manifest.num_samples if manifest else None,
        "bytes": sum(shard.bytes for shard in manifest.shards) if manifest else None,
        "digest": manifest.digest if manifest else None,
        "counts": manifest.counts if manifest else None,
    }
    return json.dumps(tree)


def _some(lines: Iterable[str], total: int) -> Iterator[str]:
    shown = list(lines)[:LISTED]
    for line in shown:
        yield f"    {line}"
    if total > len(shown):
        yield f"    ... and {total - len(shown)} more"
