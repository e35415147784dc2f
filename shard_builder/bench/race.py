"""The comparison itself: every contender on every input, several times, in random order."""

from __future__ import annotations

import os
import random
import shutil
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from gfm_pipeline.config import StrictModel
from shard_builder.bench.contender import Kind, Task, Timing, run
from shard_builder.bench.raw import Raw

SHARDS = 16
"""Shards of a build, so that two processes have work to the end."""
Decode = Literal["all", "sample"]
CONTENDERS: dict[str, tuple[Kind, int, Decode]] = {
    "tar cf": ("tar", 1, "all"),
    "ShardWriter": ("shardwriter", 1, "all"),
    "builder, 1 process": ("builder", 1, "all"),
    "builder, 2 processes": ("builder", 2, "all"),
}
UNDECODED: dict[str, tuple[Kind, int, Decode]] = {
    "decode: sample, 1": ("builder", 1, "sample"),
    "decode: sample, 2": ("builder", 2, "sample"),
}
"""More of them where images are stored as they are."""
PROFILE = "profile"


def contenders(raw: Raw) -> dict[str, tuple[Kind, int, Decode]]:
    """Return what is run on an input: what, with how many processes, decoding how much."""
    return CONTENDERS | (UNDECODED if raw.source == "millionaid" else {}) | {PROFILE: ("profile", 1, "all")}


class Score(StrictModel):
    """All runs of one contender on one input."""

    input: str
    contender: str
    samples: int
    raw_bytes: int
    runs: tuple[Timing, ...]

    @property
    def seconds(self) -> float:
        """Median wall time."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def cpu_seconds(self) -> float:
        """Median processor time."""
        return statistics.median(run.cpu_seconds for run in self.runs)

    @property
    def spread(self) -> tuple[float, float]:
        """Shortest and longest wall time."""
        return min(run.seconds for run in self.runs), max(run.seconds for run in self.runs)

    @property
    def phases(self) -> dict[str, float]:
        """Median share of every phase in the time of a profiled run, the largest first."""
        names = {name for run in self.runs for name in run.phases}
        shares = {
            name: statistics.median(run.phases.get(name, 0.0) / sum(run.phases.values()) for run in self.runs)
            for name in names
        }
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


def race(
    raws: Iterable[Raw], folder: Path, scratch: Path, repeats: int, seed: int, progress: Callable[[int, int], None]
) -> list[Score]:
    """Run all contenders `repeats` times on the inputs below `folder`, one at a time, in an order drawn by `seed`.

    The disks are synced before each run; what a run writes to `scratch` is on the disk when its time is taken, and
    gone before the next. The inputs are in the page cache, as far as it holds them.
    """
    raws = list(raws)
    jobs = [(raw, name) for raw in raws for name in contenders(raw) for _ in range(repeats)]
    random.Random(seed).shuffle(jobs)
    sizes = {raw.name: _read_all(folder / raw.name) for raw in raws}
    found: dict[tuple[str, str], list[Timing]] = {}
    for done, (raw, name) in enumerate(jobs):
        progress(done, len(jobs))
        output = scratch / "output"
        os.sync()
        kind, workers, decode = contenders(raw)[name]
        task = Task(
            contender=kind,
            workers=workers,
            source=raw.source,
            input=str(folder / raw.name),
            output=str(output),
            max_samples=-(-raw.places // SHARDS),
            decode=decode,
        )
        try:
            found.setdefault((raw.name, name), []).append(run(task))
        finally:
            shutil.rmtree(output, ignore_errors=True)
    progress(len(jobs), len(jobs))
    return [
        Score(input=raw.name, contender=name, samples=raw.places, raw_bytes=sizes[raw.name], runs=tuple(runs))
        for raw in raws
        for name in contenders(raw)
        if (runs := found[raw.name, name])
    ]


def _read_all(folder: Path) -> int:
    """Return the bytes of all files below a folder; afterwards they are in the page cache."""
    size = 0
    for path in folder.rglob("*"):
        if path.is_file():
            size += len(path.read_bytes())
    return size
