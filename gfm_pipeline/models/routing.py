"""Which expert a token goes to, which tokens an expert has room for, and the way there and back.

Nothing here has parameters or knows of processes. All shapes follow from the number of tokens and the configuration,
so no value has to come from the device before the next kernel can start. Tokens move by gathers in both directions,
forward and backward: a scatter-add would make the gradients of a GPU depend on timing.

Legend: N tokens, D channels, E experts, k choices of a token, C slots of an expert. R = k * N routes, choice-major:
route r is choice r // N of token r % N. S rows of the buffer that experts work on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from gfm_pipeline.models.config import MoEConfig


JITTER = 1e-2
"""Half-width of the factors of `noise: jitter` around 1, that of Switch Transformers and DeepSpeed."""

Selection = Literal["random", "first", "priority"]


@dataclass(frozen=True)
class Routing:
    """What the gate of one layer did in the last forward pass, over the tokens of this rank."""

    aux_loss: Tensor
    """A scalar; of the load-balance form it is 1 for a perfectly even load, of the importance forms 0."""
    expert_R: Tensor
    """The expert each route chose."""
    kept_R: Tensor
    """Whether the expert had room."""
    num_experts: int
    num_choices: int

    @property
    def counts_E(self) -> Tensor:
        """Routes that chose each expert, before any were dropped."""
        return self.tally(torch.zeros(1, dtype=torch.long, device=self.expert_R.device), 1)[0, :-1]

    @property
    def num_dropped(self) -> Tensor:
        """Routes beyond an expert's capacity."""
        return (~self.kept_R).sum()

    def tally(self, owner_B: Tensor, num_owners: int) -> Tensor:
        """Return [owners, E + 1]: the routes of an owner's images that chose each expert, then those dropped.

        `owner_B` says whom each image of the pass belongs to; all images have equally many tokens.
        """
        owner_N = owner_B.repeat_interleave(self.expert_R.numel() // self.num_choices // len(owner_B))
        owner_R = owner_N.repeat(self.num_choices)
        columns = self.num_experts + 1
        table = torch.zeros(num_owners * columns, dtype=torch.long, device=owner_B.device)
        table.scatter_add_(0, owner_R * columns + self.expert_R, torch.ones_like(self.expert_R))
        table.scatter_add_(0, owner_R * columns + self.num_experts, (~self.kept_R).long())
        return table.view(num_owners, columns)


@dataclass(frozen=True)
class Choices:
    """The gate's decision: which experts, with what weight, and who comes first where there is too little room."""

    probs_NE: Tensor
    """Softmax of the logits without noise, fp32."""
    expert_kN: Tensor
    """Experts by choice."""
    prob_kN: Tensor
    """Their probabilities."""
    score_kN: Tensor | None
    """In 0..1, the highest first; None: the first in the batch come first."""
    chance_NE: Tensor | None = None
    """For the load: the probability that an expert is among the chosen when its noise alone is drawn again."""


def choose(tokens_ND: Tensor, weight_ED: Tensor, config: MoEConfig, training: bool) -> Choices:
    """Return what the gate decides, in fp32 whatever the tokens' type and under autocast too.

    Noise and random selection draw from torch's generator what DeepSpeed's gate draws, so equal seeds give equal
    routes. Noise acts in training only. Sources: Fedus et al., "Switch Transformers" (2021), jitter; DeepSpeed's
    RSample, Gumbel noise on the choice; Riquelme et al., "Scaling vision with sparse mixture of experts" (2021),
    gaussian noise of deviation 1 / E and batch-prioritised routing.
    """
    noise = config.noise if training else "none"
    with torch.autocast(tokens_ND.device.type, enabled=False):
        tokens_ND = tokens_ND.float()
        if noise == "jitter":
            tokens_ND = tokens_ND * (1 - JITTER + 2 * JITTER * torch.rand_like(tokens_ND))
        logits_NE = F.linear(tokens_ND, weight_ED.float())
        probs_NE = logits_NE.softmax(dim=1)
        noisy_NE, weights_NE, gate_NE = probs_NE, probs_NE, logits_NE
        if noise == "rsample":
            noisy_NE = logits_NE + _gumbel_like(logits_NE)
        elif noise == "gaussian":
            gate_NE = logits_NE + torch.randn_like(logits_NE) / logits_NE.shape[1]
            weights_NE = gate_NE.softmax(dim=1)
            noisy_NE = weights_NE
        expert_Nk = noisy_NE.topk(config.top_k, dim=1).indices if config.top_k > 1 else noisy_NE.argmax(1, keepdim=True)
        prob_Nk = weights_NE.gather(1, expert_Nk)
        score_Nk = None
        if config.selection == "random":
            score_Nk = torch.rand_like(probs_NE).gather(1, expert_Nk)
        elif config.selection == "priority":
            score_Nk = prob_Nk[:, :1].detach().expand(-1, config.top_k)
        chance_NE = None
        if config.aux_loss == "importance_load":
            threshold_N1 = gate_NE.gather(1, expert_Nk[:, -1:])
            chance_NE = torch.special.ndtr((logits_NE - threshold_N1) * logits_NE.shape[1])
    score_kN = None if score_Nk is None else score_Nk.t()
    return Choices(probs_NE, expert_Nk.t().contiguous(), prob_Nk.t(), score_kN, chance_NE)


def aux_loss(choices: Choices, form: Literal["load_balance", "importance", "importance_load"]) -> Tensor:
    """Return the loss that spreads tokens over experts.

    load_balance (GShard, Switch): E times the sum over experts of mean probability and share of first choices.
    importance (Shazeer et al., "Outrageously large neural networks", 2017; V-MoE): squared coefficient of variation
    of the experts' summed probabilities. importance_load (Riquelme et al., 2021, appendix A): the mean of that and of
    the same of their load, the summed chances of being chosen.
    """
    probs_NE = choices.probs_NE
    if form == "importance":
        return _variation(probs_NE.sum(0))
    if form == "importance_load":
        assert choices.chance_NE is not None
        return (_variation(probs_NE.sum(0)) + _variation(choices.chance_NE.sum(0))) / 2
    num_experts = probs_NE.shape[1]
    share_E = F.one_hot(choices.expert_kN[0], num_experts).float().mean(0)
    return (probs_NE.mean(0) * share_E).sum() * num_experts


def _variation(x_E: Tensor) -> Tensor:
    return x_E.var(correction=0) / x_E.mean() ** 2


def capacity(num_tokens: int, config: MoEConfig) -> int:
    """Return the slots of an expert for a pass of `num_tokens` on this rank."""
    # Rounded first: 10 * 1.1 is a little more than 11 in binary, and would get a twelfth slot.
    slots = math.ceil(round(num_tokens / config.num_experts * config.capacity_factor * config.top_k, 4))
    return min(max(slots, config.min_capacity), num_tokens)


@dataclass(frozen=True)
class Routes:
    """Where each route's token lies in the experts' buffer of S rows, and back."""

    gate_R: Tensor
    """Weight of the route in its token's output, fp32; 0 where it was dropped."""
    expert_R: Tensor
    kept_R: Tensor
    row_R: Tensor
    """Row of the route; any valid row where it was dropped."""
    token_S: Tensor
    """Token that a row holds; any valid one where the row is empty."""
    gate_S: Tensor
    """Weight of the route that a row holds, detached; 0 where the row is empty or its route was dropped."""
    count_E: Tensor
    """Routes that chose each expert."""
    num_tokens: int


def place(choices: Choices, num_slots: int, padded: bool) -> Routes:
    """Return where the routes go when every expert takes `num_slots` of them.

    padded: expert e owns rows e * C to e * C + C - 1, empty ones included. Otherwise rows are the R routes sorted by
    expert, those without a slot last among an expert's.
    """
    num_choices, num_tokens = choices.expert_kN.shape
    num_experts = choices.probs_NE.shape[1]
    expert_R = choices.expert_kN.reshape(-1)
    order_R = _order(choices)
    routes_R = torch.arange(len(expert_R), device=expert_R.device)
    bounds = torch.searchsorted(expert_R[order_R], torch.arange(num_experts + 1, device=expert_R.device))
    start_E, count_E = bounds[:-1], bounds.diff()
    place_R = torch.empty_like(order_R).scatter_(0, order_R, routes_R)
    rank_R = place_R - start_E[expert_R]
    kept_R = rank_R < num_slots
    gate_R = _weights(choices.prob_kN, kept_R.view(num_choices, num_tokens)).reshape(-1)
    if padded:
        slot_C = torch.arange(num_slots, device=expert_R.device)
        used_S = (slot_C < count_E[:, None]).reshape(-1)
        route_S = order_R[(start_E[:, None] + slot_C).clamp(max=len(expert_R) - 1).reshape(-1)]
        row_R = expert_R * num_slots + rank_R.clamp(max=num_slots - 1)
    else:
        route_S, row_R = order_R, place_R
        used_S = kept_R[order_R]
    gate_S = gate_R.detach()[route_S] * used_S
    return Routes(gate_R, expert_R, kept_R, row_R, route_S % num_tokens, gate_S, count_E, num_tokens)


def dispatch(tokens_ND: Tensor, routes: Routes) -> Tensor:
    """Return the experts' buffer [S,D]; empty rows hold copies of tokens, whose results nobody reads."""
    rows_SD: Tensor = _Dispatch.apply(tokens_ND, routes.token_S, routes.row_R, routes.kept_R)
    return rows_SD


def combine(rows_SD: Tensor, routes: Routes) -> Tensor:
    """Return [N,D]: the sum over a token's choices of weight times expert output, summed in fp32."""
    out_ND: Tensor = _Combine.apply(
        rows_SD, routes.gate_R, routes.row_R, routes.token_S, routes.gate_S, routes.num_tokens
    )
    return out_ND


def _order(choices: Choices) -> Tensor:
    """Return the routes sorted by expert, then choice, then score (highest first), then place in the batch."""
    expert_R = choices.expert_kN.reshape(-1)
    if choices.score_kN is None:
        return expert_R.argsort(stable=True)
    # One sort: the fraction of the key ranks the routes of an expert. float64 keeps every bit of the scores.
    num_choices = len(choices.expert_kN)
    choice_k1 = torch.arange(num_choices, device=expert_R.device)[:, None]
    fraction_kN = (choice_k1 + 1 - choices.score_kN.double()) / num_choices
    return (choices.expert_kN + fraction_kN).reshape(-1).argsort(stable=True)


def _weights(prob_kN: Tensor, kept_kN: Tensor) -> Tensor:
    weight_kN = prob_kN * kept_kN
    if len(prob_kN) == 1:
        return weight_kN
    return weight_kN / weight_kN.sum(0).clamp(min=torch.finfo(weight_kN.dtype).eps)


def _gumbel_like(x: Tensor) -> Tensor:
    tiny, eps = torch.finfo(x.dtype).tiny, torch.finfo(x.dtype).eps
    uniform = torch.rand_like(x) * (1 - eps - tiny) + tiny
    return -(-uniform.log()).log()


class _Dispatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens_ND: Tensor, token_S: Tensor, row_R: Tensor, kept_R: Tensor) -> Tensor:
        ctx.save_for_backward(row_R, kept_R)
        ctx.num_tokens = len(tokens_ND)
        return tokens_ND.index_select(0, token_S)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        row_R, kept_R = ctx.saved_tensors
        grad_RD = grads[0].index_select(0, row_R).mul_(kept_R[:, None])
        return _sum_choices(grad_RD, ctx.num_tokens), None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows_SD: Tensor, gate_R: Tensor, row_R: Tensor, token_S: Tensor, gate_S: Tensor, num_tokens: int
    ) -> Tensor:
        ctx.save_for_backward(rows_SD, row_R, token_S, gate_S)
        return _sum_choices(rows_SD.index_select(0, row_R) * gate_R[:, None], num_tokens).to(rows_SD.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows_SD, row_R, token_S, gate_S = ctx.saved_tensors
        grad_ND = grads[0]
        grad_rows_SD = (grad_ND.index_select(0, token_S) * gate_S[:, None]).to(rows_SD.dtype)
        outputs_kND = rows_SD.index_select(0, row_R).view(-1, *grad_ND.shape)
        grad_gate_R = (outputs_kND * grad_ND).sum(-1, dtype=gate_S.dtype).reshape(-1)
        return grad_rows_SD, grad_gate_R, None, None, None, None


def _sum_choices(x_RD: Tensor, num_tokens: int) -> Tensor:
    return x_RD if len(x_RD) == num_tokens else x_RD.view(-1, num_tokens, x_RD.shape[1]).sum(0)
