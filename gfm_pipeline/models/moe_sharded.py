"""DeepSpeed's MoE layer with the way through it replaced.

The engine finds experts by `isinstance(module, deepspeed.moe.layer.MoE)` and by attributes of their parameters, so
the layer is a subclass that keeps DeepSpeed's modules and names. What passes through is ours: shapes that depend on
the number of tokens alone (DeepSpeed fetches the capacity from the device in every pass), matrix products for many
experts at once, gathers instead of padded copies. With equal seeds it routes as DeepSpeed does.

The class is made on first use: DeepSpeed must not load with this module.

Legend: N tokens, D channels, E experts, L experts of this rank, C slots of an expert, P ranks that share the experts.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from timm.layers import Mlp
from torch import Tensor, nn

from gfm_pipeline.models.experts import GroupedExperts, PaddedExperts
from gfm_pipeline.models.routing import Routing, aux_loss, capacity, choose, combine, dispatch, place

if TYPE_CHECKING:
    from gfm_pipeline.models.config import MoEConfig


class Exchange(nn.Module):
    """The all-to-all between ranks that share a layer's experts; its own inverse."""

    def forward(self, slots_ECD: Tensor, group: Any) -> Tensor:
        """Send block p of the first dimension to rank p of `group`; return what all of them sent here."""
        from deepspeed.moe.sharded_moe import _AllToAll

        received: Tensor = _AllToAll.apply(group, slots_ECD)
        return received


@cache
def sharded_layer() -> type[nn.Module]:
    """Return the subclass of `deepspeed.moe.layer.MoE`."""
    from deepspeed.moe.layer import MoE

    class ShardedLayer(MoE):  # type: ignore[misc]
        """`ep_size` ranks each hold an equal share of a layer's experts."""

        def __init__(self, dim: int, hidden: int, config: MoEConfig, ep_size: int) -> None:
            super().__init__(
                hidden_size=dim,
                expert=Mlp(dim, hidden),
                num_experts=config.num_experts,
                ep_size=ep_size,
                k=config.top_k,
                capacity_factor=config.capacity_factor,
                eval_capacity_factor=config.capacity_factor,
                min_capacity=config.min_capacity,
                use_rts=config.selection == "random",
            )
            self.config = config
            self.exchange = Exchange()
            self.grouped = GroupedExperts()
            self.padded = PaddedExperts()

        def forward(self, tokens_ND: Tensor) -> tuple[Tensor, Routing]:
            """Return [N,D] and what the gate did; a token without a slot comes back as zeros."""
            config, moe = self.config, self.deepspeed_moe
            choices = choose(tokens_ND, moe.gate.wg.weight, config, self.training)
            num_slots = capacity(len(tokens_ND), config)
            grouped = self._is_grouped(tokens_ND)
            routes = place(choices, num_slots, padded=not grouped)
            rows_SD = dispatch(tokens_ND, routes)
            experts = list(moe.experts.deepspeed_experts)
            if grouped:
                rows_SD = self.grouped(rows_SD, experts, routes.count_E, num_slots)
            else:
                rows_SD = self._padded(rows_SD.view(config.num_experts, num_slots, -1), experts).flatten(0, 1)
            routing = Routing(
                aux_loss(choices, config.aux_loss), routes.expert_R, routes.kept_R, config.num_experts, config.top_k
            )
            return combine(rows_SD, routes), routing

        def _is_grouped(self, tokens_ND: Tensor) -> bool:
            if self.config.compute == "auto":
                return self.ep_size == 1 and not tokens_ND.is_cuda
            return self.config.compute == "grouped"

        def _padded(self, slots_ECD: Tensor, experts: list[Mlp]) -> Tensor:
            if self.ep_size == 1:
                out_ECD: Tensor = self.padded(slots_ECD, experts)
                return out_ECD
            group = self.deepspeed_moe.ep_group
            num_slots, dim = slots_ECD.shape[1:]
            slots_PLCD = self.exchange(slots_ECD, group).view(self.ep_size, -1, num_slots, dim)
            out_LXD = self.padded(slots_PLCD.transpose(0, 1).reshape(-1, self.ep_size * num_slots, dim), experts)
            out_PLCD = out_LXD.view(-1, self.ep_size, num_slots, dim).transpose(0, 1)
            returned_ECD: Tensor = self.exchange(out_PLCD.reshape(-1, num_slots, dim), group)
            return returned_ECD

    return ShardedLayer


def deepspeeds_layer(dim: int, hidden: int, config: MoEConfig, ep_size: int) -> Any:
    """Return DeepSpeed's own layer with the settings that it knows: what ours is tested and measured against."""
    from deepspeed.moe.layer import MoE

    return MoE(
        dim,
        Mlp(dim, hidden),
        config.num_experts,
        ep_size,
        k=config.top_k,
        capacity_factor=config.capacity_factor,
        eval_capacity_factor=config.capacity_factor,
        min_capacity=config.min_capacity,
        noisy_gate_policy={"jitter": "Jitter", "rsample": "RSample"}.get(config.noise),
        use_rts=config.selection == "random",
        top2_2nd_expert_sampling=False,
    )
