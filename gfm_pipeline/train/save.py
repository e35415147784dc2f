"""Writing checkpoints: all ranks at once, each a part, in the background if that is wanted.

The order of writes is what makes a save atomic, on object stores too, which rename nothing: parts first, then
state.json, which alone makes a checkpoint of them, then `latest`, then the removal of old ones. Killed anywhere in
between, the run has its previous checkpoint. A background save works on copies in memory; its ranks agree through a
process group of their own, and whatever fails in it is raised by the next save, or by the end of the run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from gfm_pipeline.errors import CheckpointError, GfmError
from gfm_pipeline.models.moe import is_expert_name
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.storage import Store
from gfm_pipeline.train.checkpoint import (
    LATEST,
    STATE,
    CheckpointState,
    StoredFile,
    checkpoint_name,
    named_parameters,
    objective_buffers,
    sha256_of,
)
from gfm_pipeline.train.comm import World
from gfm_pipeline.train.moments import full_part, parts_of


class Saver:
    """Writes the checkpoints of one run to `store`; every rank has one and calls it at the same points."""

    def __init__(self, store: Store, scratch: Path, world: World, keep: int, background: bool) -> None:
        """`scratch` is a local folder for parts on their way to a store that is none."""
        self._store = store
        self._scratch = scratch
        self._world = world.with_own_group() if background else world
        self._keep = keep
        self._pool = ThreadPoolExecutor(1, "gfm-save") if background else None
        self._pending: Future[None] | None = None

    def save(self, engine: Any, model: MsGFM, state: CheckpointState) -> None:
        """Write a checkpoint for `state.step`, point `latest` at it and remove all but the newest ones.

        In the background it returns when the copies are made; CheckpointError may then be that of the save before.
        """
        self.wait()
        share = collect_share(engine, model, self._world)
        if self._pool is None:
            self._write(share, state)
        else:
            self._pending = self._pool.submit(self._write, share, state)

    def wait(self) -> None:
        """Return when no save is under way; raise what the last one raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=error is None, cancel_futures=True)

    def _write(self, share: dict[str, Tensor], state: CheckpointState) -> None:
        world, name = self._world, checkpoint_name(state.step)
        part = f"part-{world.rank:05d}-of-{world.size:05d}.safetensors"
        if world.is_first:
            self._clear(name)
        world.barrier()
        written = _attempt(lambda: {part: self._write_part(f"{name}/{part}", share)})
        outcomes = world.gather(written)
        _raise_failure(name, outcomes)
        committed: dict[str, Any] = {}
        if world.is_first:
            files = {file: StoredFile(**stored) for outcome in outcomes for file, stored in outcome["done"].items()}
            committed = _attempt(lambda: self._commit(name, state.model_copy(update={"files": files})))
        _raise_failure(name, world.gather(committed))

    def _write_part(self, path: str, share: dict[str, Tensor]) -> dict[str, Any]:
        folder = self._store.local_path("") or self._scratch
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".tmp-{path.replace('/', '-')}"
        save_file(share, temporary, {"format": "gfm-checkpoint-2"})
        temporary.chmod(0o644)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        record = {"bytes": temporary.stat().st_size, "sha256": sha256_of(temporary)}
        self._store.put_file(path, temporary)
        return record

    def _commit(self, name: str, state: CheckpointState) -> None:
        self._store.put(f"{name}/{STATE}", state.model_dump_json(indent=1).encode())
        self._store.put(LATEST, f"{name}\n".encode())
        names = sorted(entry for entry, is_folder in self._store.names() if is_folder and entry.startswith("step-"))
        kept = set(names[-self._keep :]) | {name}
        for old in names:
            if old not in kept:
                self._remove(old)

    def _clear(self, name: str) -> None:
        """Remove what attempts that were killed have left of this checkpoint, and their unfinished files."""
        root = self._store.local_path("")
        if root is None or (root / name).exists():
            self._remove(name)
        for leftover in (root or self._scratch).glob(".tmp-*"):
            leftover.unlink(missing_ok=True)

    def _remove(self, name: str) -> None:
        self._store.delete(f"{name}/{STATE}")  # first, so that half of a checkpoint never looks like one
        for path in list(self._store.list(name)):
            self._store.delete(path)
        folder = self._store.local_path(name)
        if folder is not None and folder.is_dir():
            shutil.rmtree(folder)


def collect_share(engine: Any, model: MsGFM, world: World) -> dict[str, Tensor]:
    """Return copies of the tensors that this rank writes, about an equal share; every rank must call it.

    Every tensor has one writer among the ranks that hold it; all of these take part in assembling it.
    """
    share: dict[str, Tensor] = {}
    for (name, parameter), writer in zip(named_parameters(model), assign_writers(_holders(model, world)), strict=True):
        for part in parts_of(engine, parameter):
            value = full_part(engine, parameter, part)
            if writer == world.rank:
                share[f"{part}/{name}"] = value.to("cpu", torch.float32, copy=True).contiguous()
    if world.is_first:
        for name, value in objective_buffers(model):
            share[f"buffer/{name}"] = value.detach().to("cpu", copy=True).contiguous()
    return share


def assign_writers(holders: Sequence[tuple[int, Sequence[int]]]) -> list[int]:
    """Return the writing rank of each tensor, given (size, ranks that hold it): the one with least to write so far.

    What all ranks hold is dealt out first: a rank knows nothing of experts that it does not hold, and all must agree.
    """
    load: dict[int, int] = {}
    writers = [0] * len(holders)
    widest_first = sorted(range(len(holders)), key=lambda index: -len(holders[index][1]))
    for index in widest_first:
        size, ranks = holders[index]
        writer = min(ranks, key=lambda rank: (load.get(rank, 0), rank))
        load[writer] = load.get(writer, 0) + size
        writers[index] = writer
    return writers


def _holders(model: MsGFM, world: World) -> list[tuple[int, Sequence[int]]]:
    """Return (size, ranks) of this rank's parameters. Ranks that hold the same ones hold the same list."""
    from deepspeed.utils import groups

    everyone = range(world.size)
    found: list[tuple[int, Sequence[int]]] = []
    for name, parameter in named_parameters(model):
        ranks: Sequence[int] = everyone
        if is_expert_name(name) and hasattr(parameter, "group_name"):
            group = groups._get_expert_data_parallel_group(parameter.group_name)
            ranks = torch.distributed.get_process_group_ranks(group)
        found.append((parameter.numel(), ranks))
    return found


def _attempt(action: Any) -> dict[str, Any]:
    """Return {"done": what `action` returned} or {"failed": why it could not}, for the other ranks to know."""
    try:
        return {"done": action()}
    except (OSError, GfmError) as error:
        return {"failed": str(error)}


def _raise_failure(name: str, outcomes: Sequence[dict[str, Any]]) -> None:
    for rank, outcome in enumerate(outcomes):
        if "failed" in outcome:
            raise CheckpointError(
                f"rank {rank} could not write the checkpoint {name}: {outcome['failed'].rstrip('.')}. The one before "
                "is intact; make room or mend the store and run the same command again."
            )
