"""The samples of a collection, read by our own reader, for contenders that read other forms."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from gfm_pipeline.data.bench.work import Shape, Work
from gfm_pipeline.data.config import DataConfig, StreamConfig
from gfm_pipeline.data.mixture import Mixture, open_mixture
from gfm_pipeline.data.reader import SamplePixels, StreamReader
from gfm_pipeline.data.shard_index import load_shard_index
from gfm_pipeline.errors import ConfigError

STREAM = "bench"


def bench_config(url: str, sensors: tuple[str, ...] | None, batch: int, num_sensors: int) -> DataConfig:
    """Return the data configuration that reads one collection in one lane."""
    stream = StreamConfig(collections=(url,), sensors=sensors, sub_batch=batch * num_sensors, lr=1.0)
    return DataConfig(streams={STREAM: stream}, lanes=1)


@lru_cache(maxsize=8)
def _opened(url: str, sensors: tuple[str, ...]) -> Mixture:
    return open_mixture(bench_config(url, sensors, 1, len(sensors)))


def describe(url: str, sensors: tuple[str, ...] | None = None) -> tuple[dict[str, Shape], str, int]:
    """Return the sensors of a collection, the encoding of the first, and how many samples carry all of them.

    Raises ConfigError when samples differ in shape: then batches need resizing, and a plain crop cannot be compared.
    """
    if sensors is None:
        from gfm_pipeline.shards.manifest import load_manifest
        from gfm_pipeline.storage import open_store

        known = load_manifest(open_store(url)).sensors
        sensors = tuple(sorted(name for name, spec in known.items() if spec.kind == "image"))
    mixture = _opened(url, sensors)
    stream = mixture.streams[STREAM]
    found: dict[str, Shape] = {}
    encoding = ""
    for name in sensors:
        stored = {entry for ref in stream.shards for entry in load_shard_index(ref, (name,)).columns[name].stored}
        if len(stored) != 1 or len(next(iter(stored)).shape) != 3:
            shapes = ", ".join(sorted(f"{e.extension} {e.dtype}{list(e.shape)}" for e in stored)[:4])
            raise ConfigError(f"{url}: sensor {name} is stored as {shapes}; the bench compares images of one shape.")
        (only,) = stored
        normal = mixture.normalisation[name]
        channels, height, width = only.shape
        found[name] = Shape(
            dtype=mixture.sensors[name].dtype, shape=(channels, height, width), mean=normal.mean, std=normal.std
        )
        encoding = encoding or only.extension
    return found, encoding, stream.num_samples


def samples(work: Work) -> Iterator[SamplePixels]:
    """Yield the first `work.samples` samples of the collection, with all of its wanted sensors."""
    from gfm_pipeline.data.mixture import make_plan

    config = bench_config(work.url, tuple(work.sensors), 1, len(work.sensors))
    mixture = _opened(work.url, tuple(work.sensors))
    reader = StreamReader(mixture.streams[STREAM])
    try:
        plan = make_plan(mixture, config, work.seed)
        for step in range(work.samples):
            (pick,) = plan.take(STREAM, 0, step)
            yield reader.read(pick)
    finally:
        reader.close()
