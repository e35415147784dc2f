"""The order of samples: a pure function of the collections, the mixture, the seed and the number of lanes.

1. A **chunk** is a run of up to `chunk_samples` neighbouring samples of one shard: the unit of reading.
2. **Pass** p over a stream lays its chunks end to end in a random order of their own: N slots for its N samples.
3. The slots are cut into one contiguous segment for each **lane**. A chunk on a cut becomes two disjoint pieces.
4. Inside a segment, pieces are grouped in **windows** of `window_chunks`; samples are shuffled inside each window.
5. A lane's sequence of a stream is endless, pass after pass; its turn t takes the positions [t*b, (t+1)*b). A stream
   has a turn in every optimizer step of heterogeneous batches, or in its share of homogeneous ones (see `turns`).

A lane is a virtual rank: rank r of W serves the lanes [r*L/W, (r+1)*L/W), so the world size never enters the order.
Any position is found by two binary searches in the chunks of one pass: resuming seeks, memory is O(chunks).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.order import Batches, Pick, PlannedStream, Sizes, StreamOrder, Window
from gfm_pipeline.data.seeding import MAX_SEED
from gfm_pipeline.data.turns import AllTogether, OneByOne, Turns
from gfm_pipeline.errors import PlanError

__all__ = ["ORDER_VERSION", "Batches", "EpochSteps", "Pick", "Plan", "PlannedStream", "Sizes", "Window", "epoch_steps"]

ORDER_VERSION = 1
"""Part of every plan digest; it changes when the same inputs would give another order."""

EpochSteps = int | Literal["longest", "shortest"]


class Plan:
    """The order of all streams of a mixture."""

    def __init__(
        self, streams: Sequence[PlannedStream], sizes: Sizes, seed: int, steps_per_epoch: EpochSteps = "longest"
    ) -> None:
        if not 0 <= seed <= MAX_SEED:
            raise PlanError(f"the seed is {seed}, expected an integer from 0 to 2**64 - 1. Set seed.")
        self.lanes = sizes.lanes
        self.batches = sizes.batches
        self._orders = {stream.name: StreamOrder(stream, sizes, seed) for stream in streams}
        self._samples_per_step = {stream.name: stream.samples_per_step for stream in streams}
        self._turns = _deal(streams, sizes, seed)
        self.steps_per_epoch = epoch_steps(streams, sizes, steps_per_epoch)
        self.described = _describe(streams, sizes, seed)
        """All that the order depends on, in words; `digest` is its sha256."""
        self.digest = hashlib.sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()

    def streams_at(self, step: int) -> tuple[str, ...]:
        """Return the streams that have a sub-batch in optimizer step `step`; the same for every lane and rank."""
        return self._turns.at(step)

    def position(self, stream: str, step: int) -> int:
        """Return how many samples of `stream` each lane has taken before optimizer step `step`."""
        return self._turns.before(stream, step) * self._samples_per_step[stream]

    def take(self, stream: str, lane: int, step: int) -> list[Pick]:
        """Return the samples that `lane` takes of `stream` in `step`, in order; none when it is another's turn."""
        if stream not in self._turns.at(step):
            return []
        begin = self.position(stream, step)
        return self._orders[stream].take(lane, begin, begin + self._samples_per_step[stream])

    def take_range(self, stream: str, lane: int, begin: int, end: int) -> list[Pick]:
        """Return the samples at positions [begin, end) of the endless sequence of `stream` that `lane` takes."""
        return self._orders[stream].take(lane, begin, end)

    def pass_range(self, stream: str, lane: int, pass_index: int) -> tuple[int, int]:
        """Return the positions [begin, end) of `lane` that make up one pass over `stream`."""
        return self._orders[stream].pass_range(lane, pass_index)

    def lane_pass(self, stream: str, lane: int, pass_index: int) -> NDArray[np.int64]:
        """Return [n] the samples that `lane` takes of `stream` in one pass, in order, as indices in the stream."""
        return self._orders[stream].lane_pass(lane, pass_index)

    def epoch(self, step: int) -> int:
        """Return the epoch that optimizer step `step` belongs to."""
        return step // self.steps_per_epoch

    def rank_lanes(self, rank: int, world: int) -> range:
        """Return the lanes that `rank` of `world` serves; raise PlanError if the lanes cannot be dealt evenly."""
        if world < 1 or self.lanes % world:
            valid = ", ".join(str(size) for size in range(1, self.lanes + 1) if self.lanes % size == 0)
            raise PlanError(
                f"{world} ranks cannot share {self.lanes} lanes evenly. Start one of {valid} ranks, or set data.lanes "
                f"to a multiple of {world} (which is another order: a run cannot be resumed across it)."
            )
        if not 0 <= rank < world:
            raise PlanError(f"there is no rank {rank} in a world of {world}, expected 0 to {world - 1}.")
        share = self.lanes // world
        return range(rank * share, (rank + 1) * share)


def epoch_steps(streams: Sequence[PlannedStream], sizes: Sizes, wanted: EpochSteps = "longest") -> int:
    """Return the optimizer steps of an epoch.

    "longest": the lanes take all samples of the stream that needs most steps for it, within a lane's rounding; of all
    streams, where each has steps of its own (homogeneous batches).
    "shortest": whole steps until the stream that needs fewest has been gone through, but at least one.
    """
    if isinstance(wanted, int):
        return wanted
    if sizes.batches == "homogeneous":
        return sum(stream.pass_steps(sizes.lanes) for stream in streams)
    if wanted == "longest":
        return max(stream.pass_steps(sizes.lanes) for stream in streams)
    return max(1, min(sum(stream.shard_samples) // (sizes.lanes * stream.samples_per_step) for stream in streams))


def _deal(streams: Sequence[PlannedStream], sizes: Sizes, seed: int) -> Turns:
    if sizes.batches == "homogeneous":
        return OneByOne({stream.name: stream.pass_steps(sizes.lanes) for stream in streams}, seed)
    return AllTogether(tuple(stream.name for stream in streams))


def _describe(streams: Sequence[PlannedStream], sizes: Sizes, seed: int) -> dict[str, str]:
    described = {
        "order version": str(ORDER_VERSION),
        "seed": str(seed),
        "data.lanes": str(sizes.lanes),
        "data.chunk_samples": str(sizes.chunk_samples),
        "data.window_chunks": str(sizes.window_chunks),
    }
    if sizes.batches != "heterogeneous":
        described["data.batches"] = sizes.batches
    for stream in streams:
        shards = hashlib.sha256(json.dumps([stream.digest, stream.shard_samples]).encode()).hexdigest()
        described[f"data.streams.{stream.name}"] = (
            f"{sum(stream.shard_samples)} samples in {len(stream.shard_samples)} shards ({shards[:16]}), "
            f"{stream.samples_per_step} per lane and step"
        )
    return described
