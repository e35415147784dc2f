"""The one-process form of the experts against DeepSpeed's layer, and the names both go by."""

import os
from pathlib import Path

import pytest
import torch
from timm.layers import Mlp

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.models.config import MoEConfig
from gfm_pipeline.models.moe import (
    ExpertPlacement,
    LocalMoE,
    ShardedMoE,
    canonical_name,
    initialise_moe,
    is_expert_name,
)
from tests.ranks import CONTEXT

DIM, HIDDEN, EXPERTS = 8, 16, 4


def sharded(capacity_factor: float = 1.25, size: int = 1, rank: int = 0) -> ShardedMoE:
    config = MoEConfig(num_experts=EXPERTS, capacity_factor=capacity_factor, selection="first")
    layer = ShardedMoE(DIM, HIDDEN, config, ExpertPlacement(size, rank))
    initialise_moe(layer, 0, "layer")
    return layer


def local() -> LocalMoE:
    layer = LocalMoE(DIM, HIDDEN, MoEConfig(num_experts=EXPERTS))
    initialise_moe(layer, 0, "layer")
    return layer


def deepspeeds(ours: ShardedMoE, **options: object) -> torch.nn.Module:
    """DeepSpeed's own layer with the weights of ours."""
    from deepspeed.moe.layer import MoE

    layer = MoE(DIM, Mlp(DIM, HIDDEN), EXPERTS, ep_size=ours.moe.ep_size, **options)
    layer.load_state_dict(ours.moe.state_dict())
    layer.set_deepspeed_parallelism()
    return layer


def compare_with_deepspeed(settings: dict[str, object], options: dict[str, object], ep_size: int, rank: int) -> None:
    """Outputs, routes' statistics and every gradient, over tokens that differ between ranks."""
    config = MoEConfig(num_experts=EXPERTS, **settings)  # type: ignore[arg-type]
    ours = ShardedMoE(DIM, HIDDEN, config, ExpertPlacement(ep_size, rank))
    initialise_moe(ours, 0, "layer")
    ours.moe.set_deepspeed_parallelism()
    theirs = deepspeeds(ours, **options)
    with torch.no_grad():
        for gate in (ours.gate, theirs.deepspeed_moe.gate.wg):
            gate.weight.mul_(20)  # uneven, so that some experts overflow
    generator = torch.Generator().manual_seed(rank)
    left = (torch.randn(6, 20, DIM, generator=generator) + 1).requires_grad_()
    right = left.detach().clone().requires_grad_()
    torch.manual_seed(7 + rank)
    out_left = ours(left)
    torch.manual_seed(7 + rank)
    out_right, loss_right, counts = theirs(right)
    assert ours.routing is not None
    assert torch.equal(ours.routing.counts_E, counts)
    assert int(ours.routing.num_dropped) > 0
    close = {"atol": 1e-6, "rtol": 1e-6}
    torch.testing.assert_close(out_left, out_right, **close)
    torch.testing.assert_close(ours.routing.aux_loss, loss_right, **close)
    (out_left.square().mean() + 0.01 * ours.routing.aux_loss).backward()
    (out_right.square().mean() + 0.01 * loss_right).backward()
    torch.testing.assert_close(left.grad, right.grad, **close)
    theirs_by_name = dict(theirs.named_parameters())
    for name, parameter in ours.moe.named_parameters():
        other = theirs_by_name[name]
        assert parameter.grad is not None, name
        torch.testing.assert_close(
            parameter.grad, torch.zeros_like(other) if other.grad is None else other.grad, **close
        )
        for mark in ("allreduce", "group_name"):
            assert getattr(parameter, mark, None) == getattr(other, mark, None)


COMPATIBLE = [
    ({}, {"k": 1, "capacity_factor": 1.25}),
    ({"compute": "padded"}, {"k": 1, "capacity_factor": 1.25}),
    ({"capacity_factor": 1.1, "noise": "rsample"}, {"k": 1, "capacity_factor": 1.1, "noisy_gate_policy": "RSample"}),
    (
        {"noise": "jitter", "min_capacity": 45},
        {"k": 1, "capacity_factor": 1.25, "noisy_gate_policy": "Jitter", "min_capacity": 45},
    ),
    (
        {"top_k": 2, "selection": "first", "capacity_factor": 0.8},
        {"k": 2, "capacity_factor": 0.8, "top2_2nd_expert_sampling": False},
    ),
]


@pytest.mark.parametrize(("settings", "options"), COMPATIBLE)
def test_layer_equals_deepspeeds_with_tokens_dropped(
    settings: dict[str, object], options: dict[str, object], lone_group: None
) -> None:
    compare_with_deepspeed(settings, options, 1, 0)


