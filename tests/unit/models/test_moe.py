"""The one-process form of the experts against DeepSpeed's layer, and the names both go by."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

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

DIM, HIDDEN, EXPERTS = 8, 16, 4


@pytest.fixture
def lone_group(tmp_path: Path) -> Iterator[None]:
    """A process group of one, which DeepSpeed's layer needs."""
    import deepspeed

    deepspeed.init_distributed(
        "gloo",
        auto_mpi_discovery=False,
        verbose=False,
        init_method=f"file://{tmp_path}/rendezvous",
        rank=0,
        world_size=1,
    )
    yield
    torch.distributed.destroy_process_group()


def sharded(capacity_factor: float = 1.25, size: int = 1, rank: int = 0) -> ShardedMoE:
    config = MoEConfig(num_experts=EXPERTS, capacity_factor=capacity_factor, random_token_selection=False)
    layer = ShardedMoE(DIM, HIDDEN, config, ExpertPlacement(size, rank))
    initialise_moe(layer, 0, "layer")
    return layer


def local() -> LocalMoE:
    layer = LocalMoE(DIM, HIDDEN, EXPERTS)
    initialise_moe(layer, 0, "layer")
    return layer


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
