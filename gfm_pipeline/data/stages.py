"""Where the time of the loader goes: seconds per stage of the work, summed over its threads."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

STAGES = ("read", "checksum", "decode", "augment", "collate")
"""read: bytes from disk or network (of prefetched ones, waiting for them). augment: random choices, crop, flip and
resize. collate: normalising and writing to the batch."""


class Stopwatch(threading.local):
    """Times the stages of what its thread does; a thread has one running stage at most."""

    def __init__(self, total: StageSeconds) -> None:
        self._total = total
        self._since = 0.0

    def start(self) -> None:
        """Begin the first stage of a sample."""
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Count the time since the last call as `stage`."""
        now = time.perf_counter()
        self._total.add(stage, now - self._since)
        self._since = now


@dataclass
class StageSeconds:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, stage: str, seconds: float) -> None:
        """Add to one stage."""
        with self._lock:
            self.seconds[stage] += seconds
