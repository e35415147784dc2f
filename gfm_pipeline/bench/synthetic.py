"""Batches of random pixels with the layout of a configuration's: what a run computes on, without its data."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from gfm_pipeline.data.batch import HeterogeneousBatch, StreamBatch
from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.data.mixture import Mixture, Stream
from gfm_pipeline.data.normalize import Normalisation
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.sensors import BUILTIN_SENSORS, SensorSpec, builtin_sensor


def synthetic_mixture(config: DataConfig) -> Mixture:
    """Return a mixture without samples: built-in sensors, those a stream names or else the one it is called after.

    Raises ConfigError for a stream that tells of no sensor or no sub-batch.
    """
    streams: dict[str, Stream] = {}
    sensors: dict[str, SensorSpec] = {}
    for name, stream in config.streams.items():
        names = stream.sensors or ((name,) if name in BUILTIN_SENSORS else ())
        if not names:
            raise ConfigError(
                f"data.streams.{name} names no sensors, and no sensor is called '{name}'. Set "
                f"data.streams.{name}.sensors, or measure on collections with --data."
            )
        if stream.sub_batch is None:
            raise ConfigError(
                f"data.streams.{name} has no sub_batch, which then depends on the sizes of the streams. Set it, or "
                "measure on collections with --data."
            )
        sensors |= {sensor: builtin_sensor(sensor) for sensor in names}
        streams[name] = Stream(name, tuple(names), stream.sub_batch // len(names), (), (), "")
    normalisation = {
        name: Normalisation((0.0,) * len(spec.bands), (1.0,) * len(spec.bands)) for name, spec in sensors.items()
    }
    return Mixture(streams, sensors, {}, normalisation, {}, 1, "")


def synthetic_batches(
    mixture: Mixture, config: DataConfig, lanes: int, device: torch.device
) -> Iterator[tuple[HeterogeneousBatch, ...]]:
    """Yield the same random pixels and masks for every step of a rank with `lanes` lanes."""
    generator = torch.Generator().manual_seed(0)
    cells = config.image_px // config.mask.cell_px
    parts = {}
    for name, stream in mixture.streams.items():
        count = stream.samples_per_step
        shapes = {sensor: len(mixture.sensors[sensor].bands) for sensor in stream.sensors}
        parts[name] = StreamBatch(
            {
                s: torch.randn(count, c, config.image_px, config.image_px, generator=generator)
                for s, c in shapes.items()
            },
            {s: torch.rand(count, cells, cells, generator=generator) < config.mask.ratio for s in shapes},
            tuple(str(row) for row in range(count)),
            (0,) * count,
        ).to(device)
    step = 0
    while True:
        yield tuple(HeterogeneousBatch(step, lane, parts) for lane in range(lanes))
        step += 1
