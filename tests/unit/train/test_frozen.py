"""Objectives may keep state that is not trained, frozen parameters and buffers: a resumed run equals the uncut one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

from gfm_pipeline.data.batch import HeterogeneousBatch
from gfm_pipeline.errors import CheckpointError
from gfm_pipeline.models.moe import ExpertPlacement
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.objectives.objective import Losses, Objective, ObjectiveConfig, Student, masked_images
from gfm_pipeline.sensors import BUILTIN_SENSORS
from gfm_pipeline.storage import open_store
from gfm_pipeline.train.checkpoint import CheckpointState, StoredTensors, load_weights, objective_buffers
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
        moved = heads["norm"](heads["open"](features_BijD).flatten(0, 2)) + heads["norm"].running_mean
        return Losses({"photos": (moved - heads["closed"](features_BijD).flatten(0, 2)).square().mean()})


def start(zero_stage: Literal[0, 1, 2], seed: int) -> tuple[MsGFM, Any]:
    torch.manual_seed(seed)
    model = MsGFM(TINY, {"rgb": BUILTIN_SENSORS["rgb"]}, 32, seed, ExpertPlacement(1, 0))
    heads = nn.ModuleDict({"closed": nn.Linear(32, 4), "open": nn.Linear(32, 4), "norm": nn.BatchNorm1d(4)})
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
    store = saved(model, engine, tmp_path)
    stored = StoredTensors(tmp_path / "checkpoints" / "step-00000002", ["part-00000-of-00001.safetensors"])
    assert stored.names() > FROZEN
    assert not any(key.endswith(tuple(FROZEN)) for key in stored._file_of if not key.startswith("param/"))

    resumed, other = start(zero_stage, seed=1)
    load_checkpoint(store, "step-00000002", tmp_path, (other, resumed), WORLD, lambda found: None)
    steps(model, engine, 2, 4)
    steps(resumed, other, 2, 4)
    for (name, mine), theirs in zip(model.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    for (name, value), restored in zip(objective_buffers(model), objective_buffers(resumed), strict=True):
        assert torch.equal(value, restored[1]), name
    assert int(resumed.objectives["half_frozen"].norm.num_batches_tracked) == 4
    assert all(torch.equal(dict(resumed.named_parameters())[name], before[name]) for name in FROZEN)
    assert not torch.equal(resumed.objectives["half_frozen"].open.weight, before["objectives.half_frozen.open.weight"])


def saved(model: MsGFM, engine: Any, tmp_path: Path) -> Any:
    store = open_store(str(tmp_path / "checkpoints"))
    nothing: dict[str, Any] = {"loader": {}, "config": {}, "sensors": {}, "normalisation": {}, "manifests": {}}
    state = CheckpointState(step=2, updates=2, **nothing)
    Saver(store, tmp_path, WORLD, keep=2, background=False).save(engine, model, state)
    return store


def test_a_checkpoint_without_buffers_loads_and_one_with_others_is_refused(
    lone_group: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, engine = start(1, seed=0)
    steps(model, engine, 0, 1)
    whole = saved(model, engine, tmp_path / "whole")
    with monkeypatch.context() as older:
        older.setattr("gfm_pipeline.train.save.objective_buffers", lambda model: ())
        bare = saved(model, engine, tmp_path / "bare")
    load_checkpoint(bare, "step-00000002", tmp_path, (engine, model), WORLD, lambda found: None)
    assert "objectives.half_frozen.norm.running_mean begins anew" in caplog.text
    model.objectives["half_frozen"].register_buffer("more", torch.zeros(3, dtype=torch.bool))
    with pytest.raises(CheckpointError, match=r"1 parameters missing \(first: \['objectives\.half_frozen\.more'\]"):
        load_checkpoint(whole, "step-00000002", tmp_path, (engine, model), WORLD, lambda found: None)
    alone = MsGFM(TINY, {"rgb": BUILTIN_SENSORS["rgb"]}, 32, 0)
    load_weights(tmp_path / "whole" / "checkpoints" / "step-00000002", alone)  # outside of training nobody needs them


def test_a_step_without_an_update_leaves_buffers_as_they_were(lone_group: None) -> None:
    model, engine = start(0, seed=0)
    steps(model, engine, 0, 1)
    before = {name: value.clone() for name, value in objective_buffers(model)}
    batch = make_batch({"photos": ["rgb"]}, step=1, seed=1)
    result = train_step(engine, [batch], model, WORLD, 0, judge=lambda loss: -1.0)
    assert not result.updated
    for name, value in objective_buffers(model):
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_buffers_of_any_type_are_taken_from_the_first_rank(
    dtype: torch.dtype, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, mine = torch.ones(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)
    mine = mine.T if mine.ndim == 2 else mine  # not contiguous
    first = first.T if first.ndim == 2 else first

    def broadcast(raw: torch.Tensor, rank: int) -> None:
        assert rank == 0
        raw.copy_(first.contiguous().reshape(-1).view(torch.uint8))

    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    World(1, 2, torch.device("cpu")).take_from_first(mine)
    assert torch.equal(mine, first)
