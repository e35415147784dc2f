"""Archives that were replaced while a build is under way: their time and size tell, as do their own checksums.

A zip and a tar.gz say the sums of what they hold, so that another plan comes of other bytes. A plain tar does not: one
that holds other pixels under the same names and sizes makes the same plan, and shards of it may not be kept.
"""

from __future__ import annotations

from gfm_pipeline.errors import ArchiveError, StorageError
from gfm_pipeline.shards.manifest import sidecar_path, tar_path
from gfm_pipeline.storage import Store
from shard_builder.archives import kind_of
from shard_builder.build.plan import BuildPlan, load_task
from shard_builder.build.workspace import committed_names


def is_unchanged(store: Store, plan: BuildPlan) -> bool:
    """Return whether all archives of the plan are there as they were."""
    try:
        return not _replaced(store, plan)
    except StorageError:
        return False


def check_not_replaced(store: Store, plan: BuildPlan) -> None:
    """Raise ArchiveError when an archive was replaced after it was listed: what was read since may be of either."""
    try:
        replaced = _replaced(store, plan)
    except StorageError:
        return  # one that is gone was read while it was there
    if replaced:
        raise ArchiveError(
            f"{store.url}/{replaced[0]} was replaced while it was read. Run shard-builder retry with this "
            "configuration: it writes again what comes from that archive."
        )


def forget_replaced(store: Store, output: Store, plan: BuildPlan) -> None:
    """Remove the shards that hold something of a plain tar that was replaced since the plan was made."""
    try:
        tars = {path for path in _replaced(store, plan) if kind_of(path) == "tar"}
    except StorageError:
        return  # the scan that follows says what is missing
    for name in set(committed_names(output)) & {task.name for task in plan.tasks} if tars else ():
        samples = load_task(output, name).samples
        if any(ref.archive.partition("!")[0] in tars for s in samples for r in s.rasters.values() for ref in r.files):
            output.delete(sidecar_path(name))
            output.delete(tar_path(name))


def _replaced(store: Store, plan: BuildPlan) -> list[str]:
    return [path for path, version in plan.versions.items() if store.stat(path).version != version]
