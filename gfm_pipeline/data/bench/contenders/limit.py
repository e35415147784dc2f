"""The limit: crops copied from a memory-mapped array into a batch that is used again. Nothing is decoded or checked."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gfm_pipeline.data.bench import copies
from gfm_pipeline.data.bench.work import CONTENDERS, Batch, Contender, Work


def _write(work: Work, folder: Path) -> None:
    arrays = {
        sensor: np.lib.format.open_memmap(
            folder / f"{sensor}.npy", mode="w+", dtype=np.dtype(shape.dtype), shape=(work.samples, *shape.shape)
        )
        for sensor, shape in work.sensors.items()
    }
    for number, sample in enumerate(copies.samples(work)):
        for sensor, raster in sample.rasters.items():
            arrays[sensor][number] = raster


def _load(work: Work, threads: int) -> Iterator[Batch]:
    import torch

    from gfm_pipeline.data.bench.pixels import counted, prepared

    arrays = {sensor: np.load(Path(work.copies) / "array" / f"{sensor}.npy", mmap_mode="r") for sensor in work.sensors}
    rng = np.random.default_rng(work.seed)
    px = work.crop_px
    kinds = {s: np.dtype(shape.dtype if work.task == "crop" else np.float32) for s, shape in work.sensors.items()}
    batch = {
        sensor: np.empty((work.batch, shape.shape[0], px, px), kinds[sensor]) for sensor, shape in work.sensors.items()
    }

    def fill(row: int, number: int) -> None:
        made = prepared({sensor: array[number] for sensor, array in arrays.items()}, work, rng)
        for sensor, image in made.items():
            batch[sensor][row] = image

    with ThreadPoolExecutor(threads) as pool:
        for _ in range(work.batches):
            numbers = rng.integers(work.samples, size=work.batch).tolist()
            if threads == 1:
                for row, number in enumerate(numbers):
                    fill(row, number)
            else:
                list(pool.map(fill, range(work.batch), numbers))
            yield counted({sensor: torch.from_numpy(array) for sensor, array in batch.items()})


def _alone(work: Work, stages: dict[str, float]) -> Iterator[Batch]:
    return _load(work, 1)


def _together(work: Work, stages: dict[str, float]) -> Iterator[Batch]:
    return _load(work, work.workers)


_NEEDS = ("torch", "gfm_pipeline.data.bench.pixels")
CONTENDERS.register("limit")(Contender("the limit, 1 thread", _alone, _NEEDS, copy="array", write_copy=_write))
CONTENDERS.register("limit-threads")(
    Contender("the limit, all threads", _together, _NEEDS, copy="array", write_copy=_write)
)
