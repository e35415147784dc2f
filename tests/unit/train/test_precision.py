"""bf16 on a CPU: gradients are those of fp32 but for bfloat16's own rounding, in sums over many rows, too."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from gfm_pipeline.data.batch import HeterogeneousBatch
from gfm_pipeline.objectives.objective import Losses, Objective, ObjectiveConfig, Student, build_objectives
from gfm_pipeline.train.engine import TrainingModule
from tests.make_batch import make_batch, make_setting, tiny_model

STREAMS = {"pairs": ["s1", "s2"], "photos": ["rgb"]}


def gradients(dtype: Literal["fp32", "bf16"], batch: HeterogeneousBatch) -> dict[str, Tensor]:
    model = tiny_model(STREAMS)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "norm" in name:  # they start at zero and would hide what the blocks do
            nn.init.normal_(parameter, std=0.3)
    objectives = build_objectives({"cross_sensor_mim": {}}, model, make_setting(STREAMS), seed=0)
    module = TrainingModule(model, objectives, {"pairs": 0.5, "photos": 0.5}, 0.01, dtype)
    torch.manual_seed(0)
    total, _ = module(batch, torch.Generator().manual_seed(0))
    total.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_gradients_of_a_model_lose_nothing() -> None:
    batch = make_batch(STREAMS, num_samples=40)  # 7,680 rows in the first stage: norms have lost half there
    coarse, fine = gradients("bf16", batch), gradients("fp32", batch)
    assert coarse.keys() == fine.keys()
    for name, expected in fine.items():
        # The position bias is a difference of large numbers: noise, of which nothing is missing.
        limit = 0.2 if "cpb_mlp" in name else 0.06
        assert (coarse[name] - expected).norm() <= limit * expected.norm(), name
        assert coarse[name].norm() == pytest.approx(float(expected.norm()), rel=0.03), name


class SumOfRows(Objective):
    """Trains a layer of each kind that sums over rows."""

    Config = ObjectiveConfig

    def __call__(self, model: Student, batch: HeterogeneousBatch, rng: torch.Generator) -> Losses:
        heads = model.objectives["rows"]
        x = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(1))
        weight = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(2)) + 0.5
        return Losses({"photos": sum((head(x.bfloat16()).float() * weight).sum() for head in heads)})  # type: ignore[dict-item]


def test_parts_of_objectives_lose_nothing() -> None:
    found = {}
    for dtype in ("bf16", "fp32"):
        model = tiny_model({"photos": ["rgb"]})
        torch.manual_seed(0)
        heads = nn.ModuleList([nn.LayerNorm(16), nn.Linear(16, 16), nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16))])
        model.objectives["rows"] = heads
        module = TrainingModule(model, {"rows": SumOfRows(ObjectiveConfig())}, {"photos": 1.0}, 0.0, "bf16")
        if dtype == "fp32":
            module = _exact(module)
        total, _ = module(make_batch({"photos": ["rgb"]}), torch.Generator())
        total.backward()
        found[dtype] = {name: parameter.grad for name, parameter in heads.named_parameters()}
    for name, expected in found["fp32"].items():
        assert expected is not None
        difference = found["bf16"][name] - expected
        assert difference.norm() <= 0.02 * expected.norm(), name


def _exact(module: TrainingModule) -> TrainingModule:
    """The same inputs, rounded as before, and everything behind them in fp32."""
    module._bf16 = False
    for head in module.model.objectives["rows"]:  # type: ignore[union-attr]
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    return module
