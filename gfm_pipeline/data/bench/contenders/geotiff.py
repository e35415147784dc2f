"""A map-style dataset of GeoTIFF files, as archives ship them, behind torch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from gfm_pipeline.data.bench import copies
from gfm_pipeline.data.bench.work import CONTENDERS, Batch, Contender, Work


def _write(work: Work, folder: Path) -> None:
    for number, sample in enumerate(copies.samples(work)):
        for sensor, raster in sample.rasters.items():
            path = folder / f"{number:05d}.{sensor}.tif"
            tifffile.imwrite(path, raster, compression="deflate", predictor=True, planarconfig="separate")


class TiffFiles:
    """Sample i by index."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __len__(self) -> int:
        return self._work.samples * self._work.passes

    def __getitem__(self, index: int) -> dict[str, Any]:
        from gfm_pipeline.data.bench.pixels import prepared

        work = self._work
        number = index % work.samples
        folder = Path(work.copies) / "tif"
        rasters = {sensor: tifffile.imread(folder / f"{number:05d}.{sensor}.tif") for sensor in work.sensors}
        return prepared(rasters, work, np.random.default_rng((work.seed, index)))


def _load(work: Work, stages: dict[str, float]) -> Iterator[Batch]:
    from torch.utils.data import DataLoader

    from gfm_pipeline.data.bench.pixels import collate, counted

    dataset: Any = TiffFiles(work)
    loader = DataLoader(dataset, work.batch, shuffle=True, num_workers=work.workers, collate_fn=collate, drop_last=True)
    for batch in loader:
        yield counted(batch)


CONTENDERS.register("geotiff")(
    Contender(
        "GeoTIFF, tifffile",
        _load,
        ("torch.utils.data", "gfm_pipeline.data.bench.pixels"),
        copy="tif",
        write_copy=_write,
    )
)
