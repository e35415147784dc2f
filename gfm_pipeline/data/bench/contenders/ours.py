"""This package's loader."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from gfm_pipeline.data.bench.copies import STREAM, bench_config
from gfm_pipeline.data.bench.work import CONTENDERS, Batch, Contender, Work
from gfm_pipeline.data.config import AugmentConfig, MaskConfig


def _load(work: Work, stages: dict[str, float]) -> Iterator[Batch]:
    from gfm_pipeline.data.bench.pixels import counted
    from gfm_pipeline.data.loader import Loader
    from gfm_pipeline.data.mixture import open_mixture

    config = bench_config(work.url, tuple(work.sensors), work.batch, len(work.sensors))
    changes: dict[str, Any] = {
        "image_px": work.crop_px,
        "threads": work.workers,
        "mask": MaskConfig(cell_px=math.gcd(work.crop_px, 32)),
    }
    if work.task == "crop":
        changes |= {"augment": AugmentConfig(kind="crop", flip=False), "pixels": "stored"}
    config = config.model_copy(update=changes)
    with Loader(open_mixture(config), config, work.seed, 0, 1) as loader:
        for _ in range(work.batches):
            (batch,) = next(loader)
            yield counted(batch.streams[STREAM].images)
        for seconds in loader.stage_seconds().values():
            stages.update(seconds)
        stages["wait"] = loader.wait_seconds


CONTENDERS.register("ours")(
    Contender("gfm-pipeline", _load, ("gfm_pipeline.data.loader", "gfm_pipeline.data.bench.pixels"), remote=True)
)
