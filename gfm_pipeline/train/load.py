"""Setting a run's state from a checkpoint of any topology: each rank checks some of the files and reads what it keeps.

A checkpoint in an object store is first brought to this machine, each of its ranks fetching some of the files.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from gfm_pipeline.errors import CheckpointError, GfmError
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.storage import Store
from gfm_pipeline.train.checkpoint import (
    LATEST,
    READ_THREADS,
    STATE,
    CheckpointState,
    StoredTensors,
    check_names,
    named_parameters,
    objective_buffers,
    read_state,
    verify_files,
)
from gfm_pipeline.train.comm import World
from gfm_pipeline.train.moments import set_parts, start_moments

_log = logging.getLogger(__name__)


def latest_name(store: Store) -> str | None:
    """Return the name of the newest checkpoint in a store, or None when it has none.

    Raises CheckpointError when `latest` names one that is not there.
    """
    if not store.exists(LATEST):
        return None
    name = store.get(LATEST).decode("utf-8", "replace").strip()
    if "/" in name or not name.startswith("step-") or not store.exists(f"{name}/{STATE}"):
        raise CheckpointError(
            f"{store.url}/{LATEST} names {name!r}, which holds no {STATE}. Write the name of a complete checkpoint of "
            f"{store.url} into it, or remove the run's checkpoints to start over."
        )
    return name


@contextmanager
def on_this_machine(store: Store, name: str, scratch: Path) -> Iterator[Path]:
    """Give the folder of a checkpoint, unverified: its own, or a copy in `scratch` that is removed afterwards.

    Raises CheckpointError when the copy cannot be written.
    """
    folder = store.local_path(name)
    if folder is not None:
        yield folder
        return
    with ExitStack() as stack:
        try:
            scratch.mkdir(parents=True, exist_ok=True)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch)))
            (folder / STATE).write_bytes(store.get(f"{name}/{STATE}"))
            _fetch(store, name, folder, list(read_state(folder).files))
        except OSError as error:
            raise CheckpointError(
                f"cannot copy {store.url}/{name} to {scratch}: {error.strerror or error}. Make room there, or make "
                "it writable."
            ) from error
        yield folder


def load_checkpoint(
    store: Store,
    name: str,
    scratch: Path,
    run: tuple[Any, MsGFM],
    world: World,
    check: Callable[[CheckpointState], None],
) -> CheckpointState:
    """Set weights, Adam moments and update counts of (engine, model) from a checkpoint and return its state.

    `check` looks at the state before anything is set, and raises what is wrong with it.

    Every rank must call it; a CheckpointError is raised on all of them alike, for damaged files and for any parameter
    that is missing, unexpected or of another shape. `scratch` is a local folder for what comes from elsewhere.
    """
    engine, model = run
    folder = store.local_path(name)
    fetched = None
    if folder is None:
        folder = fetched = scratch / socket.gethostname() / name
    try:
        state: CheckpointState = _agreed(world, lambda: _open(store, name, folder))
        check(state)
        _agreed(world, lambda: _bring(store, name, folder, state, world))
        _agreed(world, lambda: _verify(folder, state, world))
        _agreed(world, lambda: _set(folder, state, engine, model))
    finally:
        if fetched is not None and _rank_here(world)[0] == 0:
            shutil.rmtree(fetched.parent, ignore_errors=True)
    return state


def _open(store: Store, name: str, folder: Path) -> CheckpointState:
    if store.local_path(name) is None:
        folder.mkdir(parents=True, exist_ok=True)
        own = folder / f".{STATE}-{os.getpid()}"  # ranks of a machine write the same bytes to the same name
        own.write_bytes(store.get(f"{name}/{STATE}"))
        own.replace(folder / STATE)
    return read_state(folder)


def _bring(store: Store, name: str, folder: Path, state: CheckpointState, world: World) -> None:
    if store.local_path(name) is not None:
        return
    rank, ranks = _rank_here(world)
    _fetch(store, name, folder, sorted(state.files)[rank::ranks])


def _fetch(store: Store, name: str, folder: Path, files: list[str]) -> None:
    def fetch(file: str) -> None:
        with store.open(f"{name}/{file}") as source, (folder / file).open("wb") as target:
            shutil.copyfileobj(source, target, 8 << 20)

    with ThreadPoolExecutor(READ_THREADS) as pool:
        list(pool.map(fetch, files))


def _verify(folder: Path, state: CheckpointState, world: World) -> None:
    rank, ranks = _rank_here(world)
    verify_files(folder, state, sorted(state.files)[rank::ranks])


def _set(folder: Path, state: CheckpointState, engine: Any, model: MsGFM) -> None:
    tensors = StoredTensors(folder, list(state.files))
    check_names(model, tensors, folder)
    start_moments(engine, state.step if state.updates is None else state.updates)
    for name, parameter in named_parameters(model):
        set_parts(engine, parameter, partial(_read_part, tensors, name, parameter))
    stored = tensors.names("buffer")
    for name, buffer in objective_buffers(model):
        if name in stored:
            buffer.copy_(tensors.read(f"buffer/{name}", buffer, buffer.dtype))
        else:
            _log.warning("%s is of before buffers were saved: %s begins anew", folder, name)


def _read_part(tensors: StoredTensors, name: str, like: Tensor, part: str) -> Tensor:
    return tensors.read(f"{part}/{name}", like)


def _rank_here(world: World) -> tuple[int, int]:
    """Return (rank, number of ranks) on this machine; without a launcher that says so, every rank is alone."""
    local_rank = os.environ.get("LOCAL_RANK")
    if world.per_node is None or local_rank is None:
        return 0, 1
    return int(local_rank), world.per_node


def _agreed(world: World, action: Callable[[], Any]) -> Any:
    """Return what `action` returns; raise its error on every rank when it fails on any of them."""
    result, failure = None, None
    try:
        result = action()
    except (GfmError, OSError) as error:
        failure = str(error)
    failures = [found for found in world.gather(failure) if found is not None]
    if failures:
        raise CheckpointError(failures[0])
    return result
