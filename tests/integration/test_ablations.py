"""Every shipped pretraining configuration takes steps, at a width at which a test can afford them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2

from gfm_pipeline.config import load_config
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.sensors import BUILTIN_SENSORS
from gfm_pipeline.train.assemble import assemble
from gfm_pipeline.train.comm import World, start_world, stop_world
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.step import train_step
from tests.conftest import ROOT
from tests.make_collection import make_collection, random_samples

CONFIGS = sorted((ROOT / "configs" / "pretrain").glob("*_base.yaml"))
CONFIGS += sorted((ROOT / "configs" / "pretrain" / "ablations").glob("*.yaml"))
# One of each kind in every run of the tests, the others by name: -m slow.
OFTEN = ("xgeo_base", "homogeneous", "step_per_stream", "dense_no_cross", "reconstruct_clip", "from_imagenet")
CASES = [pytest.param(path, id=path.stem, marks=() if path.stem in OFTEN else pytest.mark.slow) for path in CONFIGS]
STEPS = 3
SMALL = [
    "data.image_px=64",
    "data.lanes=1",
    "data.chunk_samples=4",
    "data.window_chunks=2",
    "model.encoder.embed_dim=8",
    "model.encoder.num_heads=[1, 1, 2, 2]",
    "model.encoder.window=2",
    "model.embed.stem_channels=4",
    "schedule.warmup_epochs=0",
    "engine.dtype=fp32",
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    for name, sensors in [("geopile", "rgb"), ("millionaid", "rgb"), ("sen12ms", "s1 s2"), ("mdas", "rgb dsm")]:
        specs = [BUILTIN_SENSORS[sensor] for sensor in sensors.split()]
        make_collection(root / name, random_samples(specs, 8, prefix=name), specs)
    return root


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            patch.delenv(name, raising=False)
        yield start_world()
        stop_world()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of timm's SwinV2 at the reduced width."""
    sizes = {"img_size": 64, "embed_dim": 8, "depths": (1, 1, 4, 1), "num_heads": (1, 1, 2, 2), "window_size": 2}
    path = tmp_path_factory.mktemp("weights") / "swin.pth"
    torch.save(SwinTransformerV2(**sizes).state_dict(), path)
    return path


def shrunk(path: Path, shards: Path, weights: Path) -> TrainConfig:
    """The configuration at reduced width, with sub-batches of a sample or two and teachers that know nothing."""
    full = load_config(path, TrainConfig)
    small = [f"data.root={shards}"]
    small += [f"data.streams.{name}.sub_batch={len(s.sensors or ['rgb'])}" for name, s in full.data.streams.items()]
    for name in full.objectives.keys() - {"cross_sensor_mim"}:
        small.append(f"objectives.{name}.teacher={{name: test_vit, weights: random, image_px: 32}}")
    small += [f"model.encoder.init.path={weights}"] if full.model.encoder.init else []
    if "expert_blocks" not in path.stem:  # where the blocks are not the subject, fewer of them do
        small += ["model.encoder.depths=[1, 1, 4, 1]", "model.moe.blocks={3: [1, 3]}"]
    return load_config(path, TrainConfig, [*SMALL, *small])


@pytest.mark.parametrize("path", CASES)
def test_a_configuration_takes_three_steps(
    path: Path, shards: Path, weights: Path, world: World, tmp_path: Path
) -> None:
    config = shrunk(path, shards, weights)
    run = assemble(config, world, tmp_path)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    layers = run.model.moe_labels()
    seen: set[str] = set()
    with Loader(run.mixture, config.data, config.seed, 0, 1) as loader:
        for step, lanes in zip(range(STEPS), loader, strict=False):
            groups: list[dict[str, Any]] = run.engine.optimizer.param_groups
            result = run.updates.take(
                lanes, step, groups, lambda some: train_step(run.engine, some, run.model, world, config.seed)
            )
            assert all(float(loss) == pytest.approx(float(loss)) for loss in result.losses.values())  # no NaN
            assert result.grad_norm > 0
            seen |= set(lanes[0].streams)
    sensors = {sensor for stream in seen for sensor in run.mixture.streams[stream].sensors}
    for name, parameter in run.model.named_parameters():
        if name.startswith("embeds."):
            assert (not torch.equal(parameter, before[name])) == (name.split(".")[1] in sensors), name
    assert bool(layers) == (config.model.moe.num_experts > 1)
