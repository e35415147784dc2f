"""Weights and moments in full where no process group is needed, at ZeRO stage 0, and what never moves."""

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from gfm_pipeline.models.config import EncoderConfig, ModelConfig, MoEConfig
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.sensors import BUILTIN_SENSORS
from gfm_pipeline.train.checkpoint import named_parameters
from gfm_pipeline.train.comm import World
from gfm_pipeline.train.gate import GatedAdamW, UpdateGate
from gfm_pipeline.train.moments import PARTS, count_updates, full_part, set_parts, start_moments
from gfm_pipeline.train.unmoved import MotionWatch


class Alone(World):
    def gather(self, value: Any) -> list[Any]:
        return [value]


def small(seed: int) -> tuple[MsGFM, Any]:
    config = ModelConfig(
        encoder=EncoderConfig(embed_dim=16, depths=(1, 1), num_heads=(2, 2), window=4),
        moe=MoEConfig(num_experts=1, blocks={}),
    )
    model = MsGFM(config, {"rgb": BUILTIN_SENSORS["rgb"]}, 16, seed)
    groups = [{"params": list(model.parameters()), "weight_decay": 0.05}]
    engine = SimpleNamespace(optimizer=GatedAdamW(groups, UpdateGate(), 5.0, lr=0.1, foreach=False))
    start_moments(engine)
    return model, engine


def update(model: MsGFM, engine: Any, seed: int, without: str = "") -> None:
    generator = torch.Generator().manual_seed(seed)
    engine.optimizer.gate.open_for(math.inf)
    for name, parameter in model.named_parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
        if without and name.startswith(without):
            parameter.grad = torch.zeros_like(parameter)
    engine.optimizer.step()


def test_parts_that_are_read_and_set_go_on_to_the_bit() -> None:
    first, engine = small(0)
    for seed in range(3):
        update(first, engine, seed)
    stored = {
        f"{part}/{name}": full_part(engine, parameter, part).clone()
        for name, parameter in named_parameters(first)
        for part in PARTS
    }
    assert count_updates(engine) == 3
    second, other = small(1)
    start_moments(other, 3)
    for name, parameter in named_parameters(second):
        set_parts(other, parameter, lambda part, n=name: stored[f"{part}/{n}"])  # type: ignore[misc]
    for seed in range(3, 6):
        update(first, engine, seed)
        update(second, other, seed)
    assert count_updates(other) == 6
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_what_never_had_a_gradient_is_named_though_weight_decay_moves_it() -> None:
    model, engine = small(0)
    watch = MotionWatch(model)
    update(model, engine, 0, without="decoders.rgb")
    unmoved = watch.unmoved(engine, Alone(0, 1, torch.device("cpu")))
    assert unmoved == sorted(name for name, _ in model.named_parameters() if name.startswith("decoders.rgb"))
    update(model, engine, 1)
    assert watch.unmoved(engine, Alone(0, 1, torch.device("cpu"))) == []


def test_what_the_optimizer_moves_but_the_model_does_not_use_is_named() -> None:
    model, engine = small(0)
    watch = MotionWatch(model)
    before = model.mask_token_D.detach().clone()
    update(model, engine, 0)
    with torch.no_grad():
        nn.Parameter.copy_(model.mask_token_D, before)  # as an update of a copy would leave it
    assert watch.unmoved(engine, Alone(0, 1, torch.device("cpu"))) == ["mask_token_D"]
