"""Held-out samples in a fixed order, each once, the same whatever trains and however many processes share them.

The training loader reads them, with its checks, on a plan of one stream: whole images instead of random crops, and
crops, masks and order drawn with a seed of their own, so that every evaluation of every run sees the same pixels
hidden. Each lane takes its segment of the plan's first pass. Results are kept lane by lane: their order depends on
`data.lanes` and not on the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.agree import same_units
from gfm_pipeline.data.batch import StreamBatch
from gfm_pipeline.data.config import AugmentConfig, BandStatistics, DataConfig, FilterConfig, StreamConfig
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import Mixture, ShardRef, Stream, open_mixture
from gfm_pipeline.errors import ConfigError, nearest
from gfm_pipeline.evaluate.config import SamplesConfig
from gfm_pipeline.evaluate.team import Alone, Team

SEED = 0
"""Of masks and order; not the run's, so that runs of several seeds are measured on the same task."""

_WHOLE_IMAGE = AugmentConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=False)

T = TypeVar("T")


@dataclass(frozen=True)
class HeldOut:
    """Opened samples of one evaluation."""

    where: str
    """Their place in the configuration, for errors."""
    stream: Stream
    mixture: Mixture
    data: DataConfig
    steps: int
    """Batches of each lane."""


def open_held_out(
    where: str,
    config: SamplesConfig,
    data: DataConfig,
    training: Mixture,
    batch_samples: int,
    filter_: FilterConfig | None,
) -> HeldOut:
    """Return the samples of `config` that pass `filter_`, normalised as in training, none of them trained on.

    Raises ConfigError for a sensor the model does not know or knows with other bands, for too few samples, and for
    samples that a training stream uses.
    """
    for sensor in config.sensors:
        if sensor not in training.sensors:
            raise ConfigError(
                f"{where}.sensors: the model trains on no sensor '{sensor}'. {nearest(sensor, training.sensors)}"
            )
    name = where.rpartition(".")[2]
    stream = StreamConfig(
        collections=config.collections,
        sensors=config.sensors,
        bands={sensor: training.sensors[sensor].bands for sensor in config.sensors},
        filter=filter_,
        sub_batch=batch_samples * len(config.sensors),
        lr=1.0,
    )
    statistics = {
        sensor: BandStatistics(mean=training.normalisation[sensor].mean, std=training.normalisation[sensor].std)
        for sensor in config.sensors
    }
    time = {sensor: frames for sensor, frames in data.time.items() if sensor in config.sensors}
    changes = {"streams": {name: stream}, "batches": "heterogeneous", "batch_images": None, "time": time}
    own = data.model_copy(update=changes | {"augment": _WHOLE_IMAGE, "statistics": statistics})
    try:
        mixture = open_mixture(own)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    for sensor in config.sensors:
        ours, theirs = training.sensors[sensor].units, mixture.sensors[sensor].units
        if not same_units(ours, theirs):
            raise ConfigError(
                f"{where}: sensor {sensor} is in {theirs}, the model trains on it in {ours}. Build the collection with "
                "the same units."
            )
    opened = mixture.streams[name]
    if opened.num_samples < own.lanes:
        raise ConfigError(
            f"{where} has {opened.num_samples} samples, expected at least one for each of the {own.lanes} data.lanes."
        )
    refuse_overlap(where, opened, training)
    longest = -(-opened.num_samples // own.lanes)
    steps = -(-longest // batch_samples)
    if config.max_samples is not None:
        steps = min(steps, max(1, config.max_samples // (own.lanes * batch_samples)))
    return HeldOut(where, opened, mixture, own, steps)


def refuse_overlap(where: str, held_out: Stream, training: Mixture) -> None:
    """Raise ConfigError when a training stream uses a sample of `held_out`."""
    for name, stream in training.streams.items():
        common = count_common(held_out, stream)
        if common:
            raise ConfigError(
                f"{where}: {common} of its {held_out.num_samples} samples are trained on by data.streams.{name}. Name "
                "another collection, or set filters that keep the two apart, e.g. labels: {split: [train]} there and "
                "labels: {split: [val]} here."
            )


def refuse_common(where: str, learnt: Stream, asked: Stream) -> None:
    """Raise ConfigError when a probe would predict samples that it has learnt from."""
    common = count_common(learnt, asked)
    if common:
        raise ConfigError(
            f"{where}: {common} samples pass both filter and test_filter. Set filters that keep the two apart."
        )


def count_common(one: Stream, other: Stream) -> int:
    """Return how many samples two streams share.

    A sample is known by the sha256 of its shard and its place in it: a copy of a collection is the same collection.
    """
    mine = {shard.entry.sha256: _chosen(shard) for shard in one.shards}
    return sum(
        len(np.intersect1d(mine[shard.entry.sha256], _chosen(shard), assume_unique=True))
        for shard in other.shards
        if shard.entry.sha256 in mine
    )


def measure(held_out: HeldOut, team: Team, function: Callable[[StreamBatch], T]) -> list[tuple[NDArray[np.int64], T]]:
    """Return, for every batch of all processes, (rows that count, `function` of the batch), lanes laid end to end.

    Rows count unless their sample is damaged (under `data.on_error: skip`) or came before. Every process must call it.
    """
    by_lane: dict[int, list[tuple[NDArray[np.int64], T]]] = {}
    for lane, batch in _batches(held_out, team):
        rows = [row for row, again in enumerate(batch.passes) if not again and row not in batch.skipped]
        if rows:
            by_lane.setdefault(lane, []).append((np.array(rows, dtype=np.int64), function(batch)))
    everyone: dict[int, list[tuple[NDArray[np.int64], T]]] = {}
    for part in team.gather(by_lane):
        everyone |= part
    return [found for lane in sorted(everyone) for found in everyone[lane]]


def first_batch(held_out: HeldOut) -> StreamBatch:
    """Return the first samples of the first lane."""
    return next(_batches(held_out, Alone()))[1]


def _batches(held_out: HeldOut, team: Team) -> Iterator[tuple[int, StreamBatch]]:
    with Loader(held_out.mixture, held_out.data, SEED, team.rank, team.size) as loader:
        for _ in range(held_out.steps):
            for lane in next(loader):
                yield lane.lane, lane.streams[held_out.stream.name]


def _chosen(shard: ShardRef) -> NDArray[np.int64]:
    return np.arange(shard.samples) if shard.selected is None else shard.selected
