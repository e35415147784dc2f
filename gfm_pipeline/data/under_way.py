"""What a loader has under way: parts of steps, and the runs of their rows that threads work on."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

from gfm_pipeline.data.batch import StreamBatch
from gfm_pipeline.data.plan import Pick
from gfm_pipeline.data.prepare import Rows


class Skipped(NamedTuple):
    """A sample that was left out because its bytes are damaged."""

    step: int
    lane: int
    stream: str
    shard: str
    key: str
    reason: str


class Done(NamedTuple):
    """A run of rows that is finished."""

    keys: list[str]
    at: float
    """When, in seconds of `time.perf_counter`."""


@dataclass(frozen=True)
class Part:
    """What one lane takes of one stream in one step."""

    lane: int
    stream: str
    picks: list[Pick]


@dataclass(frozen=True)
class SubBatch:
    """A part under way; each future is a run of its rows."""

    part: Part
    rows: Rows
    runs: list[Future[Done]]

    def result(self) -> StreamBatch:
        """Return the finished sub-batch, or raise what a thread raised."""
        return self.rows.finished([key for run in self.runs for key in run.result().keys], self.part.picks)
