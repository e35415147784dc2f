"""The results as tables for a person, and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gfm_pipeline.data.bench.measure import Timing
from gfm_pipeline.data.bench.race import Score
from gfm_pipeline.data.bench.work import Work


def describe(scores: Sequence[Score]) -> Iterator[str]:
    """Yield a table for each work."""
    for work in dict.fromkeys(score.work.model_dump_json() for score in scores):
        yield from _table(Work.model_validate_json(work), [s for s in scores if s.work.model_dump_json() == work])


def _table(work: Work, scores: list[Score]) -> Iterator[str]:
    sensors = "+".join(work.sensors)
    yield (
        f"{work.url}: {sensors} as {work.encoding}, {work.task} of {work.crop_px} px, batches of {work.batch}, "
        f"{work.workers} workers"
    )
    yield (
        f"  {'':<24}{'samples/s':>10}{'of limit':>10}{'ours is':>9}{'MB/s':>8}{'CPU s/1000':>12}{'first batch':>13}"
        f"{'memory':>9}{'(base)':>9}"
    )
    rates = {score.contender: score.samples_per_s for score in scores if score.runs}
    limit, ours = rates.get("limit"), rates.get("ours")
    for score in sorted(scores, key=lambda s: -rates.get(s.contender, 0.0)):
        if not score.runs:
            yield f"  {score.label:<24}{score.failure}"
            continue
        rate = rates[score.contender]
        megabytes = score.median(lambda t: t.num_bytes / t.seconds / 1e6)
        cpu = score.median(lambda t: t.cpu_s / t.samples * 1000)
        yield (
            f"  {score.label:<24}{rate:>10.0f}{f'{rate / limit:.2f}' if limit else '-':>10}"
            f"{f'{ours / rate:.2f}x' if ours else '-':>9}{megabytes:>8.0f}{cpu:>12.2f}"
            f"{score.median(lambda t: t.first_batch_s):>11.2f} s{score.median(lambda t: t.peak_bytes) / 1e6:>6.0f} MB"
            f"{score.median(lambda t: t.base_bytes) / 1e6:>6.0f} MB"
        )
    yield from _stages(scores)


def _stages(scores: list[Score]) -> Iterator[str]:
    for score in scores:
        if score.contender == "ours" and score.runs:
            medians = {name: score.median(_stage(name)) for name in score.runs[0].stages}
            waited = medians.pop("wait")
            total = sum(medians.values()) or 1.0
            shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in medians.items())
            yield f"  time of our threads: {shares}; the consumer waited {waited:.2f} s"


def _stage(name: str) -> Callable[[Timing], float]:
    return lambda timing: timing.stages[name]


def as_json(scores: Sequence[Score]) -> dict[str, Any]:
    """Return everything that was measured, and on what."""
    return {
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()},
        "scores": [score.model_dump(mode="json") | _medians(score) for score in scores],
    }


def _medians(score: Score) -> dict[str, float]:
    return {"samples_per_s": score.samples_per_s} if score.runs else {}


def dump(tree: dict[str, Any]) -> str:
    """Return JSON text."""
    return json.dumps(tree, indent=2) + "\n"
