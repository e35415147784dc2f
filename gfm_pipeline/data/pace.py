"""How far ahead of the trainer pieces of remote shards are asked for, from what was measured.

A lane opens a window of pieces almost at once, and then needs none until the window ends. So the look-ahead of a stream
must cover the time that its windows take to arrive: pieces / requests at a time * time of a piece, counted in steps of
the trainer, twice over. It never covers more than the next window: where the network is the limit, holding more makes
nothing faster.
"""

from __future__ import annotations

import math
import time

_SMOOTHING = 0.2
_SAFETY = 2.0


class Pace:
    """Measures the trainer's steps, without the time it waits for data."""

    def __init__(self) -> None:
        self.seconds_per_step = 0.0
        self._delivered_at: float | None = None

    def asked(self) -> None:
        """The trainer wants a batch: it has taken its last step."""
        if self._delivered_at is None:
            return
        seconds = time.perf_counter() - self._delivered_at
        weight = _SMOOTHING if self.seconds_per_step else 1.0
        self.seconds_per_step += weight * (seconds - self.seconds_per_step)

    def delivered(self) -> None:
        """The trainer has its batch."""
        self._delivered_at = time.perf_counter()

    def steps_ahead(self, arrival_seconds: float, window_steps: int) -> int:
        """Return how many steps ahead windows must be asked for that last `window_steps` and take so long to arrive."""
        if not self.seconds_per_step:
            return 0
        return min(window_steps, math.ceil(_SAFETY * arrival_seconds / self.seconds_per_step))
