"""The canonical checkpoint: state by parameter name and global expert index, free of how the run was spread.

checkpoints/step-00000400/
    part-00000-of-00002.safetensors  what rank 0 of 2 wrote: param/<name>, exp_avg/<name>, exp_avg_sq/<name> in fp32;
                                     of a frozen parameter the first alone; buffer/<name> as it is, of objectives
    state.json                       format version, step, loader state, resolved config, sensors, checksums of the
                                     parts; the commit record, written when all parts are there
checkpoints/latest                   name of the newest complete checkpoint, written last

DeepSpeed's own checkpoints load only at the world size and expert-parallel size that wrote them; these load at any,
and at any ZeRO stage. Which part holds a tensor means nothing. No generator state is kept because there is none: every
random draw of a step comes from generators seeded by (seed, step, lane) or (seed, epoch, sample).

Version 1 (dense.safetensors, experts-*.safetensors, no count of updates) is read as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import safe_open
from torch import Tensor, nn

from gfm_pipeline.config import StrictModel
from gfm_pipeline.errors import CheckpointError
from gfm_pipeline.models.moe import canonical_name, is_expert_name
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.sensors import SensorSpec

FOLDER = "checkpoints"
LATEST = "latest"
STATE = "state.json"
CONFIG_FILE = "config.yaml"
"""In the run folder: the resolved configuration of its last start."""
SCRATCH = ".scratch"
"""Folder in the run folder for checkpoints on their way from or to an object store."""
VERSION = 2
READ_THREADS = 4


class StoredFile(StrictModel):
    """Size and checksum of one file of a checkpoint."""

    bytes: int
    sha256: str


class CheckpointState(StrictModel):
    """state.json: everything of a checkpoint that is not a tensor."""

    format: Literal["gfm-checkpoint"] = "gfm-checkpoint"
    version: Literal[1, 2] = 2
    step: int
    """Steps of data taken; training goes on with the step of this number."""
    updates: int | None = None
    """Updates that Adam has made, less than `step` where bad steps were left out; None in version 1: as many."""
    loader: dict[str, Any]
    config: dict[str, Any]
    sensors: dict[str, SensorSpec]
    nodata: dict[str, tuple[float, ...]] = {}
    """By sensor, every nodata value that its collections declare; not there in older ones, whose sensors name one."""
    normalisation: dict[str, dict[str, list[float]]]
    """Per sensor the mean and std that inputs were normalised with."""
    manifests: dict[str, str]
    """Digest of every collection's manifest, by stream and collection."""
    health: dict[str, Any] = {}
    """What the watch over bad steps has seen."""
    world: dict[str, int] = {}
    """Topology that wrote the checkpoint, for the record."""
    files: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")], StoredFile] = {}
    """The parts by their names, which lead nowhere else."""


def checkpoint_name(step: int) -> str:
    """Return the name of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def named_parameters(model: MsGFM) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield (canonical name, parameter) of this rank, frozen ones included, in the same order on every rank."""
    layers: Any = dict(model.moe_layers())
    for name, parameter in model.named_parameters():
        yield canonical_name(name, layers), parameter


def objective_buffers(model: MsGFM) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, buffer) of what the modules of objectives keep beside their parameters, as a norm's statistics do.

    All ranks hold the same. Buffers that a module does not want saved are not among them.
    """
    for name, value in model.objectives.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            yield f"objectives.{name}", value


def read_state(folder: Path) -> CheckpointState:
    """Return state.json of a checkpoint; raise CheckpointError when it is damaged or of another version."""
    path = folder / STATE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(tree, dict) and tree.get("version") not in (1, VERSION):
            raise CheckpointError(
                f"{path} has version {tree.get('version')!r}, this program reads versions 1 to {VERSION}. "
                "Use the program that wrote it, or a newer one."
            )
        return CheckpointState.model_validate(tree)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    except ValidationError as error:
        detail = error.errors()[0]
        raise CheckpointError(f"{path}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}") from None


def load_weights(folder: Path, model: MsGFM) -> CheckpointState:
    """Set the weights of a one-process model (all experts local) from a checkpoint; strict; return its state."""
    state = read_state(folder)
    verify_files(folder, state, list(state.files))
    tensors = StoredTensors(folder, list(state.files))
    check_names(model, tensors, folder)
    for name, parameter in named_parameters(model):
        parameter.data.copy_(tensors.read(f"param/{name}", parameter))
    return state


class StoredTensors:
    """Tensors of all files of a checkpoint, read one at a time."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.folder = folder
        self._open: dict[str, Any] = {file: safe_open(folder / file, framework="pt") for file in files}
        self._file_of = {key: file for file, handle in self._open.items() for key in list(handle.keys())}

    def names(self, part: str = "param") -> set[str]:
        """Return the canonical names of the parameters, or buffers, that the files hold."""
        return {key.removeprefix(f"{part}/") for key in self._file_of if key.startswith(f"{part}/")}

    def read(self, key: str, like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the tensor `key` on the device of `like`; it must have the shape of `like`."""
        if key not in self._file_of:
            raise CheckpointError(f"{self.folder} holds no tensor {key}.")
        value: Tensor = self._open[self._file_of[key]].get_tensor(key)
        if value.shape != like.shape:
            raise CheckpointError(
                f"{self.folder}: {key} has shape {list(value.shape)}, the model expects {list(like.shape)}."
            )
        return value.to(like.device, dtype)


def verify_files(folder: Path, state: CheckpointState, names: list[str]) -> None:
    """Raise CheckpointError unless the files `names` have the size and sha256 that state.json records."""
    with ThreadPoolExecutor(READ_THREADS) as pool:
        list(pool.map(lambda name: _verify_file(folder, name, state.files[name]), names))


def check_names(model: MsGFM, tensors: StoredTensors, folder: Path) -> None:
    """Raise CheckpointError unless the files hold the parameters of the model, its buffers, and no others.

    Checkpoints of before buffers were saved hold none.
    """
    stored = tensors.names()
    own = {name for name, _ in named_parameters(model)}
    if not model.objectives:  # a model outside of training: what objectives train beside it is not a part of it
        stored = {name for name in stored if not name.startswith("objectives.")}
    # Experts of other ranks are in the files and not in this process.
    missing = sorted(own - stored)
    unexpected = sorted(name for name in stored - own if not is_expert_name(name) or not any(map(is_expert_name, own)))
    kept, buffers = tensors.names("buffer"), {name for name, _ in objective_buffers(model)}
    if model.objectives and kept:
        missing, unexpected = missing + sorted(buffers - kept), unexpected + sorted(kept - buffers)
    if missing or unexpected:
        raise CheckpointError(
            f"{folder} is of another model: {len(missing)} parameters missing (first: {missing[:1]}), "
            f"{len(unexpected)} unexpected (first: {unexpected[:1]})."
        )


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _verify_file(folder: Path, name: str, stored: StoredFile) -> None:
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{folder} lacks {name}, which its {STATE} lists.")
    if path.stat().st_size != stored.bytes or sha256_of(path) != stored.sha256:
        raise CheckpointError(
            f"{path} is damaged: its size or sha256 is not that of {STATE}. Point checkpoints/{LATEST} at "
            "another checkpoint of the run."
        )
