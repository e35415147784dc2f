"""The model under DeepSpeed: ZeRO for what is shared, expert parallelism for the experts.

What DeepSpeed 0.19 gets wrong and is therefore done here: experts start different (models/moe.py), parameter groups
carry unique names (optim.py), checkpoints do not depend on the topology (checkpoint.py), gradients are clipped by
their true norm at ZeRO stage 0 (gate.py), MoE with ZeRO-3 is refused by the type of `engine.zero_stage`.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gfm_pipeline.data.batch import HeterogeneousBatch
from gfm_pipeline.models.moe import ExpertPlacement, ShardedMoE
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.models.step_view import StepView
from gfm_pipeline.objectives.objective import Objective
from gfm_pipeline.train.comm import World
from gfm_pipeline.train.config import EngineConfig, OptimConfig
from gfm_pipeline.train.gate import GatedAdamW, UpdateGate, gate_zero
from gfm_pipeline.train.moments import start_moments
from gfm_pipeline.train.step import LossName


class TrainingModule(nn.Module):
    """Model and objectives as the one module DeepSpeed calls: batch in, total loss and its parts out."""

    def __init__(
        self,
        model: MsGFM,
        objectives: dict[str, Objective],
        weights: dict[str, float],
        aux_weight: float,
        dtype: Literal["fp32", "bf16"],
    ) -> None:
        super().__init__()
        self._bf16 = dtype == "bf16"
        self.model = model
        self._objectives = objectives
        self._weights = weights
        self._aux_weight = aux_weight
        if self._bf16:
            for part in self.modules():
                if isinstance(part, nn.LayerNorm):
                    part.register_forward_pre_hook(_in_fp32)

    def forward(self, batch: HeterogeneousBatch, rng: torch.Generator) -> tuple[Tensor, dict[LossName, Tensor]]:
        """Return the scalar to minimise and detached scalars: of streams, of their parts, and of the experts' load."""
        device = next(self.model.parameters()).device
        total = torch.zeros((), device=device)
        named: dict[LossName, Tensor] = {}
        view = StepView(self.model)
        for objective in self._objectives.values():
            # Autocast rather than bf16 weights: timm's SwinV2 mixes fp32 position biases into its attention.
            with torch.autocast(device.type, torch.bfloat16, enabled=self._bf16):
                losses = objective(view, batch, rng)
            for stream, loss in losses.streams.items():
                weighted = objective.config.weight * loss
                total = total + self._weights[stream] * weighted
                key = LossName("stream", stream)
                named[key] = named[key] + weighted.detach() if key in named else weighted.detach()
            for stream, parts in losses.parts.items():
                named |= {LossName("part", stream, name): value.detach() for name, value in parts.items()}
        if view.aux_losses:
            aux_loss = torch.stack(view.aux_losses).mean()
            total = total + self._aux_weight * aux_loss
            named[LossName("aux")] = aux_loss.detach()
        total = total + view.nothing_from_the_rest()
        return total, named


def _in_fp32(norm: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Give a layer norm its input in fp32, as autocast does on GPUs.

    On CPUs it does not (torch 2.14), and a layer norm sums the gradients of its weight and bias over all rows in
    bfloat16 there: a quarter of a bias's gradient was lost at 2,000 rows, 99% at 396,000. Other norms, products and
    their biases sum in fp32 whatever they are given: 0.3% off at most, which is bfloat16's own.
    """
    return tuple(value.float() if value.device.type == "cpu" else value for value in inputs)


def place_experts(config: EngineConfig, num_experts: int, world: World) -> ExpertPlacement:
    """Return which share of the experts this rank holds; raise ConfigError when the ranks cannot share them."""
    size = config.expert_ranks(num_experts, world.size, world.per_node)
    # DeepSpeed forms expert-parallel groups from consecutive ranks.
    return ExpertPlacement(size, world.rank % size)


def start_engine(
    module: TrainingModule, groups: list[dict[str, Any]], config: EngineConfig, optim: OptimConfig, lanes_per_rank: int
) -> Any:
    """Return a DeepSpeed engine that makes one update per `lanes_per_rank` backward passes, if its `update_gate` does
    not refuse it."""
    import deepspeed

    _quieten()
    if config.compile:
        module.model.compile_encoder()
    gate = UpdateGate()
    options: dict[str, Any] = {"lr": groups[0]["lr"], "betas": optim.betas, "eps": optim.eps, "foreach": False}
    plain = config.zero_stage == 0
    optimizer = GatedAdamW(groups, gate, optim.grad_clip, **options) if plain else torch.optim.AdamW(groups, **options)
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=optimizer,
        dist_init_required=False,
        config={
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": lanes_per_rank,
            "gradient_clipping": 0.0 if plain else optim.grad_clip,
            "zero_optimization": {"stage": config.zero_stage},
            "steps_per_print": 10**12,
        },
    )
    _check_placement(engine, module)
    if not plain:
        gate_zero(engine.optimizer, gate)
    start_moments(engine)
    engine.update_gate = gate
    return engine


def _check_placement(engine: Any, module: TrainingModule) -> None:
    for _, layer in module.model.moe_layers():
        if isinstance(layer, ShardedMoE):
            rank = torch.distributed.get_rank(layer.moe.deepspeed_moe.ep_group)
            expected = layer.global_indices.start // len(layer.global_indices)
            assert rank == expected, f"DeepSpeed placed expert-parallel rank {rank}, expected {expected}"


def _quieten() -> None:
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="deepspeed")
    # DeepSpeed's calls, blamed on the wrapper around them.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
