"""A small collection of pairs, where a test wants it, and what the loader makes of it in comparable form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gfm_pipeline.data.batch import HeterogeneousBatch
from gfm_pipeline.data.config import DataConfig, MaskConfig, StreamConfig
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.sensors import builtin_sensor
from gfm_pipeline.shards.manifest import Manifest
from gfm_pipeline.storage import open_store
from tests.make_collection import make_collection, random_samples

S1, S2 = builtin_sensor("s1"), builtin_sensor("s2")
SAMPLES = 32
LANES = 4
STEPS_PER_EPOCH = 4


def write_pairs(root: Path, px: int = 16, samples: int = SAMPLES, extension: str = "npy") -> Manifest:
    """Write a collection `pairs` below `root`."""
    made = random_samples([S1, S2], samples, px)
    return make_collection(root / "pairs", made, [S1, S2], samples_per_shard=8, extension=extension)


def upload(folder: Path, url: str) -> str:
    """Copy a folder's files to a URL; return it."""
    store = open_store(url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(path.relative_to(folder).as_posix(), path.read_bytes())
    return url


def loader_config(root: str | Path, **changes: Any) -> DataConfig:
    """Return the configuration of a loader that takes the pairs once in STEPS_PER_EPOCH steps."""
    stream = StreamConfig(collections=("pairs",), sub_batch=4, lr=1e-4, sensors=changes.pop("sensors", None))
    base: dict[str, Any] = {
        "root": str(root),
        "streams": {"pairs": stream},
        "image_px": 16,
        "lanes": LANES,
        "chunk_samples": 4,
        "window_chunks": 2,
        "mask": MaskConfig(cell_px=4),
    }
    return DataConfig(**(base | changes))


def told(batch: HeterogeneousBatch) -> list[Any]:
    """Return all that a batch says, comparable with ==."""
    return [
        [batch.step, batch.lane, name, list(part.keys), {s: i.numpy().tobytes() for s, i in part.images.items()}]
        for name, part in batch.streams.items()
    ]


def epoch_batches(config: DataConfig, steps: int = STEPS_PER_EPOCH) -> list[list[Any]]:
    """Return what one rank sees in an epoch."""
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        return [[told(batch) for batch in next(loader)] for _ in range(steps)]
