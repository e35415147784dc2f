"""The canonical checkpoint: state by parameter name and global expert index, free of how the run was spread.

checkpoints/step-00000400/
    dense.safetensors         param/<name>, exp_avg/<name>, exp_avg_sq/<name> of everything all ranks share; fp32
    experts-00000.safetensors the same for the experts of one expert-parallel rank, by global index
    state.json                format version, step, loader state, resolved config, sensors, checksums of the files
checkpoints/latest            name of the newest complete checkpoint, written last

DeepSpeed's own checkpoints load only at the world size and expert-parallel size that wrote them; these load at any.
All ranks take part in a save (ZeRO keeps a part of the optimizer state on each), and a save that is interrupted
leaves the previous checkpoint as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gfm_pipeline.config import StrictModel
from gfm_pipeline.errors import CheckpointError
from gfm_pipeline.models.moe import canonical_name, is_expert_name
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.train.comm import World

FOLDER = "checkpoints"
LATEST = "latest"
MOMENTS = ("exp_avg", "exp_avg_sq")


class StoredFile(StrictModel):
    """Size and checksum of one file of a checkpoint."""

    bytes: int
    sha256: str


class CheckpointState(StrictModel):
    """state.json: everything of a checkpoint that is not a tensor."""

    format: Literal["gfm-checkpoint"] = "gfm-checkpoint"
    version: Literal[1] = 1
    step: int
    """Optimizer steps taken; training goes on with the step of this number."""
    loader: dict[str, Any]
    config: dict[str, Any]
    sensors: dict[str, SensorSpec]
    normalisation: dict[str, dict[str, list[float]]]
    """Per sensor the mean and std that inputs were normalised with."""
    manifests: dict[str, str]
    """Digest of every collection's manifest, by stream and collection."""
    files: dict[str, StoredFile] = {}


def named_parameters(model: MsGFM) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield (canonical name, parameter) of this rank's parameters, in the same order on every rank."""
    layers: Any = dict(model.moe_layers())
    for name, parameter in model.named_parameters():
        yield canonical_name(name, layers), parameter


def save_checkpoint(run_dir: Path, engine: Any, model: MsGFM, state: CheckpointState, world: World, keep: int) -> None:
    """Write a checkpoint for `state.step`, point `latest` at it and remove all but the newest `keep`.

    Every rank must call it; `run_dir` must be the same folder for all of them.
    """
    root = run_dir / FOLDER
    name = f"step-{state.step:08d}"
    temporary = root / f".tmp-{name}"
    if world.is_first:
        for leftover in root.glob(".tmp-*"):
            shutil.rmtree(leftover)
        temporary.mkdir(parents=True)
    world.barrier()
    dense, experts = _collect(engine, model)
    files: dict[str, StoredFile] = {}
    if world.is_first:
        files |= _write_tensors(temporary / "dense.safetensors", dense)
    if experts and _writes_experts(model):
        first = next(iter(model.moe_layers()))[1]
        files |= _write_tensors(temporary / f"experts-{_expert_rank(first):05d}.safetensors", experts)
    gathered = world.gather({file: stored.model_dump() for file, stored in files.items()})
    if world.is_first:
        complete = state.model_copy(
            update={"files": {file: StoredFile(**stored) for part in gathered for file, stored in part.items()}}
        )
        (temporary / "state.json").write_text(complete.model_dump_json(indent=1), encoding="utf-8")
        final = root / name
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        _point_latest(root, name)
        for old in sorted(root.glob("step-*"))[:-keep]:
            shutil.rmtree(old)
    world.barrier()


def latest_checkpoint(run_dir: Path) -> Path | None:
    """Return the folder that `latest` names, or None for a run without a checkpoint.

    Raises CheckpointError when it names one that is not there.
    """
    pointer = run_dir / FOLDER / LATEST
    if not pointer.exists():
        return None
    folder = run_dir / FOLDER / pointer.read_text(encoding="utf-8").strip()
    if not (folder / "state.json").is_file():
        raise CheckpointError(
            f"{pointer} names {folder.name}, which holds no state.json. Write the name of a complete checkpoint of "
            f"{folder.parent} into it, or remove the run folder to start over."
        )
    return folder


def read_state(folder: Path) -> CheckpointState:
    """Return state.json of a checkpoint; raise CheckpointError when it is damaged or of another version."""
    path = folder / "state.json"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(tree, dict) and tree.get("version") != 1:
            raise CheckpointError(f"{path} has version {tree.get('version')!r}, this program reads version 1.")
        return CheckpointState.model_validate(tree)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    except ValidationError as error:
        detail = error.errors()[0]
        raise CheckpointError(f"{path}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}") from None


