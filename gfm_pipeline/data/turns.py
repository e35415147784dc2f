"""Which streams have a sub-batch in an optimizer step: all of them, or one whose turn it is.

Turns come in **rounds**. A round holds as many turns of a stream as one pass over it needs steps, at least one, in a
random order of its own. So streams are drawn in proportion to their sizes, each pass over each stream ends with its
round but for rounding, and how often a stream had its turn before any step is a product and one binary search.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.seeding import permutation, stable_id

_TURNS = stable_id("turns")


class Turns(Protocol):
    """Deals optimizer steps to streams; the same on every rank."""

    def at(self, step: int) -> tuple[str, ...]:
        """Return the streams that take part in `step`, in the order of the configuration."""
        ...

    def before(self, stream: str, step: int) -> int:
        """Return in how many of the steps [0, step) `stream` takes part."""
        ...


class AllTogether:
    """Every stream takes part in every step: heterogeneous batches."""

    def __init__(self, streams: tuple[str, ...]) -> None:
        self._streams = streams

    def at(self, step: int) -> tuple[str, ...]:
        """Return all streams."""
        return self._streams

    def before(self, stream: str, step: int) -> int:
        """Return `step`."""
        return step


class OneByOne:
    """One stream for each step: homogeneous batches."""

    def __init__(self, round_turns: Mapping[str, int], seed: int) -> None:
        """`round_turns` is the number of turns that each stream has in a round; a round costs memory for each."""
        self._streams = tuple(round_turns)
        self._turns = np.array(list(round_turns.values()), dtype=np.int64)  # [streams]
        self.round_steps = int(self._turns.sum())
        self._seed = seed
        # A run is in one round, or looks ahead into the next.
        self._round = lru_cache(maxsize=2)(self._draw_round)

    def at(self, step: int) -> tuple[str, ...]:
        """Return the one stream of `step`."""
        index, offset = divmod(step, self.round_steps)
        order, _ = self._round(index)
        return (self._streams[order[offset]],)

    def before(self, stream: str, step: int) -> int:
        """Return how many turns `stream` had before `step`."""
        index, offset = divmod(step, self.round_steps)
        number = self._streams.index(stream)
        _, places = self._round(index)
        return index * int(self._turns[number]) + int(np.searchsorted(places[number], offset))

    def _draw_round(self, index: int) -> tuple[NDArray[np.int32], list[NDArray[np.intp]]]:
        """Return the stream of each step of a round [steps], and for each stream the steps that are its own, sorted."""
        turns = np.repeat(np.arange(len(self._turns), dtype=np.int32), self._turns)
        order = turns[permutation(self.round_steps, self._seed, _TURNS, index)]
        return order, [np.flatnonzero(order == number) for number in range(len(self._turns))]
