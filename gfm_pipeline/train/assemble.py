"""The parts of a run, built from its configuration, and the places where more can be hooked in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gfm_pipeline.data.mixture import Mixture, open_mixture
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.models.transfer import start_encoder
from gfm_pipeline.objectives.objective import Setting, build_objectives
from gfm_pipeline.storage import Store, open_store
from gfm_pipeline.train.checkpoint import FOLDER
from gfm_pipeline.train.comm import World
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.console import say
from gfm_pipeline.train.engine import TrainingModule, place_experts, start_engine
from gfm_pipeline.train.load import latest_name
from gfm_pipeline.train.optim import (
    StreamRate,
    count_parameters,
    effective_rates,
    parameter_groups,
    stream_weights,
)
from gfm_pipeline.train.schedule import total_steps
from gfm_pipeline.train.track import Tracking
from gfm_pipeline.train.update import Updates


@dataclass
class Run:
    """The parts of a run that its steps need."""

    config: TrainConfig
    world: World
    mixture: Mixture
    model: MsGFM
    engine: Any
    rates: dict[str, StreamRate]
    updates: Updates
    run_dir: Path
    store: Store
    """Where checkpoints are."""
    track: Tracking = field(default_factory=Tracking)
    """Where numbers and pictures go; on ranks other than the first it takes them and does nothing."""
    beat: Callable[[str], None] = lambda phase: None
    """Tells the watchdog that a phase begins; a hook that takes long calls it between its parts."""

    @property
    def last_step(self) -> int:
        """Number of optimizer steps after which the run has ended."""
        return total_steps(self.config.schedule, self.mixture.steps_per_epoch)


Hook = Callable[[Run, int], None]
"""Called on every rank after the update of step `step` (from 0) and before the checkpoint that follows it.

All ranks call all hooks in the same order, so a hook may use collectives. Every step seeds its own draws: a hook that
leaves parameters, optimizer and training mode as they were changes no bit of the training. A run that is resumed calls
it again for the steps that it takes again; rows it has written for them to `run.track` are dropped first.
"""


def assemble(config: TrainConfig, world: World, run_dir: Path, mixture: Mixture | None = None) -> Run:
    """Return the parts of a run, freshly initialised, on `mixture` or the configured one. Every rank must call it."""
    mixture = mixture or open_mixture(config.data)
    rates = effective_rates(
        {name: (s.sensors, config.data.streams[name].lr, s.sub_batch) for name, s in mixture.streams.items()},
        config.data.lanes,
        config.optim,
        images_per_step(mixture, config),
    )
    placement = place_experts(config.engine, config.model.moe.num_experts, world)
    model = MsGFM(config.model, mixture.sensors, config.data.image_px, config.seed, placement)
    store = open_store(config.checkpoint.url or str(run_dir / FOLDER), config.data.storage)
    if config.model.encoder.init is not None and latest_name(store) is None:
        say(world, str(start_encoder(model, config.model.encoder.init, config.seed)))
    setting = Setting(
        encoder=config.model.encoder,
        sensors=mixture.sensors,
        normalisation=mixture.normalisation,
        streams={name: stream.sensors for name, stream in mixture.streams.items()},
        image_px=config.data.image_px,
        device=world.device,
    )
    module = TrainingModule(
        model,
        build_objectives(config.objectives, model, setting, config.seed),
        loss_weights(rates, config),
        config.model.moe.aux_weight,
        config.engine.dtype,
    )
    groups = parameter_groups(model, rates, config.optim)
    say(world, f"model: {count_parameters(model):,} parameters on this rank, {len(mixture.sensors)} sensors")
    for group in groups:
        size = sum(parameter.numel() for parameter in group["params"])
        say(world, f"  {group['label']:<20} {size:>12,}  lr {group['base_lr']:.3g}  decay {group['weight_decay']:.3g}")
    engine = start_engine(module, groups, config.engine, config.optim, config.data.lanes // world.size)
    updates = Updates(rates, config.schedule, mixture.steps_per_epoch, config.optim.step_per_stream)
    return Run(config, world, mixture, model, engine, rates, updates, run_dir, store)


def images_per_step(mixture: Mixture, config: TrainConfig) -> float:
    """Return the images of an optimizer step over all lanes; of homogeneous batches, the mean over a pass."""
    images = {name: config.data.lanes * stream.sub_batch for name, stream in mixture.streams.items()}
    if config.data.batches != "homogeneous":
        return float(sum(images.values()))
    turns = {
        name: max(1, -(-stream.num_samples // (config.data.lanes * stream.samples_per_step)))
        for name, stream in mixture.streams.items()
    }
    return sum(images[name] * turns[name] for name in images) / sum(turns.values())


def loss_weights(rates: dict[str, StreamRate], config: TrainConfig) -> dict[str, float]:
    """Return the factor of each stream's loss; where every stream has an update at its own rate, all are 1."""
    if config.optim.step_per_stream:
        return dict.fromkeys(rates, 1.0)
    return stream_weights(rates, config.data.batches == "homogeneous")


def build_hooks(run: Run) -> list[Hook]:
    """Return what the configuration wants done beside training, in the order in which it is called.

    Every rank must call it. Raises ConfigError for what could not be done when its turn comes.
    """
    hooks: list[Hook] = []
    if run.config.evaluate is not None:
        from gfm_pipeline.evaluate.hook import PeriodicEvaluation  # it draws pictures, whose libraries load slowly

        hooks.append(PeriodicEvaluation(run))
    return hooks
