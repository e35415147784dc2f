"""The gate to updates at ZeRO stage 0: clipping by the true norm, and what is refused leaves everything as it was."""

import math

import pytest
import torch

from gfm_pipeline.train.gate import GatedAdamW, UpdateGate


def pair() -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(4))]
    return ours, [torch.nn.Parameter(value.detach().clone()) for value in ours]


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_it_clips_and_updates_as_torch_does(scale: float) -> None:
    ours, theirs = pair()
    gate = UpdateGate()
    options = {"lr": 0.1, "weight_decay": 0.05, "foreach": False}
    optimizer = GatedAdamW([{"params": ours}], gate, grad_clip=5.0, **options)
    reference = torch.optim.AdamW(theirs, **options)  # type: ignore[arg-type]
    for _ in range(3):
        gate.open_for(math.inf)
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine) * scale
            other.grad = mine.grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(theirs, 5.0)
        optimizer.step()
        reference.step()
        assert gate.norm == pytest.approx(float(norm), rel=1e-6)
        assert not optimizer.overflow
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("limit", "gradient"), [(math.inf, math.nan), (-1.0, 1.0), (0.5, 1.0)])
def test_a_refused_update_changes_nothing(limit: float, gradient: float) -> None:
    ours, before = pair()
    gate = UpdateGate()
    optimizer = GatedAdamW([{"params": ours}], gate, grad_clip=5.0, lr=0.1, foreach=False)
    gate.open_for(limit)
    for parameter in ours:
        parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()
    assert optimizer.overflow
    assert all(torch.equal(mine, other) for mine, other in zip(ours, before, strict=True))
    assert not optimizer.state
