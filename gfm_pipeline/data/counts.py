"""What a loader has done so far, in sums that metrics take differences of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gfm_pipeline.data.mixture import Stream
from gfm_pipeline.storage import Counts


@dataclass(frozen=True)
class LoaderCounts:
    """Sums since the loader was opened, of this rank."""

    bytes_read: int
    """Of shards, from disks, caches and networks, refetches included."""
    refetches: int
    """Reads repeated because wrong or too few bytes had come."""
    store: Counts
    """What the streams' object stores had to do."""
    stream_wait_s: dict[str, float]
    """By stream, how long the consumer waited until the last sample of it was ready. Streams are prepared together: the
    largest is what the consumer waited for."""


def store_counts(streams: Iterable[Stream]) -> Counts:
    """Return the sums over all stores that the streams read from, each counted once."""
    counters = {id(c): c for stream in streams for shard in stream.shards if (c := shard.store.counters)}
    total = Counts()
    for counter in counters.values():
        total = total.plus(counter.read())
    return total
