"""Batches of noise, a tiny model for them, and the setting that objectives are built in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gfm_pipeline.data.batch import HeterogeneousBatch, StreamBatch
from gfm_pipeline.data.normalize import Normalisation
from gfm_pipeline.models.config import EncoderConfig, ModelConfig, MoEConfig
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.objectives.objective import Objective, Setting, build_objectives
from gfm_pipeline.sensors import BUILTIN_SENSORS

IMAGE_PX = 32
CELL_PX = 8
TINY = ModelConfig(
    encoder=EncoderConfig(embed_dim=16, depths=(1, 2), num_heads=(2, 4), window=4),
    moe=MoEConfig(num_experts=2, blocks={2: (1,)}),
)
Streams = Mapping[str, Sequence[str]]


def make_batch(streams: Streams, num_samples: int = 2, step: int = 0, seed: int = 0) -> HeterogeneousBatch:
    """Return a batch of normalised noise in which a little more than half of the cells are hidden."""
    generator = torch.Generator().manual_seed(seed)
    side = IMAGE_PX // CELL_PX

    def part(sensors: Sequence[str]) -> StreamBatch:
        bands = {sensor: len(BUILTIN_SENSORS[sensor].bands) for sensor in sensors}
        return StreamBatch(
            images={s: torch.randn(num_samples, c, IMAGE_PX, IMAGE_PX, generator=generator) for s, c in bands.items()},
            masks={s: torch.rand(num_samples, side, side, generator=generator) < 0.6 for s in sensors},
            keys=tuple(f"key{i}" for i in range(num_samples)),
            passes=(0,) * num_samples,
        )

    return HeterogeneousBatch(step, 0, {name: part(sensors) for name, sensors in streams.items()})


def tiny_model(streams: Streams, config: ModelConfig = TINY) -> MsGFM:
    """Return a model for the sensors of `streams`."""
    return MsGFM(config, {s: BUILTIN_SENSORS[s] for sensors in streams.values() for s in sensors}, IMAGE_PX, seed=0)


def make_setting(streams: Streams, encoder: EncoderConfig = TINY.encoder) -> Setting:
    """Return the setting of a run on `streams`; every band has mean 100 and deviation 50 in its units."""
    sensors = {s: BUILTIN_SENSORS[s] for names in streams.values() for s in names}
    statistics = {s: Normalisation((100.0,) * len(x.bands), (50.0,) * len(x.bands)) for s, x in sensors.items()}
    return Setting(encoder, sensors, statistics, streams, IMAGE_PX, torch.device("cpu"))


def build_one(name: str, options: dict[str, Any], model: MsGFM, streams: Streams) -> Objective:
    """Return an objective, built for `model` as training does it."""
    return build_objectives({name: options}, model, make_setting(streams), seed=0)[name]
