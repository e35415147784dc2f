"""Training steps against each other: the configured model, the same without experts, timm's, compiled.

All contenders see the same number of images of the same size in one run on one machine; ratios between them travel
better than seconds. Ours take the real training step: DeepSpeed engine, optimiser, every collective.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch.utils.flop_counter import FlopCounterMode

from gfm_pipeline.bench.contenders import COMPILED
from gfm_pipeline.bench.device import now, peak_bytes, reset_peak
from gfm_pipeline.bench.split import Split
from gfm_pipeline.bench.synthetic import synthetic_batches, synthetic_mixture
from gfm_pipeline.data.batch import HeterogeneousBatch
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import Mixture, open_mixture
from gfm_pipeline.train.assemble import Run, assemble
from gfm_pipeline.train.comm import World
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.step import train_step


@dataclass(frozen=True)
class Score:
    """What a contender needed for a step."""

    step_s: float
    """Median."""
    images: int
    """Images of a step over all ranks."""
    flops: float
    """Matrix products and convolutions of a step, forward and backward, on one rank; what is recomputed counts. Of a
    compiled model those of its eager twin; 0 where that was not measured."""
    peak_bytes: int
    spread: float = 0.0
    """Slowest less fastest step, as a share of the median."""
    split: dict[str, float] = field(default_factory=dict)
    """Share of a step by part, from steps of their own; the rest is norms, residuals, loss and reductions."""

    @property
    def images_per_s(self) -> float:
        """Images a second over all ranks."""
        return self.images / self.step_s


Batches = Iterator[tuple[HeterogeneousBatch, ...]]


def measure(
    chosen: Mapping[str, TrainConfig | None], base: TrainConfig, world: World, steps: int, real_data: bool
) -> dict[str, Score]:
    """Return the score of each contender; every rank must call it."""
    mixture = open_mixture(base.data) if real_data else synthetic_mixture(base.data)
    scores: dict[str, Score] = {}
    for name, config in chosen.items():
        gc.collect()  # engines hold themselves: the one before would count in the next one's memory
        if config is None:
            score = _measure_timm(base, mixture, world, steps)
        else:
            score = _measure(config, mixture, world, steps, real_data)
        twin = scores.get(name.removesuffix(COMPILED))
        scores[name] = replace(score, flops=twin.flops) if twin and name.endswith(COMPILED) else score
    return scores


def _measure(config: TrainConfig, mixture: Mixture, world: World, steps: int, real_data: bool) -> Score:
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gfm-bench-")))
        run = assemble(config, world, scratch, mixture)
        lanes = config.data.lanes // world.size
        batches: Batches
        if real_data:
            batches = stack.enter_context(Loader(mixture, config.data, config.seed, world.rank, world.size))
        else:
            batches = synthetic_batches(mixture, config.data, lanes, world.device)
        step = _stepper(run, batches)
        seconds, flops, peak = _race(step, world.device, steps, countable=not config.engine.compile)
        split = {} if config.engine.compile else _split(run, batches, steps)
        return _score(seconds, _images(mixture) * config.data.lanes, flops, peak, split)


def _stepper(run: Run, batches: Batches) -> Callable[[], object]:
    return lambda: train_step(run.engine, next(batches), run.model, run.world, run.config.seed)


def _race(
    step: Callable[[], object], device: torch.device, steps: int, countable: bool
) -> tuple[list[float], float, int]:
    step()
    counter = FlopCounterMode(display=False)
    with counter if countable else nullcontext():  # it does not see into compiled code
        step()
    reset_peak(device)
    seconds = []
    for _ in range(steps):
        began = now(device)
        step()
        seconds.append(now(device) - began)
    return seconds, float(counter.get_total_flops()), peak_bytes(device)


def _split(run: Run, batches: Batches, steps: int) -> dict[str, float]:
    split = Split(run.model, run.world.device)
    own_step = run.engine.step
    run.engine.step = split.timed("optimiser", own_step)
    step = _stepper(run, _clocked(batches, split))
    step()
    split.seconds()
    began = now(run.world.device)
    for _ in range(steps):
        step()
    total = now(run.world.device) - began
    spent = split.seconds()
    split.detach()
    run.engine.step = own_step
    shares = {part: seconds / total for part, seconds in spent.items()}
    return shares | {"rest": 1 - sum(shares.values())}


def _clocked(batches: Batches, split: Split) -> Batches:
    """Yield `batches` with a clock on the waiting."""
    take = split.timed("data wait", lambda: next(batches))
    while True:
        yield take()


def _images(mixture: Mixture) -> int:
    """Return the images of a lane's heterogeneous batch."""
    return sum(stream.samples_per_step * len(stream.sensors) for stream in mixture.streams.values())


def _measure_timm(config: TrainConfig, mixture: Mixture, world: World, steps: int) -> Score:
    """Train timm's dense SwinV2 on as many colour images, without DeepSpeed, ranks or losses worth the name."""
    encoder = config.model.encoder
    side = config.data.image_px
    model: Any = SwinTransformerV2(
        img_size=side,
        patch_size=encoder.patch_px,
        num_classes=0,
        embed_dim=encoder.embed_dim,
        depths=encoder.depths,
        num_heads=encoder.num_heads,
        window_size=encoder.window,
        mlp_ratio=encoder.mlp_ratio,
        drop_path_rate=encoder.drop_path,
    ).to(world.device)
    if encoder.activation_checkpointing:
        model.set_grad_checkpointing()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    lanes = config.data.lanes // world.size
    pixels = torch.randn(_images(mixture), 3, side, side, device=world.device)

    def step() -> None:
        for _ in range(lanes):
            with torch.autocast(world.device.type, torch.bfloat16, enabled=config.engine.dtype == "bf16"):
                loss = model(pixels).float().square().mean()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()

    seconds, flops, peak = _race(step, world.device, steps, countable=True)
    return _score(seconds, _images(mixture) * config.data.lanes, flops, peak, {})


def _score(seconds: list[float], images: int, flops: float, peak: int, split: dict[str, float]) -> Score:
    median = statistics.median(seconds)
    return Score(median, images, flops, peak, (max(seconds) - min(seconds)) / median, split)
