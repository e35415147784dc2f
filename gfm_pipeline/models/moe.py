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
from typing import TYPE_CHECKING, Any

from timm.layers import Mlp
from torch import Tensor, nn

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.models.experts import GroupedExperts
from gfm_pipeline.models.moe_sharded import sharded_layer
from gfm_pipeline.models.routing import Routing, aux_loss, choose, combine, dispatch, place
from gfm_pipeline.models.seeding import seeded

if TYPE_CHECKING:
    from gfm_pipeline.models.config import MoEConfig


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


class LocalMoE(nn.Module):
    """All experts of a layer in one process; every token reaches its experts (no capacity)."""

    def __init__(self, dim: int, hidden: int, config: MoEConfig) -> None:
        super().__init__()
        # With room for all, nobody has to be selected: no random numbers are drawn for it.
        self.config = config.model_copy(update={"selection": "first"})
        self.gate = nn.Linear(dim, config.num_experts, bias=False)
        self.experts = nn.ModuleList(Mlp(dim, hidden) for _ in range(config.num_experts))
        self.grouped = GroupedExperts()
        self.routing: Routing | None = None

    def local_experts(self) -> Iterator[tuple[int, nn.Module]]:
        """Yield (global index, expert) for each expert, all of which are here."""
        yield from enumerate(self.experts)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..,D] for tokens [..,D]: gate probability times the output of the chosen expert."""
        tokens_ND = x.reshape(-1, x.shape[-1])
        choices = choose(tokens_ND, self.gate.weight, self.config, self.training)
        num_slots = len(tokens_ND)
        routes = place(choices, num_slots, padded=False)
        rows_SD = self.grouped(dispatch(tokens_ND, routes), self.experts, routes.count_E, num_slots)
        loss = aux_loss(choices, self.config.aux_loss)
        self.routing = Routing(loss, routes.expert_R, routes.kept_R, self.config.num_experts, self.config.top_k)
        return combine(rows_SD, routes).reshape(x.shape)


class ShardedMoE(nn.Module):
    """This rank's share of a layer's experts inside DeepSpeed's MoE layer."""

    def __init__(self, dim: int, hidden: int, config: MoEConfig, placement: ExpertPlacement) -> None:
        super().__init__()
        if config.compute == "grouped" and placement.size > 1:
            raise ConfigError(
                f"model.moe.compute 'grouped' needs all experts on one rank, engine.ep_size is {placement.size}: what "
                "ranks exchange is padded. Set model.moe.compute to auto or padded, or engine.ep_size to 1."
            )
        self.global_indices = placement.global_indices(config.num_experts)
        self.moe: Any = sharded_layer()(dim, hidden, config, placement.size)
        self.routing: Routing | None = None

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
        out_ND, self.routing = self.moe(x.reshape(-1, x.shape[-1]))
        out: Tensor = out_ND.reshape(x.shape)
        return out


MoELayer = LocalMoE | ShardedMoE


def build_moe(dim: int, hidden: int, config: MoEConfig, placement: ExpertPlacement | None) -> MoELayer:
    """Return a layer with all experts here (`placement` None) or with this rank's share of them."""
    if placement is None:
        return LocalMoE(dim, hidden, config)
    return ShardedMoE(dim, hidden, config, placement)


def initialise_moe(layer: MoELayer, seed: int, name: str) -> None:
    """Draw the gate and each expert from generators of their own, keyed by `name` and the global expert index.

    DeepSpeed copies one expert to all places, which leaves nothing for the gate to choose between.
    """
    with seeded(seed, name, "gate"):
        nn.init.trunc_normal_(layer.gate.weight, std=0.02)
    for index, expert in layer.local_experts():
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
