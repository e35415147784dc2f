"""The training loop: what happens in which order, step after step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gfm_pipeline.data.loader import Loader
from gfm_pipeline.errors import TrainingError
from gfm_pipeline.train.assemble import Hook, Run
from gfm_pipeline.train.checkpoint import CheckpointState, latest_checkpoint, save_checkpoint
from gfm_pipeline.train.comm import assert_equal_on_all_ranks
from gfm_pipeline.train.console import Console, say
from gfm_pipeline.train.data_metrics import DataMeter
from gfm_pipeline.train.schedule import learning_rate
from gfm_pipeline.train.step import StepResult, train_step
from gfm_pipeline.train.track import gather_metrics


def train(run: Run, loader: Loader, hooks: Sequence[Hook], first_step: int) -> None:
    """Take the steps from `first_step` to the end of the run; every rank calls it."""
    config, world = run.config, run.world
    steps_per_epoch = run.mixture.steps_per_epoch
    last_step = run.last_step
    if first_step >= last_step:
        say(world, f"nothing to do: the run has taken {first_step} of {last_step} steps.")
        return
    console = Console(world, last_step)
    batches, meter = iter(loader), DataMeter(loader)
    skipped = run.run_dir / f"skipped-{world.rank:05d}.jsonl"
    for step in range(first_step, last_step):
        started = time.perf_counter()
        for group in run.engine.optimizer.param_groups:
            group["lr"] = learning_rate(group["base_lr"], step, config.schedule, steps_per_epoch)
        lanes = next(batches)
        waited = time.perf_counter() - started
        _record_skipped(skipped, loader, step)
        if step == first_step:
            layout = (loader.state(step).plan_digest, [lane.layout() for lane in lanes])
            assert_equal_on_all_ranks(world, "order of samples or batch layout", layout)
        result = train_step(run.engine, lanes, run.model, world, config.seed)
        _check_finite(result, step)
        done = step + 1
        if step % config.log.every_steps == 0 or done == last_step:
            measured = gather_metrics(result, world, list(run.mixture.sensors))
            row = {"step": step, "epoch": step // steps_per_epoch, **measured}
            _add_rates(row, run, step)
            seconds = time.perf_counter() - started
            row |= {"images_per_s": row.pop("num_images") / seconds, "step_s": seconds, "data_wait_s": waited}
            row["data"] = meter.row(world)
            run.track.write(row)
            console.show(row)
        for hook in hooks:
            hook(run, step)
        if done % config.checkpoint.every_steps == 0 or done == last_step:
            save_checkpoint(
                run.run_dir, run.engine, run.model, _state(run, loader, done), world, config.checkpoint.keep
            )
    say(world, f"finished: {last_step} steps, checkpoint in {latest_checkpoint(run.run_dir)}")


def _record_skipped(path: Path, loader: Loader, step: int) -> None:
    """Append what the loader has left out of `step`; it has looked further ahead."""
    found = [item for item in loader.skipped if item.step == step]
    if found:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(item._asdict()) + "\n" for item in found)


def _state(run: Run, loader: Loader, step: int) -> CheckpointState:
    return CheckpointState(
        step=step,
        loader=loader.state(step).to_dict(),
        config=run.config.model_dump(mode="json"),
        sensors=run.mixture.sensors,
        normalisation={
            sensor: {"mean": list(map(float, norm.mean)), "std": list(map(float, norm.std))}
            for sensor, norm in run.mixture.normalisation.items()
        },
        manifests=run.mixture.manifest_digests,
    )


def _add_rates(row: dict[str, Any], run: Run, step: int) -> None:
    for name, section in row["streams"].items():
        section["lr"] = learning_rate(run.rates[name].lr, step, run.config.schedule, run.mixture.steps_per_epoch)


def _check_finite(result: StepResult, step: int) -> None:
    # The norm is that of the whole gradient, equal on all ranks, so all of them stop together.
    if not math.isfinite(result.grad_norm):
        losses = {name: float(value) for name, value in result.losses.items() if not math.isfinite(float(value))}
        raise TrainingError(
            f"step {step}: the gradient norm is {result.grad_norm}; losses that are not finite on this rank: "
            f"{losses or 'none'}. The last checkpoint is intact: lower the learning rate and run again."
        )
