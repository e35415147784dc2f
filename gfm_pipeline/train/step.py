"""One optimizer step. It knows nothing of logging, saving or schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gfm_pipeline.data.batch import HeterogeneousBatch
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.models.seeding import mix_seed
from gfm_pipeline.train.comm import World


@dataclass(frozen=True)
class StepResult:
    """What happened in a step, as means over the lanes of this rank."""

    losses: dict[str, Tensor]
    """"total", "aux", "stream/<s>", "part/<s>/<name>"; scalars on the device."""
    counts: dict[str, Tensor]
    """Per expert layer [sensors, E + 1]: a sensor's tokens that chose each expert, then those dropped; summed over
    lanes."""
    grad_norm: float
    num_images: int
    """Images of this rank."""
    num_skipped: int = 0
    """Samples of this rank whose rows are blank."""


def train_step(engine: Any, lanes: Sequence[HeterogeneousBatch], model: MsGFM, world: World, seed: int) -> StepResult:
    """Run one forward and backward pass per lane and one update.

    Every random draw of a pass comes from a generator seeded by (seed, step, lane), so a step depends neither on
    how many ranks share the lanes nor on what ran before: resuming needs no generator state.
    """
    losses: dict[str, Tensor] = {}
    model.take_tallies()
    num_images = num_skipped = 0
    for lane in lanes:
        lane_seed = mix_seed(seed, "step", lane.step, "lane", lane.lane)
        torch.manual_seed(lane_seed)
        rng = torch.Generator(device=world.device).manual_seed(lane_seed)
        batch = lane.to(world.device)
        total, named = engine(batch, rng)
        engine.backward(total)
        engine.step()
        for name, value in {"total": total.detach(), **named}.items():
            share = value.float() / len(lanes)
            losses[name] = losses[name] + share if name in losses else share
        num_skipped += sum(len(part.skipped) for part in batch.streams.values())
        num_images += sum(len(image) for part in batch.streams.values() for image in part.images.values())
    return StepResult(losses, model.take_tallies(), float(engine.get_global_grad_norm()), num_images, num_skipped)
