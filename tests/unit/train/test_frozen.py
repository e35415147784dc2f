"""An objective may keep parameters that are not trained: they are saved, and a resumed run equals the uncut one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

from gfm_pipeline.data.batch import HeterogeneousBatch
from gfm_pipeline.models.moe import ExpertPlacement
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.objectives.objective import Losses, Objective, ObjectiveConfig, Student, masked_images
from gfm_pipeline.sensors import BUILTIN_SENSORS
from gfm_pipeline.storage import open_store
from gfm_pipeline.train.checkpoint import CheckpointState, StoredTensors
from gfm_pipeline.train.comm import World
from gfm_pipeline.train.config import EngineConfig, OptimConfig
from gfm_pipeline.train.engine import TrainingModule, start_engine
from gfm_pipeline.train.load import load_checkpoint
from gfm_pipeline.train.optim import StreamRate, parameter_groups
from gfm_pipeline.train.save import Saver
from gfm_pipeline.train.step import train_step
from gfm_pipeline.train.unmoved import MotionWatch
from tests.make_batch import TINY, make_batch


class Alone(World):
    def gather(self, value: Any) -> list[Any]:
        return [value]

    def barrier(self) -> None:
        pass


WORLD = Alone(0, 1, torch.device("cpu"))
FROZEN = {"objectives.half_frozen.closed.weight", "objectives.half_frozen.closed.bias"}


class HalfFrozen(Objective):
    """Compares what a trained layer makes of the features with what a frozen one does."""

    Config = ObjectiveConfig

    def __call__(self, model: Student, batch: HeterogeneousBatch, rng: torch.Generator) -> Losses:
        heads: Any = model.objectives["half_frozen"]
        (features_BijD,) = model.encode(list(masked_images(batch).values()))
        return Losses({"photos": (heads["open"](features_BijD) - heads["closed"](features_BijD)).square().mean()})


def start(zero_stage: Literal[0, 1, 2], seed: int) -> tuple[MsGFM, Any]:
    torch.manual_seed(seed)
    model = MsGFM(TINY, {"rgb": BUILTIN_SENSORS["rgb"]}, 32, seed, ExpertPlacement(1, 0))
    heads = nn.ModuleDict({"closed": nn.Linear(32, 4), "open": nn.Linear(32, 4)})
    heads["closed"].requires_grad_(False)
    model.objectives["half_frozen"] = heads
    module = TrainingModule(model, {"half_frozen": HalfFrozen(ObjectiveConfig())}, {"photos": 1.0}, 0.01, "fp32")
    groups = parameter_groups(model, {"photos": StreamRate(("rgb",), 1e-3)}, OptimConfig())
    return model, start_engine(module, groups, EngineConfig(zero_stage=zero_stage), OptimConfig(), 1)


def steps(model: MsGFM, engine: Any, begin: int, end: int) -> None:
    for step in range(begin, end):
        train_step(engine, [make_batch({"photos": ["rgb"]}, step=step, seed=step)], model, WORLD, seed=0)


@pytest.mark.parametrize("zero_stage", [0, 1, 2])
def test_a_run_with_frozen_parameters_resumes_to_the_bit(
    zero_stage: Literal[0, 1, 2], lone_group: None, tmp_path: Path
) -> None:
    model, engine = start(zero_stage, seed=0)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    watch = MotionWatch(model)
    steps(model, engine, 0, 2)
    assert not FROZEN & set(watch.unmoved(engine, WORLD))
    store = open_store(str(tmp_path / "checkpoints"))
    nothing: dict[str, Any] = {"loader": {}, "config": {}, "sensors": {}, "normalisation": {}, "manifests": {}}
    state = CheckpointState(step=2, updates=2, **nothing)
    Saver(store, tmp_path, WORLD, keep=2, background=False).save(engine, model, state)

    stored = StoredTensors(tmp_path / "checkpoints" / "step-00000002", ["part-00000-of-00001.safetensors"])
    assert stored.names() > FROZEN
    assert not any(key.endswith(tuple(FROZEN)) for key in stored._file_of if not key.startswith("param/"))

    resumed, other = start(zero_stage, seed=1)
    load_checkpoint(store, "step-00000002", tmp_path, (other, resumed), WORLD, lambda found: None)
    steps(model, engine, 2, 4)
    steps(resumed, other, 2, 4)
    for (name, mine), theirs in zip(model.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    assert all(torch.equal(dict(resumed.named_parameters())[name], before[name]) for name in FROZEN)
    assert not torch.equal(resumed.objectives["half_frozen"].open.weight, before["objectives.half_frozen.open.weight"])
