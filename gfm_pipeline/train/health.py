"""Bad steps: what they are, what all ranks agree to do about them, and what is remembered of them.

A step is judged before its update, from the mean loss over all ranks, which one exchange per step brings to all of
them, and from the norm of the whole gradient, which ZeRO computes for clipping anyway. So every rank comes to the same
verdict, and no bad step touches weights or moments. A spike is a value beyond a multiple of the median of the last good
steps; that history is part of the checkpoint, so a resumed run judges as the uncut one does.

Rewinding: weights and optimizer go back to the newest checkpoint, the data does not. The steps from the checkpoint to
the bad one are left out, and training goes on with the next, at the learning rate of its number. (Chowdhery et al.,
"PaLM", 2022, restart some hundred steps before a spike and skip 200 to 500 batches.)
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any

from gfm_pipeline.errors import TrainingError
from gfm_pipeline.train.config import HealthConfig
from gfm_pipeline.train.step import StepResult


class Health:
    """Judges the steps of a run; every rank has one, and they are equal."""

    def __init__(self, config: HealthConfig, seen: dict[str, Any] | None = None) -> None:
        """`seen` is what `state` returned for the checkpoint that the run goes on from."""
        seen = seen or {}
        self._config = config
        self._losses = deque[float](seen.get("losses", []), maxlen=config.window_steps)
        self._norms = deque[float](seen.get("norms", []), maxlen=config.window_steps)
        self.bad_steps: list[int] = list(seen.get("bad_steps", []))
        self._loss = math.nan

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"losses": list(self._losses), "norms": list(self._norms), "bad_steps": self.bad_steps}

    def rewound(self, seen: dict[str, Any]) -> Health:
        """Return the watch after going back to a checkpoint that saw `seen`: its history, but today's bad steps."""
        return Health(self._config, {**seen, "bad_steps": self.bad_steps})

    def norm_limit(self, loss: float) -> float:
        """Return the largest norm with which the update of a step of this mean `loss` may be made; negative: none."""
        self._loss = loss
        if not math.isfinite(loss) or loss > self._limit(self._losses, self._config.loss_factor):
            return -1.0
        return self._limit(self._norms, self._config.norm_factor)

    def note(self, step: int, result: StepResult) -> str | None:
        """Remember the step; return why it was bad, or None. Raise TrainingError when the run must stop."""
        if result.updated:
            if self._config.loss_factor:
                self._losses.append(self._loss)
            if self._config.norm_factor:
                self._norms.append(result.grad_norm)
            return None
        reason = self._explain(result)
        self.bad_steps.append(step)
        if self._config.on_bad_step == "stop":
            raise TrainingError(
                f"step {step} is bad: {reason}. Its update was not made, the last checkpoint is intact. Continue with "
                "--set health.on_bad_step=skip_batch or rewind, or start a new run with lower learning rates."
            )
        if len(self.bad_steps) > self._config.max_bad_steps:
            raise TrainingError(
                f"step {step} is bad: {reason}. It is the run's bad step number {len(self.bad_steps)}, "
                f"health.max_bad_steps is {self._config.max_bad_steps}; the last ones: {self.bad_steps[-5:]}."
            )
        return reason

    def _limit(self, history: deque[float], factor: float | None) -> float:
        if factor is None or len(history) < self._config.window_steps:
            return math.inf
        return factor * statistics.median(history)

    def _explain(self, result: StepResult) -> str:
        if not math.isfinite(self._loss):
            own = sorted(str(name) for name, value in result.losses.items() if not math.isfinite(float(value)))
            return f"the loss is {self._loss}; not finite on this rank: {', '.join(own) or 'nothing'}"
        if self._loss > self._limit(self._losses, self._config.loss_factor):
            return f"the loss {self._loss:.4g} is a spike, the median was {statistics.median(self._losses):.4g}"
        if not math.isfinite(result.grad_norm):
            return "the gradient is not finite"
        median = statistics.median(self._norms)
        return f"the gradient's norm {result.grad_norm:.4g} is a spike, the median was {median:.4g}"
