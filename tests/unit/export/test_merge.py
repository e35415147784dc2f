"""Experts made one: the rule, against cases whose answer is known."""

from __future__ import annotations

import torch
from timm.layers import Mlp
from torch import nn

from gfm_pipeline.export.merge import merge_layer


class Layer(nn.Module):
    def __init__(self, experts: list[Mlp]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)


def shuffled(expert: Mlp, seed: int) -> Mlp:
    """Return the same function with its hidden units in another order."""
    order = torch.randperm(expert.fc1.out_features, generator=torch.Generator().manual_seed(seed))
    other = Mlp(expert.fc1.in_features, expert.fc1.out_features)
    with torch.no_grad():
        other.fc1.weight.copy_(expert.fc1.weight[order])
        other.fc1.bias.copy_(expert.fc1.bias[order])
        other.fc2.weight.copy_(expert.fc2.weight[:, order])
        other.fc2.bias.copy_(expert.fc2.bias)
    return other


def test_equal_experts_in_other_orders_merge_to_their_function() -> None:
    torch.manual_seed(0)
    first = Mlp(6, 24)
    layer = Layer([first, shuffled(first, 1), shuffled(first, 2)])
    x = torch.randn(50, 6)
    merged = merge_layer(layer, torch.tensor([5.0, 3.0, 2.0]), gate_weight=0.25)
    torch.testing.assert_close(merged(x), 0.25 * first(x), atol=1e-6, rtol=1e-5)


def test_an_expert_nobody_chose_does_not_count() -> None:
    torch.manual_seed(0)
    used, unused = Mlp(4, 8), Mlp(4, 8)
    x = torch.randn(20, 4)
    merged = merge_layer(Layer([unused, used]), torch.tensor([0.0, 7.0]), gate_weight=1.0)
    torch.testing.assert_close(merged(x), used(x))
