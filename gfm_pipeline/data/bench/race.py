"""The comparison: every contender on every work, several times, one at a time, in random order."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence

from gfm_pipeline.config import StrictModel
from gfm_pipeline.data.bench.config import DataBenchConfig
from gfm_pipeline.data.bench.inputs import installed
from gfm_pipeline.data.bench.measure import Timing, run
from gfm_pipeline.data.bench.work import CONTENDERS, Work
from gfm_pipeline.errors import GfmError


class Score(StrictModel):
    """All runs of one contender on one work."""

    contender: str
    label: str
    work: Work
    runs: tuple[Timing, ...]
    failure: str | None = None

    def median(self, value: Callable[[Timing], float]) -> float:
        """Return the median of a number over the runs."""
        return statistics.median(map(value, self.runs))

    @property
    def samples_per_s(self) -> float:
        """Median rate after the first batch."""
        return self.median(lambda timing: timing.samples / timing.seconds)


def race(works: Sequence[Work], config: DataBenchConfig, progress: Callable[[int, int], None]) -> list[Score]:
    """Return the scores, in the order of works and contenders. A contender that fails is not run again."""
    pairs = [(index, name) for index, work in enumerate(works) for name in installed(config.contenders, work)]
    order = pairs * config.repeats
    random.Random(config.seed).shuffle(order)
    timings: dict[tuple[int, str], list[Timing]] = {pair: [] for pair in pairs}
    failures: dict[tuple[int, str], str] = {}
    for done, (index, name) in enumerate(order):
        progress(done, len(order))
        if (index, name) in failures:
            continue
        try:
            timings[index, name].append(run(name, works[index], config.timeout_s))
        except GfmError as error:
            if name == "ours":
                raise
            failures[index, name] = str(error)
    progress(len(order), len(order))
    return [
        Score(
            contender=name,
            label=CONTENDERS.get(name).label,
            work=works[index],
            runs=tuple(runs),
            failure=failures.get((index, name)),
        )
        for (index, name), runs in timings.items()
    ]
