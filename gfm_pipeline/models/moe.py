"""Mixture-of-experts MLPs, in the form that trains and in the form that everything else uses.

`ShardedMoE` holds this rank's experts in DeepSpeed's MoE layer, which exchanges tokens with an all-to-all.
`LocalMoE` holds all experts in one process without DeepSpeed: for pictures, export and downstream tasks. Parameter
names of `LocalMoE` (`gate.weight`, `experts.<global index>...`) are the canonical ones: checkpoints use them, and
`canonical_name` translates DeepSpeed's. Top-1 gating after Fedus et al., "Switch Transformers" (2021).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.models.config import MoEConfig
from gfm_pipeline.models.seeding import seeded


@dataclass(frozen=True)
class ExpertPlacement:
    """Which experts live on this rank: rank r of an expert-parallel group of `size` holds the r-th equal share."""

    size: int
    rank: int

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.size

    def global_indices(self, num_experts: int) -> range:
        """Return the global indices of the experts of this rank."""
        if num_experts % self.size:
            raise ConfigError(
                f"model.moe.num_experts {num_experts} cannot be shared by engine.ep_size {self.size} ranks equally. "
                "Set engine.ep_size to a divisor of it."
            )
        share = num_experts // self.size
        return range(self.rank * share, (self.rank + 1) * share)


@dataclass(frozen=True)
class Routing:
    """What the gate of one layer did in the last forward pass, over the tokens of this rank."""

    aux_loss: Tensor
    """Load-balance loss, a scalar that is 1 for a perfectly even load."""
    counts_E: Tensor
    """Tokens that chose each expert, before any were dropped."""
    num_dropped: Tensor
    """Tokens beyond an expert's capacity: they passed the layer by."""


class LocalMoE(nn.Module):
    """All experts of a layer in one process; every token reaches its expert (no capacity)."""

    def __init__(self, dim: int, hidden: int, num_experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, num_experts, bias=False)
        self.experts = nn.ModuleList(Mlp(dim, hidden) for _ in range(num_experts))
        self.routing: Routing | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return [..,D] for tokens [..,D]: gate probability times the output of the chosen expert."""
        tokens_ND = x.reshape(-1, x.shape[-1])
        gates_NE = F.linear(tokens_ND.float(), self.gate.weight.float()).softmax(dim=1)
        gate_N, chosen_N = gates_NE.max(dim=1)
        out_ND = torch.zeros_like(tokens_ND)
        for index, expert in enumerate(self.experts):
            (rows,) = torch.nonzero(chosen_N == index, as_tuple=True)
            out_ND = out_ND.index_copy(0, rows, (expert(tokens_ND[rows]) * gate_N[rows, None]).to(out_ND.dtype))
        counts_E = torch.bincount(chosen_N, minlength=len(self.experts))
        share_E = counts_E / tokens_ND.shape[0]
        aux_loss = (gates_NE.mean(0) * share_E).sum() * len(self.experts)
        self.routing = Routing(aux_loss, counts_E, torch.zeros((), dtype=torch.long, device=x.device))
        return out_ND.reshape(x.shape)


class ShardedMoE(nn.Module):
    """This rank's share of a layer's experts inside DeepSpeed's MoE layer."""

    def __init__(self, dim: int, hidden: int, config: MoEConfig, placement: ExpertPlacement) -> None:
        super().__init__()
        from deepspeed.moe.layer import MoE

        self.global_indices = placement.global_indices(config.num_experts)
        self.moe = MoE(
            hidden_size=dim,
            expert=Mlp(dim, hidden),
            num_experts=config.num_experts,
            ep_size=placement.size,
            k=1,
            capacity_factor=config.capacity_factor,
            eval_capacity_factor=config.capacity_factor,
            min_capacity=config.min_capacity,
            use_rts=config.random_token_selection,
        )
        self.routing: Routing | None = None
        self._capacity_factor = config.capacity_factor
        self._min_capacity = config.min_capacity

    @property
    def gate(self) -> nn.Linear:
        """The routing projection."""
        gate: nn.Linear = self.moe.deepspeed_moe.gate.wg
        return gate

    def local_experts(self) -> Iterator[tuple[int, nn.Module]]:
        """Yield (global index, expert) for each expert of this rank."""
        yield from zip(self.global_indices, self.moe.deepspeed_moe.experts.deepspeed_experts, strict=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..,D] for tokens [..,D]; tokens beyond an expert's capacity come back as zeros."""
        out, aux_loss, counts_E = self.moe(x)
        num_tokens = x.numel() // x.shape[-1]
        capacity = -(-num_tokens * self._capacity_factor // len(counts_E))
        dropped = (counts_E - max(int(capacity), self._min_capacity)).clamp(min=0).sum()
        self.routing = Routing(aux_loss, counts_E, dropped)
        result: Tensor = out
        return result


MoELayer = LocalMoE | ShardedMoE


def build_moe(dim: int, hidden: int, config: MoEConfig, placement: ExpertPlacement | None) -> MoELayer:
    """Return a layer with all experts here (`placement` None) or with this rank's share of them."""
    if placement is None:
        return LocalMoE(dim, hidden, config.num_experts)
    return ShardedMoE(dim, hidden, config, placement)


def initialise_moe(layer: MoELayer, seed: int, name: str) -> None:
    """Draw the gate and each expert from generators of their own, keyed by `name` and the global expert index.

    DeepSpeed copies one expert to all places, which leaves nothing for the gate to choose between.
    """
    with seeded(seed, name, "gate"):
        nn.init.trunc_normal_(layer.gate.weight, std=0.02)
    pairs = enumerate(layer.experts) if isinstance(layer, LocalMoE) else layer.local_experts()
    for index, expert in pairs:
        with seeded(seed, name, "expert", index):
            for linear in expert.modules():
                if isinstance(linear, nn.Linear):
                    nn.init.trunc_normal_(linear.weight, std=0.02)
                    nn.init.zeros_(linear.bias)


_EXPERT = re.compile(r"(.*)\.moe\.deepspeed_moe\.experts\.deepspeed_experts\.(\d+)\.(.*)")
_GATE = re.compile(r"(.*)\.moe\.deepspeed_moe\.gate\.wg\.(.*)")


def canonical_name(name: str, layers: dict[str, ShardedMoE]) -> str:
    """Return the topology-independent name of a parameter: DeepSpeed's local expert index becomes the global one.

    `layers` maps module paths to the sharded layers that `name` may belong to.
    """
    if match := _EXPERT.fullmatch(name):
        layer = layers[match[1]]
        return f"{match[1]}.experts.{layer.global_indices[int(match[2])]}.{match[3]}"
    if match := _GATE.fullmatch(name):
        return f"{match[1]}.gate.{match[2]}"
    return name


def is_expert_name(name: str) -> bool:
    """Return whether a canonical parameter name belongs to an expert."""
    return re.search(r"\.experts\.\d+\.", name) is not None
