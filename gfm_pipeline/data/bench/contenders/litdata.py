"""litData, where it is installed: its optimised chunks of raw arrays."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gfm_pipeline.data.bench import copies
from gfm_pipeline.data.bench.work import CONTENDERS, Batch, Contender, Work


def _sample(number: int, folder: str, sensors: tuple[str, ...]) -> dict[str, Any]:
    return {sensor: np.load(f"{folder}/{number}.{sensor}.npy") for sensor in sensors}


def _write(work: Work, folder: Path) -> None:
    import tempfile

    import litdata

    with tempfile.TemporaryDirectory() as raw:
        for number, sample in enumerate(copies.samples(work)):
            for sensor, raster in sample.rasters.items():
                np.save(f"{raw}/{number}.{sensor}.npy", raster)
        litdata.optimize(
            fn=partial(_sample, folder=raw, sensors=tuple(work.sensors)),
            inputs=list(range(work.samples)),
            output_dir=str(folder),
            num_workers=1,
            chunk_bytes="64MB",
        )


def _load(work: Work, stages: dict[str, float]) -> Iterator[Batch]:
    import litdata

    from gfm_pipeline.data.bench.pixels import collate_raw, counted

    dataset = litdata.StreamingDataset(str(Path(work.copies) / "litdata"), shuffle=True, drop_last=True)
    loader = litdata.StreamingDataLoader(
        dataset,
        batch_size=work.batch,
        num_workers=work.workers,
        collate_fn=partial(collate_raw, work=work),
        drop_last=True,
    )
    for _ in range(work.passes):
        for batch in loader:
            yield counted(batch)


CONTENDERS.register("litdata")(
    Contender(
        "litData",
        _load,
        ("litdata", "torch.utils.data", "gfm_pipeline.data.bench.pixels"),
        copy="litdata",
        write_copy=_write,
    )
)
