"""Continuing the run that a folder holds: whose it is, whether it is the same run, and from where."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gfm_pipeline.config import dump_config
from gfm_pipeline.data.mixture import make_plan
from gfm_pipeline.data.state import LoaderState
from gfm_pipeline.errors import CheckpointError, GfmError, TrainingError
from gfm_pipeline.train.assemble import Run
from gfm_pipeline.train.checkpoint import CONFIG_FILE, SCRATCH, CheckpointState
from gfm_pipeline.train.comm import World, assert_equal_on_all_ranks
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.console import say
from gfm_pipeline.train.load import latest_name, load_checkpoint

# Sections and keys that may differ between the run in a folder and the command that continues it.
MAY_CHANGE = (
    *("run_dir", "engine", "checkpoint", "evaluate", "health", "log", "schedule.max_steps", "schedule.max_hours"),
    *("data.root", "data.storage", "data.cache"),
    *("data.threads", "data.prefetch_steps", "data.requests", "data.buffer_mb", "data.map_local"),
    *("model.encoder.attention", "model.encoder.activation_checkpointing", "model.moe.compute"),
)


@contextmanager
def own(run_dir: Path, world: World) -> Iterator[None]:
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


def resume(run: Run) -> CheckpointState | None:
    """Load the newest checkpoint and return its state, or None for a new run. Every rank must call it."""
    if run.world.is_first:
        run.run_dir.mkdir(parents=True, exist_ok=True)
        (run.run_dir / CONFIG_FILE).write_text(dump_config(run.config), encoding="utf-8")
    name = latest_name(run.store)
    assert_equal_on_all_ranks(run.world, "latest checkpoint", name)
    if name is None:
        return None
    state = load_latest(run, name)
    say(run.world, f"resuming from {run.store.url}/{name} at step {state.step}")
    return state


def load_latest(run: Run, name: str) -> CheckpointState:
    """Set weights and optimizer from the checkpoint `name` of this run and return its state; every rank must call it.

    Raises CheckpointError for one of another configuration, PlanError for one of another order of samples.
    """

    def check(state: CheckpointState) -> None:
        _check_same_run(state.config, run.config, f"{run.store.url}/{name}")
        LoaderState.from_dict(state.loader).resume_step(make_plan(run.mixture, run.config.data, run.config.seed))

    return load_checkpoint(run.store, name, run.run_dir / SCRATCH, (run.engine, run.model), run.world, check)


def _check_same_run(stored: dict[str, Any], config: TrainConfig, origin: str) -> None:
    old, new = dict(leaves(_completed(stored))), dict(leaves(config.model_dump(mode="json")))
    changed = sorted(
        key
        for key in old.keys() | new.keys()
        if old.get(key) != new.get(key) and not any(key == ok or key.startswith(ok + ".") for ok in MAY_CHANGE)
    )
    if changed:
        key = changed[0]
        raise CheckpointError(
            f"{origin} belongs to a run with another configuration: {key} was {old.get(key)!r} and is now "
            f"{new.get(key)!r} ({len(changed)} differences). Set run_dir to a new folder, or put the value back."
        )


def _completed(stored: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a checkpoint with the defaults of keys that came into being after it."""
    try:
        return TrainConfig.model_validate(stored).model_dump(mode="json")
    except (ValidationError, GfmError):  # it has keys or values of another time, which the comparison names
        return stored


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of everything in a nested configuration."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree
