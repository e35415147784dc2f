"""The account of a build, such that the numbers add up and nothing is missing without a name."""

from __future__ import annotations

from collections.abc import Iterator

from shard_builder.build import BuildReport
from shard_builder.config import BuildConfig
from shard_builder.source import Scan

LISTED = 20
"""Names printed of a long list; failures.jsonl has all."""


def describe(report: BuildReport, config: BuildConfig) -> Iterator[str]:
    """Yield the lines of the account."""
    manifest = report.manifest
    if report.scan is None or report.plan is None:
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
    yield from _unpaired(report, config)
    if report.failed:
        yield f"  {len(report.failed)} rejected ({report.failed[0].policy}), listed in failures.jsonl:"
        yield from _some([f"{item.item}: {item.reason}" for item in report.failed])
    for name, count in counts.items():
        if name.startswith("rule: "):
            yield f"  {count} samples: {name.removeprefix('rule: ')}"
    yield from _ignored(report.scan)
    yield "  sensor   band        samples       mean        std        min        max"
    for sensor, bands in manifest.statistics.items():
        for band in bands:
            numbers = "".join(f"{value:>11.4g}" for value in (band.mean, band.std, band.min, band.max))
            yield f"  {sensor:<8} {band.band:<8} {manifest.samples_with[sensor]:>10}{numbers}"


def _unpaired(report: BuildReport, config: BuildConfig) -> Iterator[str]:
    assert report.plan is not None
    if report.plan.unpaired:
        what = {"keep": "packed without it, in shards of their own", "drop": "left out, listed in failures.jsonl"}
        yield f"  {len(report.plan.unpaired)} lack a sensor (unpaired={config.unpaired}: {what[config.unpaired]}):"
        yield from _some([f"{sample.key} has no {', '.join(missing)}" for sample, missing in report.plan.unpaired])


def _ignored(scan: Scan) -> Iterator[str]:
    """Say what the input holds beside, one line per reason."""
    by_reason: dict[str, list[str]] = {}
    for item in scan.ignored:
        named = f"{item.path} ({item.files} files inside)" if item.files > 1 else item.path
        by_reason.setdefault(item.reason, []).append(named)
    for reason, names in by_reason.items():
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        yield f"  not read, {reason}: {', '.join(names[:LISTED])}{more}"


def _some(lines: list[str]) -> Iterator[str]:
    for line in lines[:LISTED]:
        yield f"    {line}"
    if len(lines) > LISTED:
        yield f"    ... and {len(lines) - LISTED} more"
