"""Routing without experts: who is kept, where rows lie, what the losses say."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm_pipeline.models.config import MoEConfig
from gfm_pipeline.models.routing import Choices, aux_loss, capacity, choose, combine, dispatch, place

SELECTIONS = ("random", "first", "priority")


def decide(num_tokens: int, seed: int, config: MoEConfig, dim: int = 6) -> tuple[torch.Tensor, Choices]:
    torch.manual_seed(seed)
    tokens = torch.randn(num_tokens, dim)
    return tokens, choose(tokens, torch.randn(config.num_experts, dim), config, training=True)


@settings(max_examples=150, deadline=None)
@given(
    num_tokens=st.integers(1, 60),
    num_experts=st.integers(2, 7),
    top_k=st.sampled_from([1, 2]),
    selection=st.sampled_from(SELECTIONS),
    factor=st.sampled_from([0.3, 1.0, 1.25, 4.0]),
    padded=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_expert_keeps_the_right_routes_in_rows_of_its_own(
    num_tokens: int, num_experts: int, top_k: int, selection: str, factor: float, padded: bool, seed: int
) -> None:
    config = MoEConfig(
        num_experts=num_experts,
        top_k=top_k,
        selection=selection,
        capacity_factor=factor,
        min_capacity=0,  # type: ignore[arg-type]
    )
    tokens, choices = decide(num_tokens, seed, config)
    slots = capacity(num_tokens, config)
    routes = place(choices, slots, padded)
    # An independent account, expert by expert.
    flat = choices.expert_kN.reshape(-1).tolist()
    scores = None if choices.score_kN is None else choices.score_kN.reshape(-1).tolist()
    for expert in range(num_experts):
        wanting = [route for route, chosen in enumerate(flat) if chosen == expert]
        wanting.sort(key=lambda route: (route // num_tokens, 0 if scores is None else -scores[route], route))
        assert [route for route in wanting if routes.kept_R[route]] == sorted(wanting[:slots], key=wanting.index)
        assert int(routes.count_E[expert]) == len(wanting)
    kept = torch.nonzero(routes.kept_R).flatten()
    rows = routes.row_R[kept]
    assert len(set(rows.tolist())) == len(kept)
    assert torch.equal(routes.token_S[rows], kept % num_tokens)
    assert torch.equal(routes.gate_S[rows], routes.gate_R.detach()[kept])
    assert int((routes.gate_S != 0).sum()) <= len(kept)
    if padded:
        assert torch.equal(rows // slots, choices.expert_kN.reshape(-1)[kept])
    buffer = dispatch(tokens, routes)
    assert torch.equal(buffer[rows], tokens[kept % num_tokens])
    expected = torch.zeros_like(tokens)
    for route in kept.tolist():
        expected[route % num_tokens] += tokens[route % num_tokens] * routes.gate_R[route].detach()
    torch.testing.assert_close(combine(buffer, routes), expected)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("top_k", [1, 2])
def test_gradients_there_and_back_are_right(top_k: int, padded: bool) -> None:
    config = MoEConfig(num_experts=3, top_k=top_k, capacity_factor=0.7, min_capacity=0)  # type: ignore[arg-type]
    tokens, choices = decide(14, 0, config)
    tokens, weight = tokens.double(), torch.randn(14, 6).double()

    def through(x: torch.Tensor, prob_kN: torch.Tensor) -> torch.Tensor:
        changed = Choices(choices.probs_NE, choices.expert_kN, prob_kN, choices.score_kN)
        routes = place(changed, capacity(14, config), padded)
        return combine(dispatch(x, routes).sin(), routes) * weight

    inputs = (tokens.requires_grad_(), choices.prob_kN.detach().double().requires_grad_())
    assert torch.autograd.gradcheck(through, inputs)


def test_a_token_with_two_experts_weighs_them_to_one() -> None:
    config = MoEConfig(num_experts=4, top_k=2, capacity_factor=4.0)
    _, choices = decide(30, 1, config)
    routes = place(choices, capacity(30, config), padded=False)
    torch.testing.assert_close(routes.gate_R.view(2, 30).sum(0), torch.ones(30))
    assert (choices.expert_kN[0] != choices.expert_kN[1]).all()


@pytest.mark.parametrize(
    ("tokens", "experts", "factor", "top_k", "slots"),
    [
        (80, 8, 1.0, 1, 10),
        (80, 8, 1.1, 1, 11),
        (81, 8, 1.0, 1, 11),
        (100, 8, 1.25, 2, 32),
        (8, 8, 1.0, 1, 4),
        (2, 8, 1.0, 1, 2),
    ],
)
def test_capacity(tokens: int, experts: int, factor: float, top_k: int, slots: int) -> None:
    config = MoEConfig(num_experts=experts, capacity_factor=factor, top_k=top_k)  # type: ignore[arg-type]
    assert capacity(tokens, config) == slots


def test_capacity_is_deepspeeds() -> None:
    from deepspeed.moe.sharded_moe import _capacity

    for num_tokens in range(1, 400, 7):
        for num_experts in (2, 3, 8):
            for factor in (1.0, 1.1, 1.25, 1.3, 2.0):
                config = MoEConfig(num_experts=num_experts, capacity_factor=factor, min_capacity=0)
                theirs = int(_capacity(torch.zeros(num_tokens, num_experts), torch.tensor(factor), torch.tensor(0)))
                assert capacity(num_tokens, config) == min(theirs, num_tokens)


def test_losses_against_their_formulas() -> None:
    config = MoEConfig(num_experts=5)
    _, choices = decide(40, 2, config)
    probs, first = choices.probs_NE.tolist(), choices.expert_kN[0].tolist()
    balance = sum(sum(row[e] for row in probs) / 40 * first.count(e) / 40 for e in range(5))
    assert aux_loss(choices, "load_balance").item() == pytest.approx(5 * balance, rel=1e-5)
    importance = [sum(row[e] for row in probs) for e in range(5)]
    mean = sum(importance) / 5
    variation = math.sqrt(sum((value - mean) ** 2 for value in importance) / 5) / mean
    assert aux_loss(choices, "importance").item() == pytest.approx(variation**2, rel=1e-4)


@pytest.mark.parametrize("noise", ["jitter", "rsample", "gaussian"])
def test_noise_acts_in_training_alone(noise: str) -> None:
    config = MoEConfig(num_experts=6, noise=noise, selection="first")  # type: ignore[arg-type]
    tokens, weight = torch.randn(200, 8), torch.randn(6, 8) * 0.3
    quiet = choose(tokens, weight, MoEConfig(num_experts=6, selection="first"), training=True)
    evaluated = choose(tokens, weight, config, training=False)
    assert torch.equal(evaluated.expert_kN, quiet.expert_kN)
    trained = choose(tokens, weight, config, training=True)
    changed = int((trained.expert_kN != quiet.expert_kN).sum())
    assert 0 < changed < 190
    assert int((choose(tokens, weight, config, training=True).expert_kN != trained.expert_kN).sum()) > 0
    if noise != "jitter":
        assert torch.equal(trained.probs_NE, quiet.probs_NE)


def test_the_gate_decides_in_fp32_under_autocast() -> None:
    tokens, weight = torch.randn(64, 32), torch.randn(8, 32)
    config = MoEConfig(selection="first")
    plain = choose(tokens, weight, config, training=False)
    with torch.autocast("cpu", torch.bfloat16):
        cast = choose(tokens, weight, config, training=False)
    assert torch.equal(plain.probs_NE, cast.probs_NE)


def test_priority_keeps_the_tokens_the_gate_is_surest_of() -> None:
    config = MoEConfig(num_experts=2, selection="priority", capacity_factor=0.5, min_capacity=0)
    _, choices = decide(40, 3, config)
    routes = place(choices, capacity(40, config), padded=True)
    for expert in range(2):
        mine = choices.expert_kN[0] == expert
        kept, dropped = choices.prob_kN[0][mine & routes.kept_R], choices.prob_kN[0][mine & ~routes.kept_R]
        assert len(kept) == 10
        assert len(dropped) == 0 or kept.min() >= dropped.max()


def test_a_tally_tells_owners_apart() -> None:
    from gfm_pipeline.models.routing import Routing

    expert = torch.tensor([0, 0, 1, 2, 2, 2, 1, 1])  # 4 images of 2 tokens
    kept = torch.tensor([True, False, True, True, True, False, True, True])
    routing = Routing(torch.zeros(()), expert, kept, num_experts=3, num_choices=1)
    table = routing.tally(torch.tensor([1, 0, 0, 1]), 3)
    assert table.tolist() == [[0, 1, 3, 1], [2, 2, 0, 1], [0, 0, 0, 0]]
    assert routing.counts_E.tolist() == [2, 3, 3]
    assert int(routing.num_dropped) == 2


@pytest.mark.parametrize("top_k", [1, 2])
def test_importance_and_load_are_those_of_v_moe(top_k: int) -> None:
    """Riquelme et al., appendix A, token by token: the chance that an expert is chosen when its noise is drawn anew."""
    config = MoEConfig(num_experts=5, top_k=top_k, noise="gaussian", aux_loss="importance_load")
    torch.manual_seed(0)
    tokens, weight = torch.randn(40, 6), torch.randn(5, 6, requires_grad=True)
    torch.manual_seed(1)
    choices = choose(tokens, weight, config, training=True)
    torch.manual_seed(1)
    logits = tokens @ weight.detach().T
    noisy = logits + torch.randn(40, 5) / 5
    load, importance = [0.0] * 5, [0.0] * 5
    for clean, disturbed, chosen in zip(logits.tolist(), noisy.tolist(), choices.expert_kN.T.tolist(), strict=True):
        threshold = sorted(disturbed)[-top_k]
        assert sorted(chosen) == sorted(e for e in range(5) if disturbed[e] >= threshold)
        total = sum(math.exp(value) for value in clean)
        for expert, value in enumerate(clean):
            importance[expert] += math.exp(value) / total
            load[expert] += 0.5 * (1 + math.erf((value - threshold) * 5 / math.sqrt(2)))
    expected = 0.0
    for sums in (importance, load):
        mean = sum(sums) / 5
        expected += sum((value - mean) ** 2 for value in sums) / 5 / mean**2 / 2
    loss = aux_loss(choices, "importance_load")
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert weight.grad is not None
    assert bool(weight.grad.abs().sum() > 0)


def test_the_load_falls_when_it_is_followed_downhill() -> None:
    config = MoEConfig(num_experts=4, noise="gaussian", aux_loss="importance_load")
    torch.manual_seed(0)
    tokens = torch.randn(200, 6) + 1
    weight = (torch.randn(4, 6) * 0.5).requires_grad_()
    first = None
    for _ in range(60):
        choices = choose(tokens, weight, config, training=True)
        loss = aux_loss(choices, config.aux_loss)
        first = first or loss.item()
        (gradient,) = torch.autograd.grad(loss, weight)
        weight = (weight - 0.3 * gradient).detach().requires_grad_()
    counts = torch.bincount(choices.expert_kN[0], minlength=4)
    assert loss.item() < first / 5
    assert counts.min() > 25


def test_a_load_without_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="set noise to gaussian, or aux_loss to importance"):
        MoEConfig(aux_loss="importance_load")
