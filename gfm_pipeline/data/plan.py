"""The order of samples: a pure function of the collections, the mixture, the seed and the number of lanes.

1. A **chunk** is a run of up to `chunk_samples` neighbouring samples of one shard: the unit of reading.
2. **Pass** p over a stream lays its chunks end to end in a random order of their own: N slots for its N samples.
3. The slots are cut into one contiguous segment for each **lane**. A chunk on a cut becomes two disjoint pieces.
4. Inside a segment, pieces are grouped in **windows** of `window_chunks`; samples are shuffled inside each window.
5. A lane's sequence of a stream is endless, pass after pass; its step t takes the positions [t*b, (t+1)*b).

A lane is a virtual rank: rank r of W serves the lanes [r*L/W, (r+1)*L/W), so the world size never enters the order.
Any position is found by two binary searches in the chunks of one pass: resuming seeks, memory is O(chunks).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.seeding import MAX_SEED, permutation, stable_id
from gfm_pipeline.errors import PlanError

ORDER_VERSION = 1
"""Part of every plan digest; it changes when the same inputs would give another order."""

_CHUNK_ORDER, _WINDOW_ORDER = 0, 1


@dataclass(frozen=True)
class PlannedStream:
    """What the order needs to know about a stream."""

    name: str
    shard_samples: tuple[int, ...]
    """Samples of each shard."""
    samples_per_step: int
    """Samples that one lane takes in one step."""
    digest: str
    """Digest of the collections and shards behind it."""


@dataclass(frozen=True)
class Sizes:
    """The numbers that shape the order, as in the data section of a configuration."""

    lanes: int
    chunk_samples: int
    window_chunks: int


@dataclass(frozen=True, eq=False)
class Window:
    """Pieces of chunks among which a lane shuffles."""

    lane: int
    pass_index: int
    index: int
    """Position among the windows of this lane and pass."""
    begin: int
    """Position of the window's first sample in the lane's endless sequence."""
    shards: NDArray[np.int64]
    """[k] shard of each piece."""
    starts: NDArray[np.int64]
    """[k] first sample of each piece, within its shard."""
    counts: NDArray[np.int64]
    """[k] samples of each piece."""
    order: NDArray[np.int64]
    """[n] slot that is taken at each position; slots number the samples of the pieces laid end to end."""

    @property
    def end(self) -> int:
        """Position after the window's last sample."""
        return self.begin + len(self.order)

    def piece_samples(self, piece: int, since: int = 0) -> NDArray[np.int64]:
        """Return the samples of `piece` (sorted, within its shard) that positions >= `since` still take."""
        first = int(self.counts[:piece].sum())
        slots = self.order[max(0, since - self.begin) :]
        mine = slots[(slots >= first) & (slots < first + self.counts[piece])]
        samples: NDArray[np.int64] = np.sort(mine) - first + self.starts[piece]
        return samples


class Pick(NamedTuple):
    """One sample at its place in the order."""

    window: Window
    piece: int
    """Index of the piece in the window."""
    shard: int
    """Index of the shard in the stream."""
    sample: int
    """Index of the sample in the shard."""
    number: int
    """Index of the sample in the stream: the shards laid end to end."""


