"""The endless sequences of one stream, one for each lane: items 1 to 5 of the order that `plan` describes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.seeding import permutation, stable_id
from gfm_pipeline.errors import PlanError

_CHUNK_ORDER, _WINDOW_ORDER = 0, 1

Batches = Literal["heterogeneous", "homogeneous"]
"""A sub-batch of every stream in each step, or all of a step from one stream."""


@dataclass(frozen=True)
class PlannedStream:
    """What the order needs to know about a stream."""

    name: str
    shard_samples: tuple[int, ...]
    """Samples of each shard."""
    samples_per_step: int
    """Samples that one lane takes in one turn."""
    digest: str
    """Digest of the collections and shards behind it."""

    def pass_steps(self, lanes: int) -> int:
        """Return the turns that `lanes` lanes need to take all of it, within a lane's rounding."""
        return -(-sum(self.shard_samples) // (lanes * self.samples_per_step))


@dataclass(frozen=True)
class Sizes:
    """The numbers that shape the order, as in the data section of a configuration."""

    lanes: int
    chunk_samples: int
    window_chunks: int
    batches: Batches = "heterogeneous"


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

    def take(self, lane: int, position: int, end: int) -> list[Pick]:
        """Return the samples at positions [position, end) of a lane's sequence, in order."""
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
        position, end = self.pass_range(lane, pass_index)
        parts: list[NDArray[np.int64]] = []
        while position < end:
            window = self._window_at(lane, position)
            ends = np.cumsum(window.counts)
            pieces = np.searchsorted(ends, window.order, side="right")
            offsets = self._shard_offset[window.shards] + window.starts - (ends - window.counts)  # [k]
            parts.append(offsets[pieces] + window.order)
            position = window.end
        return np.concatenate(parts)

    def pass_range(self, lane: int, pass_index: int) -> tuple[int, int]:
        """Return the positions [begin, end) of a lane's sequence that make up one pass."""
        low, high = self._segment(lane)
        return pass_index * (high - low), (pass_index + 1) * (high - low)

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
