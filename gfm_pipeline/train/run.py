"""A pretraining run from configuration to the last checkpoint."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from gfm_pipeline.data.loader import Loader
from gfm_pipeline.train.assemble import assemble, build_hooks
from gfm_pipeline.train.comm import assert_equal_on_all_ranks, start_world, stop_world
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.loop import train
from gfm_pipeline.train.resume import leaves, own, resume
from gfm_pipeline.train.track import Tracking, open_tracking


def run_training(config: TrainConfig) -> None:
    """Train until the schedule ends, continuing the run that `run_dir` holds; every rank calls it.

    Raises GfmError subclasses for anything a user can mend, on all ranks alike.
    """
    world = start_world()
    with ExitStack() as stack:
        stack.callback(stop_world)
        assert_equal_on_all_ranks(world, "configuration", dict(leaves(config.model_dump(mode="json"))))
        run_dir = Path(config.run_dir)
        stack.enter_context(own(run_dir, world))
        run = assemble(config, world, run_dir)
        hooks = build_hooks(config)
        first_step = resume(run)
        run.track = stack.enter_context(open_tracking(config, first_step) if world.is_first else Tracking())
        loader = stack.enter_context(
            Loader(run.mixture, config.data, config.seed, world.rank, world.size, start_step=first_step)
        )
        train(run, loader, hooks, first_step)