def on_a_rank(rank: int, folder: str) -> None:
    import deepspeed

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    deepspeed.init_distributed(
        "gloo",
        auto_mpi_discovery=False,
        verbose=False,
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=2,
    )
    for settings, options in COMPATIBLE:
        compare_with_deepspeed(settings, options, 2, rank)
    torch.distributed.destroy_process_group()


def test_layer_equals_deepspeeds_over_two_ranks(tmp_path: Path) -> None:
    # Forked from the server of `tests.ranks`, which has imported what takes them ten seconds.
    method = CONTEXT.get_start_method()
    torch.multiprocessing.start_processes(on_a_rank, (str(tmp_path),), nprocs=2, start_method=method)


@pytest.mark.parametrize("selection", ["random", "first", "priority"])
@pytest.mark.parametrize("top_k", [1, 2])
def test_padded_and_grouped_products_agree(selection: str, top_k: int, lone_group: None) -> None:
    tokens = torch.randn(50, DIM)
    results = []
    for compute in ("grouped", "padded"):
        config = MoEConfig(num_experts=EXPERTS, selection=selection, top_k=top_k, compute=compute)  # type: ignore[arg-type]
        layer = ShardedMoE(DIM, HIDDEN, config, ExpertPlacement(1, 0))
        initialise_moe(layer, 0, "layer")
        torch.manual_seed(3)
        x = tokens.clone().requires_grad_()
        out = layer(x)
        out.square().sum().backward()
        results.append([out, x.grad, *(parameter.grad for parameter in layer.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def canonical_state(layer: ShardedMoE) -> dict[str, torch.Tensor]:
    return {
        canonical_name(f"mlp.{name}", {"mlp": layer}).removeprefix("mlp."): parameter
        for name, parameter in layer.named_parameters()
    }


def test_shares_of_all_ranks_are_the_whole_layer() -> None:
    whole = dict(local().named_parameters())
    shares = [canonical_state(sharded(size=2, rank=rank)) for rank in range(2)]
    assert shares[0].keys() | shares[1].keys() == whole.keys()
    assert {name for name in shares[0] if is_expert_name(f"mlp.{name}")}.isdisjoint(shares[1].keys() - {"gate.weight"})
    for share in shares:
        for name, parameter in share.items():
            assert torch.equal(parameter, whole[name]), name


def test_local_layer_equals_deepspeeds_when_nothing_is_dropped(lone_group: None) -> None:
    one, other = local(), sharded(capacity_factor=float(EXPERTS))
    other.moe.set_deepspeed_parallelism()
    tokens = torch.randn(3, 5, DIM)
    left, right = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    out_left, out_right = one(left), other(right)
    torch.testing.assert_close(out_left, out_right, atol=1e-6, rtol=1e-5)
    out_left.square().sum().backward()
    out_right.square().sum().backward()
    torch.testing.assert_close(left.grad, right.grad, atol=1e-6, rtol=1e-5)
    assert one.routing is not None
    assert other.routing is not None
    torch.testing.assert_close(one.routing.aux_loss, other.routing.aux_loss)
    assert torch.equal(one.routing.counts_E, other.routing.counts_E)
    assert int(other.routing.num_dropped) == 0


def test_tokens_beyond_capacity_are_dropped_and_counted(lone_group: None) -> None:
    layer = sharded(capacity_factor=1.0)
    layer.moe.set_deepspeed_parallelism()
    with torch.no_grad():
        layer.gate.weight.copy_(torch.eye(EXPERTS, DIM) * 10)
    tokens = torch.zeros(40, DIM)
    tokens[:, 0] = 1  # all of them choose expert 0, which has room for 10
    out = layer(tokens)
    assert layer.routing is not None
    assert layer.routing.counts_E.tolist() == [40, 0, 0, 0]
    assert int(layer.routing.num_dropped) == 30
    assert int((out.abs().sum(1) > 0).sum()) == 10


def test_even_load_has_an_aux_loss_of_one() -> None:
    layer = local()
    with torch.no_grad():
        layer.gate.weight.copy_(torch.eye(EXPERTS, DIM) * 50)
    layer(torch.eye(EXPERTS, DIM).repeat(3, 1))
    assert layer.routing is not None
    assert layer.routing.aux_loss.item() == pytest.approx(1.0, abs=1e-4)
    assert layer.routing.counts_E.tolist() == [3, 3, 3, 3]


def test_experts_must_share_equally() -> None:
    with pytest.raises(ConfigError, match=r"num_experts 4 cannot be shared by engine\.ep_size 3"):
        ExpertPlacement(3, 0).global_indices(4)