class StreamOrder:
    """The endless sequences of one stream, one for each lane."""

    def __init__(self, stream: PlannedStream, sizes: Sizes, seed: int) -> None:
        samples = np.asarray(stream.shard_samples, dtype=np.int64)  # [shards]
        self.num_samples = int(samples.sum())
        if self.num_samples < sizes.lanes:
            raise PlanError(
                f"stream {stream.name} has {self.num_samples} samples for {sizes.lanes} lanes, expected at least one "
                f"for each. Set data.lanes to at most {self.num_samples}, or give the stream more collections."
            )
        self._samples_per_step = stream.samples_per_step
        self._sizes = sizes
        self._name = (seed, stable_id(stream.name))
        self._shard_offset = np.cumsum(samples) - samples  # [shards] samples before each shard
        chunks = -(-samples // sizes.chunk_samples)  # [shards] chunks of each shard
        self._chunk_shard = np.repeat(np.arange(len(samples)), chunks)  # [chunks]
        in_shard = np.arange(len(self._chunk_shard)) - np.repeat(np.cumsum(chunks) - chunks, chunks)
        self._chunk_start = in_shard * sizes.chunk_samples  # [chunks]
        left = samples[self._chunk_shard] - self._chunk_start
        self._chunk_count = np.minimum(left, sizes.chunk_samples)  # [chunks]
        # A lane is in one pass, or between two. Windows are small; one or two per lane are in use.
        self._pass = lru_cache(maxsize=2)(self._lay_out_pass)
        self._window = lru_cache(maxsize=2 * sizes.lanes)(self._open_window)

    def take(self, lane: int, step: int) -> list[Pick]:
        """Return what `lane` takes of this stream in `step`, in order."""
        position, end = step * self._samples_per_step, (step + 1) * self._samples_per_step
        picks: list[Pick] = []
        while position < end:
            window = self._window_at(lane, position)
            stop = min(end, window.end)
            slots = window.order[position - window.begin : stop - window.begin]  # [n]
            ends = np.cumsum(window.counts)  # [k]
            pieces = np.searchsorted(ends, slots, side="right")  # [n]
            shards = window.shards[pieces]
            samples = window.starts[pieces] + slots - (ends - window.counts)[pieces]
            columns = (pieces, shards, samples, self._shard_offset[shards] + samples)
            picks += [Pick(window, *row) for row in zip(*(column.tolist() for column in columns), strict=True)]
            position = stop
        return picks

    def lane_pass(self, lane: int, pass_index: int) -> NDArray[np.int64]:
        """Return the samples of one lane in one pass, in order, as indices in the stream."""
        low, high = self._segment(lane)
        position, end = pass_index * (high - low), (pass_index + 1) * (high - low)
        parts: list[NDArray[np.int64]] = []
        while position < end:
            window = self._window_at(lane, position)
            ends = np.cumsum(window.counts)
            pieces = np.searchsorted(ends, window.order, side="right")
            offsets = self._shard_offset[window.shards] + window.starts - (ends - window.counts)  # [k]
            parts.append(offsets[pieces] + window.order)
            position = window.end
        return np.concatenate(parts)

    def _segment(self, lane: int) -> tuple[int, int]:
        lanes = self._sizes.lanes
        return lane * self.num_samples // lanes, (lane + 1) * self.num_samples // lanes

    def _lay_out_pass(self, pass_index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the order of the chunks [chunks] and, in that order, the slot at which each ends [chunks]."""
        order = permutation(len(self._chunk_shard), *self._name, _CHUNK_ORDER, pass_index)
        return order, np.cumsum(self._chunk_count[order])

    def _window_at(self, lane: int, position: int) -> Window:
        low, high = self._segment(lane)
        pass_index, offset = divmod(position, high - low)
        _, ends = self._pass(pass_index)
        first, here = np.searchsorted(ends, [low, low + offset], side="right")
        return self._window(lane, pass_index, int(here - first) // self._sizes.window_chunks)

    def _open_window(self, lane: int, pass_index: int, index: int) -> Window:
        low, high = self._segment(lane)
        order, ends = self._pass(pass_index)
        first = int(np.searchsorted(ends, low, side="right")) + index * self._sizes.window_chunks
        last = int(np.searchsorted(ends, high - 1, side="right"))
        taken = slice(first, min(first + self._sizes.window_chunks, last + 1))
        chunks = order[taken]  # [k]
        slot_start = ends[taken] - self._chunk_count[chunks]  # [k]
        begins = np.maximum(slot_start, low)
        counts = np.minimum(ends[taken], high) - begins
        return Window(
            lane=lane,
            pass_index=pass_index,
            index=index,
            begin=pass_index * (high - low) + int(begins[0]) - low,
            shards=self._chunk_shard[chunks],
            starts=self._chunk_start[chunks] + begins - slot_start,
            counts=counts,
            order=permutation(int(counts.sum()), *self._name, _WINDOW_ORDER, pass_index, lane, index),
        )


class Plan:
    """The order of all streams of a mixture."""

    def __init__(
        self,
        streams: Sequence[PlannedStream],
        sizes: Sizes,
        seed: int,
        steps_per_epoch: int | Literal["longest", "shortest"] = "longest",
    ) -> None:
        if not 0 <= seed <= MAX_SEED:
            raise PlanError(f"the seed is {seed}, expected an integer from 0 to 2**64 - 1. Set seed.")
        self.lanes = sizes.lanes
        self._orders = {stream.name: StreamOrder(stream, sizes, seed) for stream in streams}
        self.steps_per_epoch = epoch_steps(streams, sizes.lanes, steps_per_epoch)
        self.described = _describe(streams, sizes, seed)
        """All that the order depends on, in words; `digest` is its sha256."""
        self.digest = hashlib.sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()

    def take(self, stream: str, lane: int, step: int) -> list[Pick]:
        """Return the samples that `lane` takes of `stream` in optimizer step `step`, in order."""
        return self._orders[stream].take(lane, step)

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


def epoch_steps(
    streams: Sequence[PlannedStream], lanes: int, wanted: int | Literal["longest", "shortest"] = "longest"
) -> int:
    """Return the optimizer steps of an epoch.

    "longest": `lanes` lanes take all samples of the stream that needs most steps for it, within a lane's rounding.
    "shortest": whole steps until the stream that needs fewest has been gone through, but at least one.
    """
    if isinstance(wanted, int):
        return wanted
    steps = [(sum(stream.shard_samples), lanes * stream.samples_per_step) for stream in streams]
    if wanted == "longest":
        return max(-(-samples // taken) for samples, taken in steps)
    return max(1, min(samples // taken for samples, taken in steps))


def _describe(streams: Sequence[PlannedStream], sizes: Sizes, seed: int) -> dict[str, str]:
    described = {
        "order version": str(ORDER_VERSION),
        "seed": str(seed),
        "data.lanes": str(sizes.lanes),
        "data.chunk_samples": str(sizes.chunk_samples),
        "data.window_chunks": str(sizes.window_chunks),
    }
    for stream in streams:
        shards = hashlib.sha256(json.dumps([stream.digest, stream.shard_samples]).encode()).hexdigest()
        described[f"data.streams.{stream.name}"] = (
            f"{sum(stream.shard_samples)} samples in {len(stream.shard_samples)} shards ({shards[:16]}), "
            f"{stream.samples_per_step} per lane and step"
        )
    return described
