"""Which shards of a plan are there already, and what becomes of the others that are found."""

from __future__ import annotations

from typing import Literal

from gfm_pipeline.errors import ConfigError, ShardError
from gfm_pipeline.shards import MANIFEST_PATH
from gfm_pipeline.shards.manifest import Sidecar, load_sidecar, sidecar_path, tar_path
from gfm_pipeline.storage import Store
from shard_builder.build.plan import BuildPlan, TaskEntry
from shard_builder.build.workspace import clear_collection, committed_names

Mode = Literal["build", "fresh", "retry"]
"""build: go on, or say that all is done. fresh: replace what is there. retry: keep every shard that would come out the
same and write the others again, those with rejected items among them."""


def survey(output: Store, plan: BuildPlan, mode: Mode) -> set[str]:
    """Return the names of the shards that are there as the plan wants them; remove others if the mode allows it.

    Raises ConfigError for shards of another plan otherwise. A shard of this plan whose tar is lost or whose sidecar is
    damaged is not foreign: it is written again.
    """
    if mode == "fresh":  # not earlier: an input that is mistyped or damaged must not cost the old collection
        clear_collection(output)
        return set()
    planned = {task.name: task for task in plan.tasks}
    done, foreign = set(), []
    for name in committed_names(output):
        task = planned.get(name)
        sidecar = _sidecar(output, name)
        if task is None or (sidecar and sidecar.task_digest != task.digest):
            foreign.append(name)
        elif sidecar and _is_whole(output, sidecar) and not (mode == "retry" and _has_failed(sidecar)):
            done.add(name)
    if foreign and mode == "build":
        raise ConfigError(
            f"{output.url} holds {len(foreign)} shards of another plan (first: {sidecar_path(foreign[0])}): the "
            "configuration or the input has changed since. Set output to another folder, give --fresh to start over, "
            "or run shard-builder retry to keep what is still the same."
        )
    if mode == "retry":
        output.delete(MANIFEST_PATH)
        for name in [*foreign, *(name for name in planned if name not in done)]:
            output.delete(sidecar_path(name))
            output.delete(tar_path(name))
    return done


def is_committed(output: Store, task: TaskEntry) -> bool:
    """Return whether the shard is there as this plan wants it."""
    sidecar = _sidecar(output, task.name) if output.exists(sidecar_path(task.name)) else None
    return sidecar is not None and sidecar.task_digest == task.digest and _is_whole(output, sidecar)


def _sidecar(output: Store, name: str) -> Sidecar | None:
    """Return the sidecar of a shard; None when it is damaged."""
    try:
        return load_sidecar(output, name)
    except ShardError:
        return None


def _is_whole(output: Store, sidecar: Sidecar) -> bool:
    path = tar_path(sidecar.name)
    return output.exists(path) and output.stat(path).size == sidecar.tar_bytes


def _has_failed(sidecar: Sidecar) -> bool:
    return any(item.policy.startswith("on_error") for item in sidecar.rejected)
