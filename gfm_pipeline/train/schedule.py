"""Learning rates as a pure function of the optimizer step."""

from __future__ import annotations

import math

from gfm_pipeline.train.config import ScheduleConfig


def total_steps(schedule: ScheduleConfig, steps_per_epoch: int) -> int:
    """Return the number of optimizer steps of the run."""
    steps = schedule.epochs * steps_per_epoch
    return min(steps, schedule.max_steps) if schedule.max_steps else steps


def learning_rate(base_lr: float, step: int, schedule: ScheduleConfig, steps_per_epoch: int) -> float:
    """Return the learning rate used by the update of `step` (from 0) for a group whose own rate is `base_lr`.

    Linear warm-up from `warmup_lr`, then constant, stepwise or cosine decay over the configured epochs.
    """
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return schedule.warmup_lr + (base_lr - schedule.warmup_lr) * step / warmup
    if schedule.kind == "multistep":
        passed = sum(step >= round(epoch * steps_per_epoch) for epoch in schedule.milestones)
        return float(base_lr * schedule.factor**passed)
    if schedule.kind == "cosine":
        end = schedule.epochs * steps_per_epoch
        begin = warmup if schedule.warmup_prefix else 0
        progress = min(1.0, (step - begin) / max(1, end - begin))
        return base_lr * (schedule.min_share + (1 - schedule.min_share) * 0.5 * (1 + math.cos(math.pi * progress)))
    return base_lr
