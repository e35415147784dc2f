"""One expert made of the several of a layer, for users who want a dense model.

The rule: hidden units of every expert are put in the order in which they match those of the busiest expert best (an
assignment over the weights around them), then the experts are averaged, each weighted by its share of the weights that
the gate gave, and the output is multiplied by the mean over tokens of the sum of their weights. So an expert counts
by the mean of its weight, as in the layer's own mean output: with one expert to a token that is how often and how
surely it was chosen; with two, whose weights add up to 1, nothing remains to multiply by. Weights are measured on
batches of the run's own streams, and so is what the merge costs: the loss before and after.

Sources: Li et al., "Merge, then compress" (ICLR 2024) for averages by frequency of aligned experts; Ainsworth et al.,
"Git Re-Basin" (ICLR 2023) for the matching. Legend: N tokens, D channels, F hidden units, E experts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from timm.layers import Mlp
from torch import Tensor

from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.errors import UsageError
from gfm_pipeline.evaluate.reconstruct import hidden_l1, mean_of_known
from gfm_pipeline.models.moe import LocalMoE
from gfm_pipeline.models.msgfm import MsGFM, SensorImages
from gfm_pipeline.models.routing import choose, place
from gfm_pipeline.viz.reconstruct import TrainedModel


@dataclass(frozen=True)
class Merged:
    """What merging did."""

    layers: int
    experts: int
    batches: int
    loss_before: dict[str, float]
    """By direction of every stream, with experts."""
    loss_after: dict[str, float]
    """By direction of every stream, without."""

    def described(self) -> dict[str, Any]:
        """Return the entry of config.json."""
        rule = "average of experts aligned to the busiest, by share of the gate's weights, times their mean sum"
        return {"rule": rule, **vars(self)}


@dataclass
class GateUse:
    """What the gate of a layer did."""

    weight_E: Tensor
    """Sum of the weights that each expert's output got."""
    tokens: int = 0

    def mean_weight(self) -> float:
        """Return the mean over tokens of the sum of a token's weights."""
        return float(self.weight_E.sum() / self.tokens)


def merge_experts(run: TrainedModel, batches: int) -> tuple[MsGFM, Merged]:
    """Return a dense copy of the run's model, and what it cost; raise UsageError for one that has no experts."""
    layers: dict[str, Any] = dict(run.model.moe_layers())
    if not layers:
        raise UsageError("the model has no experts to merge; leave --dense out.")
    with observed(layers) as uses:
        before = _losses(run, run.model, batches)
    dense = copy.deepcopy(run.model)
    for name, layer in layers.items():
        parent, _, attribute = name.rpartition(".")
        mlp = merge_layer(layer, uses[name].weight_E, uses[name].mean_weight())
        setattr(dense.get_submodule(parent), attribute, mlp)
    after = _losses(run, dense, batches)
    merged = Merged(len(layers), len(next(iter(layers.values())).experts), batches, before, after)
    return dense.eval(), merged


@torch.no_grad()
def merge_layer(layer: Any, weight_E: Tensor, gate_weight: float) -> Mlp:
    """Return the dense MLP of a layer whose experts count in proportion to `weight_E`, times `gate_weight`."""
    share_E = (weight_E / weight_E.sum()).float()
    busiest = layer.experts[int(share_E.argmax())]
    merged: Mlp = copy.deepcopy(busiest)
    totals = {name: torch.zeros_like(value) for name, value in merged.named_parameters()}
    for share, expert in zip(share_E, layer.experts, strict=True):
        order_F = _matching_order(busiest, expert)
        aligned = {
            "fc1.weight": expert.fc1.weight[order_F],
            "fc1.bias": expert.fc1.bias[order_F],
            "fc2.weight": expert.fc2.weight[:, order_F],
            "fc2.bias": expert.fc2.bias,
        }
        for name, total in totals.items():
            total += share * aligned[name]
    for name, value in merged.named_parameters():
        value.copy_(totals[name] * (gate_weight if name.startswith("fc2") else 1.0))
    return merged


def _matching_order(reference: Any, expert: Any) -> Tensor:
    """Return [F] the hidden units of `expert` in the order of those of `reference` that they resemble most."""
    likeness_FF = (
        reference.fc1.weight @ expert.fc1.weight.T
        + reference.fc1.bias[:, None] * expert.fc1.bias
        + reference.fc2.weight.T @ expert.fc2.weight
    )
    _, columns = linear_sum_assignment(likeness_FF.double().cpu().numpy(), maximize=True)
    return torch.from_numpy(columns).to(reference.fc1.weight.device)


@contextmanager
def observed(layers: dict[str, Any]) -> Iterator[dict[str, GateUse]]:
    """Add up, while the block runs, the weights that each layer's gate gives."""
    uses = {name: GateUse(torch.zeros(len(layer.experts), dtype=torch.float64)) for name, layer in layers.items()}

    def note(use: GateUse, layer: LocalMoE, inputs: tuple[Tensor, ...]) -> None:
        tokens_ND = inputs[0].reshape(-1, inputs[0].shape[-1])
        choices = choose(tokens_ND, layer.gate.weight, layer.config, training=False)
        routes = place(choices, len(tokens_ND), padded=False)
        weight_R, expert_R = routes.gate_R.detach().double().cpu(), routes.expert_R.cpu()
        use.weight_E += torch.bincount(expert_R, weight_R, minlength=len(use.weight_E))
        use.tokens += len(tokens_ND)

    hooks = [
        layer.register_forward_pre_hook(lambda module, inputs, use=uses[name]: note(use, module, inputs))
        for name, layer in layers.items()
    ]
    try:
        yield uses
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def _losses(run: TrainedModel, model: MsGFM, batches: int) -> dict[str, float]:
    """Return the L1 loss of every direction over batches that come after those the run has taken."""
    found: dict[str, list[Tensor]] = {}
    mixture = open_mixture(run.config.data)
    with Loader(mixture, run.config.data, run.config.seed, rank=0, world=1, start_step=run.state.step) as loader:
        lanes = (lane for step in loader for lane in step)
        for _ in range(batches):
            for stream, part in next(lanes).streams.items():
                for source, image in part.images.items():
                    (features,) = model.encode([SensorImages(source, image, part.masks[source])])
                    for target, truth in part.images.items():
                        image, valid = model.decode(target, features), part.valid.get(target)
                        loss_B = hidden_l1(image, truth, part.masks[source], valid)
                        there = [row for row in range(len(loss_B)) if row not in part.skipped]
                        found.setdefault(f"{stream}/{source}->{target}", []).append(loss_B[there])
    return {direction: mean_of_known(torch.cat(losses).cpu().numpy()) for direction, losses in found.items()}
