"""How far a build is, told from what lies in its output alone: any machine may ask while others write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from gfm_pipeline.config import StrictModel
from gfm_pipeline.errors import ShardError
from gfm_pipeline.shards import MANIFEST_PATH
from gfm_pipeline.shards.manifest import load_manifest, load_sidecar
from gfm_pipeline.storage import open_store
from shard_builder.build.plan import load_plan
from shard_builder.build.workspace import committed_names
from shard_builder.config import BuildConfig


class BuildStatus(StrictModel):
    """Counts of one build."""

    output: str
    state: Literal["nothing", "unplanned", "building", "complete"]
    """nothing: an empty output. unplanned: shards without a plan, or of another one. building: some are missing."""
    shards_done: int = 0
    shards_planned: int | None = None
    samples_done: int = 0
    samples_planned: int | None = None
    bytes_done: int = 0
    rejected: int = 0
    missing: tuple[str, ...] = ()
    """The first shards that are not written yet."""


LISTED = 20


def read_status(config: BuildConfig) -> BuildStatus:
    """Return how far the configured build is; costs one look at each committed shard's sidecar."""
    output = open_store(config.output, config.storage)
    local = output.local_path("")
    if local is not None and not local.is_dir():
        return BuildStatus(output=output.url, state="nothing")
    if output.exists(MANIFEST_PATH):
        manifest = load_manifest(output)
        return BuildStatus(
            output=output.url,
            state="complete",
            shards_done=len(manifest.shards),
            shards_planned=len(manifest.shards),
            samples_done=manifest.num_samples,
            samples_planned=manifest.counts["samples_planned"],
            bytes_done=sum(shard.bytes for shard in manifest.shards),
            rejected=manifest.counts["items_rejected"] + manifest.counts["samples_rejected"],
        )
    plan, names = load_plan(output), committed_names(output)
    if plan is None or plan.config_digest != config.digest():
        return BuildStatus(output=output.url, state="unplanned" if names else "nothing", shards_done=len(names))
    digests = {task.name: task.digest for task in plan.tasks}
    done, samples, size, rejected = set(), 0, 0, plan.num_rejected
    for name in names:
        try:
            sidecar = load_sidecar(output, name)
        except ShardError:
            continue  # it will be written again
        if digests.get(name) == sidecar.task_digest:
            done.add(name)
            samples += len(sidecar.samples)
            size += sidecar.tar_bytes
            rejected += sum(item.policy.startswith("on_error") for item in sidecar.rejected)
    return BuildStatus(
        output=output.url,
        state="building",
        shards_done=len(done),
        shards_planned=len(plan.tasks),
        samples_done=samples,
        samples_planned=plan.num_samples,
        bytes_done=size,
        rejected=rejected,
        missing=tuple(task.name for task in plan.tasks if task.name not in done)[:LISTED],
    )


def describe_status(status: BuildStatus) -> Iterator[str]:
    """Yield the lines for a person."""
    if status.state == "nothing":
        yield f"{status.output} holds nothing of this build. Start it with shard-builder build."
        return
    if status.state == "unplanned":
        yield f"{status.output} holds {status.shards_done} shards of another plan, or of one that is gone."
        return
    yield (
        f"{status.output}: {status.state}, {status.shards_done} of {status.shards_planned} shards, "
        f"{status.samples_done} of {status.samples_planned} samples, {status.bytes_done / 1e6:.1f} MB, "
        f"{status.rejected} rejected"
    )
    if status.missing:
        yield f"  missing: {', '.join(status.missing)}"
