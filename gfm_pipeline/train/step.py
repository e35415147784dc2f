"""One optimizer step. It knows nothing of logging, saving or schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from gfm_pipeline.data.batch import HeterogeneousBatch
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.models.seeding import mix_seed
from gfm_pipeline.train.checkpoint import objective_buffers
from gfm_pipeline.train.comm import World


class LossName(NamedTuple):
    """What a logged loss is of; names of streams and parts may hold any character."""

    kind: Literal["total", "aux", "stream", "part"]
    stream: str = ""
    """Of the kinds stream and part."""
    part: str = ""
    """What the objective calls it."""

    def __str__(self) -> str:
        """Return the name as people read it; what it consists of is not to be had from this."""
        return "/".join(word for word in self if word)


TOTAL = LossName("total")


@dataclass(frozen=True)
class StepResult:
    """What happened in a step, as means over the lanes of this rank."""

    losses: dict[LossName, Tensor]
    """Scalars on the device."""
    counts: dict[str, Tensor]
    """Per expert layer [sensors, E + 1]: a sensor's tokens that chose each expert, then those dropped; summed over
    lanes."""
    grad_norm: float
    """Of the whole gradient over all ranks; inf when it is not finite."""
    num_images: int
    """Images of this rank."""
    num_skipped: int = 0
    """Samples of this rank whose rows are blank."""
    updated: bool = True
    """Whether the update was made; otherwise weights and optimizer are as before, on all ranks."""


Judge = Callable[[float], float]
"""Maps this rank's mean loss to the largest norm of the gradient with which the update may be made, the same on all
ranks; negative for none. Called once per step when all losses are there, so it may use collectives."""


def train_step(
    engine: Any,
    lanes: Sequence[HeterogeneousBatch],
    model: MsGFM,
    world: World,
    seed: int,
    judge: Judge | None = None,
) -> StepResult:
    """Run one forward and backward pass per lane and one update, unless `judge` or a gradient that is not finite
    forbids it.

    Every random draw of a pass comes from a generator seeded by (seed, step, lane), so a step depends neither on
    how many ranks share the lanes nor on what ran before: resuming needs no generator state.

    Buffers of objectives change in forward passes, on every rank by its own lanes. After an update all ranks take those
    of the first, as torch's DistributedDataParallel has it; without one they are as before.
    """
    losses: dict[LossName, Tensor] = {}
    buffers = dict(objective_buffers(model))
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    model.take_tallies()
    num_images = num_skipped = 0
    for index, lane in enumerate(lanes):
        lane_seed = mix_seed(seed, "step", lane.step, "lane", lane.lane)
        torch.manual_seed(lane_seed)
        rng = torch.Generator(device=world.device).manual_seed(lane_seed)
        batch = lane.to(world.device)
        total, named = engine(batch, rng)
        engine.backward(total)
        for name, value in {TOTAL: total.detach(), **named}.items():
            share = value.float() / len(lanes)
            losses[name] = losses[name] + share if name in losses else share
        if index == len(lanes) - 1:
            engine.update_gate.open_for(judge(float(losses[TOTAL])) if judge else math.inf)
        engine.step()
        num_skipped += sum(len(part.skipped) for part in batch.streams.values())
        num_images += sum(len(image) for part in batch.streams.values() for image in part.images.values())
    updated = bool(engine.was_step_applied())
    for name, buffer in buffers.items():
        if updated:
            world.take_from_first(buffer)
        else:
            buffer.copy_(before[name])
    return StepResult(losses, model.take_tallies(), engine.update_gate.norm, num_images, num_skipped, updated)
