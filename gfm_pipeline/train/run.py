"""A pretraining run from configuration to the last checkpoint."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

import torch

from gfm_pipeline.data.loader import Loader
from gfm_pipeline.train.assemble import assemble, build_hooks
from gfm_pipeline.train.checkpoint import SCRATCH
from gfm_pipeline.train.comm import World, assert_equal_on_all_ranks, start_world, stop_world
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.console import say
from gfm_pipeline.train.health import Health
from gfm_pipeline.train.loop import StopRequest, Training
from gfm_pipeline.train.outcome import REQUEUE_CODE, clear_outcome, write_outcome
from gfm_pipeline.train.preemption import Preemption
from gfm_pipeline.train.resume import leaves, own, resume
from gfm_pipeline.train.save import Saver
from gfm_pipeline.train.survive import watched
from gfm_pipeline.train.track import Tracking, open_tracking


def run_training(config: TrainConfig) -> int:
    """Train until the schedule ends, continuing the run that `run_dir` holds; every rank calls it.

    Returns the exit code: 0 when the run is finished, REQUEUE_CODE when a signal or `schedule.max_hours` ended it early
    with a checkpoint. Raises GfmError subclasses for anything a user can mend.
    """
    started = time.monotonic()
    world = start_world()
    run_dir = Path(config.run_dir)
    with ExitStack() as stack:
        telling = stack.enter_context(_Telling(run_dir, world))
        preemption = stack.enter_context(Preemption(world.rank))
        watchdog = stack.enter_context(watched(world, run_dir, config.health.deadline_s))
        stack.push(_leave)
        assert_equal_on_all_ranks(world, "configuration", dict(leaves(config.model_dump(mode="json"))))
        stack.enter_context(own(run_dir, world))
        telling.begin()
        run = assemble(config, world, run_dir)
        run.beat = watchdog.beat
        hooks = build_hooks(run)
        state = resume(run)
        first_step = state.step if state else 0
        run.track = stack.enter_context(open_tracking(config, first_step) if world.is_first else Tracking())
        loader = stack.enter_context(
            Loader(run.mixture, config.data, config.seed, world.rank, world.size, start_step=first_step)
        )
        saver = stack.enter_context(
            Saver(run.store, run_dir / SCRATCH, world, config.checkpoint.keep, config.checkpoint.background)
        )
        health = Health(config.health, state.health if state else None)
        stop_request = _stop_request(preemption, started, config.schedule.max_hours)
        finished = Training(run, loader, saver, health, stop_request).train(hooks, first_step)
        why = "all steps are taken" if finished else stop_request() or "another rank was asked to stop"
        if not finished:
            say(
                world, f"stopped early with a checkpoint ({why}): exit code {REQUEUE_CODE}, the same command continues."
            )
        if world.is_first:
            write_outcome(run_dir, "finished" if finished else "requeue", why)
    return 0 if finished else REQUEUE_CODE


class _Telling:
    """Leaves the reason of a failure in the run folder, once the folder is known to be this run's."""

    def __init__(self, run_dir: Path, world: World) -> None:
        self._run_dir = run_dir
        self._is_first = world.is_first
        self._begun = False

    def begin(self) -> None:
        """Remove what an earlier process has left."""
        self._begun = self._is_first
        if self._begun:
            clear_outcome(self._run_dir)

    def __enter__(self) -> _Telling:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._begun and error is not None:
            with suppress(OSError):  # a full disk, say: the error itself matters more
                write_outcome(self._run_dir, "failed", str(error) or repr(error))


def _leave(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
    # After a failure leaving would wait for ranks that have failed, too; the end of the process is quicker.
    if error is None or torch.distributed.get_world_size() == 1:
        stop_world()


def _stop_request(preemption: Preemption, started: float, max_hours: float | None) -> StopRequest:
    def request() -> str | None:
        if preemption.requested:
            return preemption.requested
        if max_hours is not None and time.monotonic() - started > max_hours * 3600:
            return f"schedule.max_hours {max_hours:g}"
        return None

    return request