def load_into_engine(folder: Path, engine: Any, model: MsGFM, state: CheckpointState) -> None:
    """Set weights, Adam moments and step counts of this rank from a checkpoint of any topology.

    Raises CheckpointError for damaged files and for any parameter that is missing, unexpected or of another shape.
    """
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    tensors = _open_tensors(folder, state)
    _check_names(model, tensors, folder)
    zero = engine.optimizer
    for flat in zero.single_partition_of_fp32_groups:
        zero.optimizer.state[flat] = {
            "step": torch.tensor(float(state.step)),
            "exp_avg": torch.zeros_like(flat),
            "exp_avg_sq": torch.zeros_like(flat),
        }
    _link_moments(zero)
    for name, parameter in named_parameters(model):
        value = tensors.read(f"param/{name}", parameter)
        parameter.data.copy_(value)
        safe_set_full_fp32_param(parameter, value)
        for moment in MOMENTS:
            safe_set_full_optimizer_state(parameter, tensors.read(f"{moment}/{name}", parameter), moment)


def load_weights(folder: Path, model: MsGFM) -> CheckpointState:
    """Set the weights of a one-process model (all experts local) from a checkpoint; strict; return its state."""
    state = read_state(folder)
    tensors = _open_tensors(folder, state)
    _check_names(model, tensors, folder)
    for name, parameter in named_parameters(model):
        parameter.data.copy_(tensors.read(f"param/{name}", parameter))
    return state


class _Tensors:
    """Tensors of all files of a checkpoint, read one at a time."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.folder = folder
        self._open: dict[str, Any] = {file: safe_open(folder / file, framework="pt") for file in files}
        self._file_of = {key: file for file, handle in self._open.items() for key in list(handle.keys())}

    def names(self) -> set[str]:
        """Return the canonical parameter names that the files hold."""
        return {key.removeprefix("param/") for key in self._file_of if key.startswith("param/")}

    def read(self, key: str, like: Tensor) -> Tensor:
        """Return the tensor `key` in fp32 on the device of `like`; it must have the shape of `like`."""
        if key not in self._file_of:
            raise CheckpointError(f"{self.folder} holds no tensor {key}.")
        value: Tensor = self._open[self._file_of[key]].get_tensor(key)
        if value.shape != like.shape:
            raise CheckpointError(
                f"{self.folder}: {key} has shape {list(value.shape)}, the model expects {list(like.shape)}."
            )
        return value.to(like.device)


def _open_tensors(folder: Path, state: CheckpointState) -> _Tensors:
    for name, stored in state.files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder} lacks {name}, which its state.json lists.")
        if path.stat().st_size != stored.bytes or _sha256(path) != stored.sha256:
            raise CheckpointError(
                f"{path} is damaged: its size or sha256 is not that of state.json. Point checkpoints/latest at "
                "another checkpoint of the run."
            )
    return _Tensors(folder, list(state.files))


def _check_names(model: MsGFM, tensors: _Tensors, folder: Path) -> None:
    stored = tensors.names()
    own = {name for name, _ in named_parameters(model)}
    if not model.objectives:  # a model outside of training: what objectives train beside it is not a part of it
        stored = {name for name in stored if not name.startswith("objectives.")}
    # Experts of other ranks are in the files and not in this process.
    missing = sorted(own - stored)
    unexpected = sorted(name for name in stored - own if not is_expert_name(name) or not any(map(is_expert_name, own)))
    if missing or unexpected:
        raise CheckpointError(
            f"{folder} is of another model: {len(missing)} parameters missing (first: {missing[:1]}), "
            f"{len(unexpected)} unexpected (first: {unexpected[:1]})."
        )


def _collect(engine: Any, model: MsGFM) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return this rank's (dense, expert) tensors in full fp32; a collective over each parameter's ZeRO group."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    _link_moments(engine.optimizer)
    dense: dict[str, Tensor] = {}
    experts: dict[str, Tensor] = {}
    for name, parameter in named_parameters(model):
        target = experts if is_expert_name(name) else dense
        target[f"param/{name}"] = safe_get_full_fp32_param(parameter).cpu()
        for moment in MOMENTS:
            target[f"{moment}/{name}"] = safe_get_full_optimizer_state(parameter, moment).cpu()
    return dense, experts


def _link_moments(zero: Any) -> None:
    """Let every parameter find its Adam moments.

    DeepSpeed 0.19.8 links them once, after the first update of the first parameter group, when the moments of all
    other groups do not exist yet; those groups then answer "exp_avg not found".
    """
    zero._hp_optimizer_states_linked = False
    zero._lazy_init_hp_params_optimizer_state()


def _writes_experts(model: MsGFM) -> bool:
    """Return whether this rank is the first of those that hold the same experts."""
    from deepspeed.utils import groups

    layer: Any = next(iter(model.moe_layers()))[1]
    return torch.distributed.get_rank(groups._get_expert_data_parallel_group(layer.moe.expert_group_name)) == 0


def _expert_rank(layer: Any) -> int:
    return int(layer.global_indices.start // len(layer.global_indices))


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> dict[str, StoredFile]:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "gfm-checkpoint-1"})
    path.chmod(0o644)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return {path.name: StoredFile(bytes=path.stat().st_size, sha256=_sha256(path))}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _point_latest(root: Path, name: str) -> None:
    temporary = root / ".tmp-latest"
    temporary.write_text(name + "\n", encoding="utf-8")
    temporary.replace(root / LATEST)
