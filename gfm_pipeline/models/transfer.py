"""Starting the encoder from the weights of a SwinV2 that was trained elsewhere, or of a model that gfm export wrote.

The rule for experts is sparse upcycling (Komatsuzaki et al., "Sparse upcycling: training mixture-of-experts from
dense checkpoints", ICLR 2023): every expert of a layer begins as a copy of the dense MLP, the gate begins fresh. The
copies drift apart because each sees other tokens; `expert_noise` sets them apart from the start. SwinV2 normalises
what comes out of an MLP, so the gate's weight on an expert's output cancels and the encoder begins with the features
of the dense one, except for tokens that find no room. Where the file has experts and a gate of its own, they are taken.

Nothing is guessed: whatever an encoder needs must be in the file with the right shape, and whatever is in the file
must be known. Position tables and masks follow from the window and are computed anew.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.models.config import InitConfig
from gfm_pipeline.models.moe import LocalMoE, ShardedMoE
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.models.seeding import seeded

_ANCHOR = "layers.0.blocks.0.attn.qkv.weight"
_COMPUTED = ("relative_position_index", "relative_coords_table", "attn_mask", "k_bias")
_OWN = ("patch_embed.", "head.", "mask_token", "decoder.", "embeds.", "decoders.")
_EXPERT = re.compile(r"(layers\.(\d+)\.blocks\.(\d+)\.mlp)\.experts\.(\d+)\.")


@dataclass(frozen=True)
class Transfer:
    """What became of the tensors of a file."""

    path: Path
    used: list[str]
    into_experts: list[str]
    """Of those, the ones that went into every expert of a layer."""
    unused: list[str]
    """Of parts that this model has of its own: embedding, head."""
    windows: tuple[int, ...] = ()
    """By stage, the windows that the position biases are read as of, where the file does not say which are right."""

    def __str__(self) -> str:
        """Say it in one line."""
        rooms = sorted({name.split(".")[0] for name in self.unused})
        return (
            f"encoder from {self.path}: {len(self.used)} tensors, {len(self.into_experts)} of them into every expert "
            f"of a layer; {len(self.unused)} not needed ({', '.join(rooms) or 'none'})" + self._about_windows()
        )

    def _about_windows(self) -> str:
        if not self.windows:
            return ""
        return (
            f"; it does not say its windows, position biases are read as of {list(self.windows)}: set "
            "model.encoder.pretrained_window where it was trained with others"
        )


def start_encoder(model: MsGFM, config: InitConfig, seed: int) -> Transfer:
    """Set the weights of `model.encoder` from a file of timm's, SwinV2's, SimMIM's or our names; return the account.

    Raises ConfigError for a file that cannot be read, lacks something, or holds something of another encoder.
    """
    path = Path(config.path)
    state = _timm_names(_read(path), path)
    windows = _check_windows(model, state, path)
    layers = {name.removeprefix("encoder."): layer for name, layer in model.moe_layers()}
    stored = _check_experts(layers, state, config.experts, path)
    used, into_experts = [], []
    for name, parameter in model.encoder.named_parameters():
        if not any(name.startswith(f"{path_of_layer}.") for path_of_layer in layers):
            _copy(state, name, parameter, path)
            used.append(name)
    for layer_name, layer in layers.items():
        of_file = [name for name in state if name.startswith(f"{layer_name}.")]
        dense = [f"{layer_name}.{part}.{kind}" for part in ("fc1", "fc2") for kind in ("weight", "bias")]
        names = of_file if layer_name in stored else dense
        if config.experts == "copy":
            _start_experts(state, layer_name, layer, config.expert_noise, seed, path)
            into_experts += names if layer_name not in stored else []
        used += names
    unused = sorted(state.keys() - set(used))
    strange = [name for name in unused if not name.startswith(_OWN)]
    if strange:
        raise ConfigError(
            f"{path} holds {len(strange)} tensors that this encoder has no place for (first: {strange[0]}). Set "
            "model.encoder.depths, embed_dim and num_heads to those of the file."
        )
    used = used if config.experts == "copy" else [name for name in used if name in state]
    return Transfer(path, used, into_experts, unused, windows)


def _check_experts(
    layers: Mapping[str, LocalMoE | ShardedMoE], state: dict[str, Tensor], how: str, path: Path
) -> dict[str, int]:
    """Return the number of experts of the file by layer; raise ConfigError for those that have no place here."""
    stored: dict[str, int] = {}
    blocks: dict[int, set[int]] = {}
    for found in filter(None, map(_EXPERT.match, state)):
        stored[found[1]] = max(stored.get(found[1], 0), int(found[4]) + 1)
        blocks.setdefault(int(found[2]) + 1, set()).add(int(found[3]))
    for name, count in stored.items():
        ours = layers[name].gate.weight.shape[0] if name in layers else 1
        if ours == 1 or (how == "copy" and ours != count):
            listed = ", ".join(f"{stage}: {sorted(of_stage)}" for stage, of_stage in sorted(blocks.items()))
            raise ConfigError(
                f"{path} has {count} experts in {name}, this encoder {ours}. Set model.moe.num_experts to {count} and "
                f"model.moe.blocks to {{{listed}}}, or start from what gfm export --dense writes."
            )
    return stored


def _start_experts(
    state: dict[str, Tensor], name: str, layer: LocalMoE | ShardedMoE, noise: float, seed: int, path: Path
) -> None:
    """Set the experts of this rank, and the gate if the file has one."""
    own = f"{name}.gate.weight" in state
    if own:
        _copy(state, f"{name}.gate.weight", layer.gate.weight, path)
    for index, expert in layer.local_experts():
        for part, parameter in expert.named_parameters():
            _copy(state, f"{name}.experts.{index}.{part}" if own else f"{name}.{part}", parameter, path)
        if noise:
            with seeded(seed, "upcycle", name, index), torch.no_grad():
                for linear in expert.modules():
                    if isinstance(linear, nn.Linear):
                        linear.weight += torch.randn_like(linear.weight) * (noise * linear.weight.std())


def _copy(state: dict[str, Tensor], name: str, parameter: Tensor, path: Path) -> None:
    if name not in state:
        raise ConfigError(
            f"{path} lacks {name}. It must hold a SwinV2 with the model.encoder.depths of this configuration."
        )
    if state[name].shape != parameter.shape:
        raise ConfigError(
            f"{path}: {name} has shape {list(state[name].shape)}, this encoder's is {list(parameter.shape)}. Set "
            "model.encoder.embed_dim, num_heads and mlp_ratio to those of the file; image and window may differ."
        )
    with torch.no_grad():
        parameter.copy_(state[name])


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"model.encoder.init.path {path} cannot be read as weights ({detail}). Give a .safetensors file, or one "
            "that torch.save wrote and that holds tensors only."
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(tree, dict) and isinstance(tree.get(key), dict):
            tree = tree[key]
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds a {type(tree).__name__}, expected tensors by name.")
    return tree


def _timm_names(state: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the tensors by timm's names, without prefix and without what is computed."""
    anchors = [name for name in state if name == _ANCHOR or name.endswith("." + _ANCHOR)]
    if any(name.startswith("param/") for name in anchors):
        raise ConfigError(
            f"{path} is a part of a checkpoint. Set model.encoder.init.path to the model.safetensors that gfm export "
            "writes of its run."
        )
    if len(anchors) != 1:
        raise ConfigError(f"{path} holds {len(anchors)} tensors called {_ANCHOR}, expected one: a SwinV2's weights.")
    prefix = anchors[0].removesuffix(_ANCHOR)
    # SwinV2's own code merges patches at the end of a stage, timm at the beginning of the next.
    shift = int(f"{prefix}layers.0.downsample.reduction.weight" in state)
    out = {}
    for name, value in state.items():
        if isinstance(value, Tensor) and (not name.endswith(_COMPUTED) or name.endswith("relative_coords_table")):
            own = name.removeprefix(prefix)
            own = re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + shift}.downsample", own)
            out[own] = value
    return out


