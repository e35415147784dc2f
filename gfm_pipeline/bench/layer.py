"""One expert layer against the dense MLP it replaces, and against DeepSpeed's own layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import Mlp

from gfm_pipeline.bench.device import now
from gfm_pipeline.models.config import MoEConfig
from gfm_pipeline.models.moe import ExpertPlacement, ShardedMoE, initialise_moe
from gfm_pipeline.models.moe_sharded import deepspeeds_layer
from gfm_pipeline.train.comm import World
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.engine import place_experts


def race(config: TrainConfig, world: World, num_tokens: int, repeats: int) -> dict[str, float]:
    """Return the seconds of the fastest forward and backward pass of `num_tokens` tokens a rank, by contender.

    Contenders take turns, and what else the machine does only ever adds. Every rank must call it.
    """
    stage = min(config.model.moe.blocks)
    dim = config.model.encoder.embed_dim * 2 ** (stage - 1)
    hidden = int(dim * config.model.encoder.mlp_ratio)
    placement = place_experts(config.engine, config.model.moe.num_experts, world)
    layers = _layers(dim, hidden, config.model.moe, placement, world.device)
    tokens = torch.randn(num_tokens, dim, device=world.device)
    bf16 = config.engine.dtype == "bf16"
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    for turn in range(repeats + 1):
        for name, layer in layers.items():
            began = now(world.device)
            _pass(layer, tokens, bf16)
            if turn:  # the first is for caches and allocators
                seconds[name].append(now(world.device) - began)
    return {name: min(found) for name, found in seconds.items()}


def _layers(
    dim: int, hidden: int, config: MoEConfig, placement: ExpertPlacement, device: torch.device
) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    dense = Mlp(dim, hidden).to(device)
    layers: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"dense": dense}
    for compute in ("grouped", "padded") if placement.size == 1 else ("padded",):
        ours = ShardedMoE(dim, hidden, config.model_copy(update={"compute": compute}), placement)
        initialise_moe(ours, 0, "layer")
        ours.moe.set_deepspeed_parallelism()
        layers[compute] = ours.to(device)
    theirs: Any = deepspeeds_layer(dim, hidden, config, placement.size)
    theirs.load_state_dict(layers["padded"].moe.state_dict())  # type: ignore[attr-defined]
    theirs.set_deepspeed_parallelism()
    theirs.to(device)
    layers["deepspeed"] = lambda x: theirs(x)[0]
    return layers


def _pass(layer: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor, bf16: bool) -> None:
    torch.manual_seed(0)
    x = tokens.clone().requires_grad_()
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=bf16):
        out = layer(x)
    torch.autograd.backward(out, torch.ones_like(out))
