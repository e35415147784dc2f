"""A pretraining run from configuration to the last checkpoint."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfm_pipeline.config import dump_config
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import Mixture, make_plan, open_mixture
from gfm_pipeline.data.state import LoaderState
from gfm_pipeline.errors import CheckpointError, TrainingError
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.objectives.objective import build_objectives
from gfm_pipeline.train.checkpoint import (
    CheckpointState,
    latest_checkpoint,
    load_into_engine,
    read_state,
    save_checkpoint,
)
from gfm_pipeline.train.comm import World, assert_equal_on_all_ranks, start_world, stop_world
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.engine import TrainingModule, place_experts, start_engine
from gfm_pipeline.train.optim import (
    StreamRate,
    check_stream_names,
    count_parameters,
    effective_rates,
    parameter_groups,
    stream_weights,
)
from gfm_pipeline.train.schedule import learning_rate, total_steps
from gfm_pipeline.train.step import StepResult, train_step
from gfm_pipeline.train.track import Tracker, gather_metrics

log = logging.getLogger(__name__)

CONSOLE_INTERVAL_S = 5.0


@dataclass
class Run:
    """The parts of a run that its steps need."""

    config: TrainConfig
    world: World
    mixture: Mixture
    model: MsGFM
    engine: Any
    rates: dict[str, StreamRate]
    run_dir: Path


def run_training(config: TrainConfig) -> None:
    """Train until the schedule ends, continuing the run that `run_dir` holds; every rank calls it.

    Raises GfmError subclasses for anything a user can mend, on all ranks alike.
    """
    world = start_world()
    with ExitStack() as stack:
        stack.callback(stop_world)
        assert_equal_on_all_ranks(world, "configuration", dict(_leaves(config.model_dump(mode="json"))))
        run_dir = Path(config.run_dir)
        stack.enter_context(_own(run_dir, world))
        run = _assemble(config, world, run_dir)
        first_step = _resume(run)
        loader = stack.enter_context(
            Loader(run.mixture, config.data, config.seed, world.rank, world.size, start_step=first_step)
        )
        tracker = stack.enter_context(Tracker(run_dir, first_step)) if world.is_first else None
        _train(run, loader, tracker, first_step)


def _assemble(config: TrainConfig, world: World, run_dir: Path) -> Run:
    mixture = open_mixture(config.data)
    check_stream_names(list(mixture.streams))
    rates = effective_rates(
        {name: (mixture.streams[name].sensors, s.lr, s.sub_batch) for name, s in config.data.streams.items()},
        config.data.lanes,
        config.optim,
    )
    placement = place_experts(config.engine, config.model.moe.num_experts, world)
    model = MsGFM(config.model, mixture.sensors, config.data.image_px, config.seed, placement)
    module = TrainingModule(
        model,
        build_objectives(config.objectives),
        stream_weights(rates),
        config.model.moe.aux_weight,
        config.engine.dtype,
    )
    groups = parameter_groups(model, rates, config.optim)
    _say(world, f"model: {count_parameters(model):,} parameters on this rank, {len(mixture.sensors)} sensors")
    for group in groups:
        size = sum(parameter.numel() for parameter in group["params"])
        _say(world, f"  {group['label']:<20} {size:>12,}  lr {group['base_lr']:.3g}  decay {group['weight_decay']:.3g}")
    engine = start_engine(module, groups, config.engine, config.optim, config.data.lanes // world.size)
    return Run(config, world, mixture, model, engine, rates, run_dir)


def _resume(run: Run) -> int:
    """Load the newest checkpoint, if there is one; return the first step to take."""
    if run.world.is_first:
        run.run_dir.mkdir(parents=True, exist_ok=True)
        (run.run_dir / "config.yaml").write_text(dump_config(run.config), encoding="utf-8")
    folder = latest_checkpoint(run.run_dir)
    assert_equal_on_all_ranks(run.world, "latest checkpoint", folder.name if folder else None)
    if folder is None:
        return 0
    state = read_state(folder)
    _check_same_run(state.config, run.config, folder)
    first_step = LoaderState.from_dict(state.loader).resume_step(
        make_plan(run.mixture, run.config.data, run.config.seed)
    )
    load_into_engine(folder, run.engine, run.model, state)
    _say(run.world, f"resuming from {folder} at step {first_step}")
    return first_step


def _train(run: Run, loader: Loader, tracker: Tracker | None, first_step: int) -> None:
    config, world = run.config, run.world
    steps_per_epoch = run.mixture.steps_per_epoch
    last_step = total_steps(config.schedule, steps_per_epoch)
    if first_step >= last_step:
        _say(world, f"nothing to do: the run has taken {first_step} of {last_step} steps.")
        return
    layers = run.model.moe_labels()
    console = _Console(world, last_step)
    batches = iter(loader)
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
        result = train_step(run.engine, lanes, layers, world, config.seed)
        _check_finite(result, step)
        done = step + 1
        if step % config.log.every_steps == 0 or done == last_step:
            row = {"step": step, "epoch": step // steps_per_epoch, **gather_metrics(result, world, config.data.lanes)}
            _add_rates(row, run, step)
            seconds = time.perf_counter() - started
            row |= {"images_per_s": row.pop("num_images") / seconds, "step_s": seconds, "data_wait_s": waited}
            if tracker:
                tracker.write(row)
            console.show(row)
        if done % config.checkpoint.every_steps == 0 or done == last_step:
            save_checkpoint(
                run.run_dir, run.engine, run.model, _state(run, loader, done), world, config.checkpoint.keep
            )
    _say(world, f"finished: {last_step} steps, checkpoint in {latest_checkpoint(run.run_dir)}")


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
    for name, rate in run.rates.items():
        lr = learning_rate(rate.lr, step, run.config.schedule, run.mixture.steps_per_epoch)
        row["streams"][name]["lr"] = lr


def _check_finite(result: StepResult, step: int) -> None:
    # The norm is that of the whole gradient, equal on all ranks, so all of them stop together.
    if not math.isfinite(result.grad_norm):
        losses = {name: float(value) for name, value in result.losses.items() if not math.isfinite(float(value))}
        raise TrainingError(
            f"step {step}: the gradient norm is {result.grad_norm}; losses that are not finite on this rank: "
            f"{losses or 'none'}. The last checkpoint is intact: lower the learning rate and run again."
        )


# Sections and keys that may differ between the run in a folder and the command that continues it.
_MAY_CHANGE = tuple(
    ["run_dir", "engine", "checkpoint", "log", "schedule.max_steps", "data.root", "data.threads", "data.prefetch_steps"]
)


def _check_same_run(stored: dict[str, Any], config: TrainConfig, folder: Path) -> None:
    old, new = dict(_leaves(stored)), dict(_leaves(config.model_dump(mode="json")))
    changed = sorted(
        key
        for key in old.keys() | new.keys()
        if old.get(key) != new.get(key) and not any(key == ok or key.startswith(ok + ".") for ok in _MAY_CHANGE)
    )
    if changed:
        key = changed[0]
        raise CheckpointError(
            f"{folder} belongs to a run with another configuration: {key} was {old.get(key)!r} and is now "
            f"{new.get(key)!r} ({len(changed)} differences). Set run_dir to a new folder, or put the value back."
        )


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


@contextmanager
def _own(run_dir: Path, world: World) -> Iterator[None]:
    """Hold the run folder's lock for as long as the first rank lives: two runs would overwrite each other."""
    if not world.is_first:
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainingError(f"another run is writing to {run_dir}; set run_dir to another folder.") from error
        yield


class _Console:
    """A line now and then for whoever watches the first rank."""

    def __init__(self, world: World, last_step: int) -> None:
        self._world = world
        self._last_step = last_step
        self._last_time = -math.inf

    def show(self, row: dict[str, Any]) -> None:
        now = time.monotonic()
        done = row["step"] + 1
        if now - self._last_time < CONSOLE_INTERVAL_S and done != self._last_step:
            return
        self._last_time = now
        streams = "  ".join(f"{name} {section['loss']:.4f}" for name, section in row["streams"].items())
        _say(
            self._world,
            f"step {done}/{self._last_step}  loss {row['loss']:.4f}  {streams}  grad {row['grad_norm']:.3f}  "
            f"{row['images_per_s']:.0f} images/s",
        )


def _say(world: World, text: str) -> None:
    if world.is_first:
        print(text, flush=True)  # the launcher's stdout is the run's console