def _check_windows(model: MsGFM, state: dict[str, Tensor], path: Path) -> tuple[int, ...]:
    """Take the position tables out of `state`; where they tell of other windows, the configuration must, too.

    An export's windows are in its config.json.

    Returns the windows that the biases are read as of where there are no tables, as in timm's own files.
    """
    tables = {name: state.pop(name) for name in list(state) if name.endswith("relative_coords_table")}
    attentions: list[Any] = [layer.blocks[0].attn for layer in model.encoder.layers]
    read_as = tuple(one.pretrained_window_size[0] or one.window_size[0] for one in attentions)
    found = [tables.get(f"layers.{stage}.blocks.0.attn.relative_coords_table") for stage in range(len(attentions))]
    stored = [(table.shape[1] + 1) // 2 for table in found if table is not None] or _exported_windows(path)
    if len(stored) < len(found):
        return read_as
    if stored != list(read_as):
        raise ConfigError(
            f"{path} was trained with windows {stored}, its position biases would be read as of {list(read_as)}. Set "
            f"model.encoder.pretrained_window to {stored}."
        )
    return ()


def _exported_windows(path: Path) -> list[int]:
    """Return the windows, by stage, that the config.json beside an exported model's weights names; none without one."""
    try:
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        if config["format"] != "gfm-model":
            return []
        encoder, px = config["model"]["encoder"], config["image_px"]
        sides = [px // (encoder["patch_px"] * 2**stage) for stage in range(len(encoder["depths"]))]
        windows = encoder.get("pretrained_window") or [min(encoder["window"], side) for side in sides]
        return [int(window) for window in windows]
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        return []
