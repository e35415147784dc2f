"""Experts made one: the rule, against cases whose answer is known."""

from __future__ import annotations

import pytest
import torch
from timm.layers import Mlp
from torch import nn

from gfm_pipeline.export.merge import merge_layer, observed
from gfm_pipeline.models.config import MoEConfig
from gfm_pipeline.models.moe import LocalMoE, initialise_moe


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


def moe(top_k: int, num_experts: int = 4) -> LocalMoE:
    layer = LocalMoE(6, 12, MoEConfig(num_experts=num_experts, top_k=top_k))  # type: ignore[arg-type]
    initialise_moe(layer, 0, "layer")
    with torch.no_grad():
        layer.gate.weight.normal_(generator=torch.Generator().manual_seed(0))
    return layer.eval()


def merged(layer: LocalMoE, *passes: torch.Tensor) -> Mlp:
    with observed({"layer": layer}) as uses:
        for tokens in passes:
            layer(tokens)
    return merge_layer(layer, uses["layer"].weight_E, uses["layer"].mean_weight())


@pytest.mark.parametrize("top_k", [1, 2])
def test_an_expert_counts_by_the_mean_of_its_weight(top_k: int) -> None:
    """What the layer multiplies an expert's output by, token by token, on average."""
    layer = moe(top_k)
    passes = [torch.randn(2, 30, 6), torch.randn(40, 6)]
    tokens = torch.cat([part.reshape(-1, 6) for part in passes])
    expected = torch.zeros(4)
    for probs in (tokens @ layer.gate.weight.T).softmax(1):
        best = probs.topk(top_k)
        weights = best.values if top_k == 1 else best.values / best.values.sum()
        expected[best.indices] += weights / len(tokens)
    with observed({"layer": layer}) as uses:
        for part in passes:
            layer(part)
    torch.testing.assert_close((uses["layer"].weight_E / len(tokens)).float(), expected)
    assert uses["layer"].mean_weight() == pytest.approx(float(expected.sum()))
    assert (uses["layer"].mean_weight() == pytest.approx(1.0)) == (top_k == 2)


@pytest.mark.parametrize("top_k", [1, 2])
def test_equal_experts_merge_to_the_layer(top_k: int) -> None:
    """With two experts to a token the weights add up to 1: the layer is its expert, and so is what is merged."""
    layer = moe(top_k)
    for expert in layer.experts:
        expert.load_state_dict(layer.experts[0].state_dict())  # type: ignore[arg-type]
    tokens = torch.randn(200, 6)
    out = merged(layer, tokens)(tokens)
    if top_k == 2:
        torch.testing.assert_close(out, layer(tokens), atol=1e-6, rtol=1e-5)
    weight = (tokens @ layer.gate.weight.T).softmax(1).max(1).values.mean() if top_k == 1 else 1.0
    torch.testing.assert_close(out, weight * layer.experts[0](tokens), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("top_k", [1, 2])
def test_linear_experts_merge_to_the_mean_output_where_the_gate_is_constant(top_k: int) -> None:
    """Experts of one first layer and different second ones: averages of weights are averages of outputs."""
    layer = moe(top_k, num_experts=2)
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(layer.experts[1].fc1, name).copy_(getattr(layer.experts[0].fc1, name))
        layer.experts[1].fc2.weight.copy_(layer.experts[0].fc2.weight * 1.1)
        layer.gate.weight.zero_()
        layer.gate.weight[0, 0] = 1.0
    tokens = torch.randn(100, 6)
    tokens[:, 0] = 0.5
    torch.testing.assert_close(merged(layer, tokens)(tokens), layer(tokens), atol=1e-6, rtol=1e-5)
