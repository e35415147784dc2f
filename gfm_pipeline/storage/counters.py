"""What a store had to do, counted, for metrics and benchmarks."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple


class Counts(NamedTuple):
    """A moment's sums."""

    requests: int = 0
    """Sent to a server, repetitions included."""
    retries: int = 0
    """Repetitions after a failure."""
    bytes_fetched: int = 0
    """Bodies of objects that came over the network."""
    cache_hits: int = 0
    cache_misses: int = 0

    def plus(self, other: Counts) -> Counts:
        """Return the sums of both."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


class StoreCounters:
    """Sums that many threads add to. A copy that travels to another process starts where this one is."""

    def __init__(self) -> None:
        self._counts = Counts()
        self._lock = threading.Lock()

    def add(self, **amounts: int) -> None:
        """Add to the fields named."""
        with self._lock:
            self._counts = self._counts.plus(Counts(**amounts))

    def read(self) -> Counts:
        """Return the sums so far."""
        return self._counts

    def __getstate__(self) -> dict[str, Any]:
        return {"_counts": self._counts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._lock = threading.Lock()
