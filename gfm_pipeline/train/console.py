"""What a run says while it trains: a line now and then for whoever watches the first rank."""

from __future__ import annotations

import math
import time
from typing import Any

from gfm_pipeline.train.comm import World

INTERVAL_S = 5.0


def say(world: World, text: str) -> None:
    """Print a line on the first rank."""
    if world.is_first:
        print(text, flush=True)  # the launcher's stdout is the run's console


class Console:
    """Shows the row of a step every few seconds, and that of the last step in any case."""

    def __init__(self, world: World, last_step: int) -> None:
        self._world = world
        self._last_step = last_step
        self._last_time = -math.inf

    def show(self, row: dict[str, Any]) -> None:
        """Print the step, its losses and the speed."""
        now = time.monotonic()
        done = row["step"] + 1
        if now - self._last_time < INTERVAL_S and done != self._last_step:
            return
        self._last_time = now
        streams = "  ".join(f"{name} {section['loss']:.4f}" for name, section in row["streams"].items())
        say(
            self._world,
            f"step {done}/{self._last_step}  loss {row['loss']:.4f}  {streams}  grad {row['grad_norm']:.3f}  "
            f"{row['images_per_s']:.0f} images/s",
        )
