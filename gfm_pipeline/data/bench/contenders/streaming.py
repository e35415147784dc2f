"""MosaicML Streaming, where it is installed: MDS shards of raw arrays."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from gfm_pipeline.data.bench import copies
from gfm_pipeline.data.bench.work import CONTENDERS, Batch, Contender, Work


def _write(work: Work, folder: Path) -> None:
    import streaming

    columns = {s: f"ndarray:{k.dtype}:{','.join(map(str, k.shape))}" for s, k in work.sensors.items()}
    with streaming.MDSWriter(out=str(folder), columns=columns, hashes=["sha1"]) as writer:
        for sample in copies.samples(work):
            writer.write({sensor: np.asarray(raster) for sensor, raster in sample.rasters.items()})


def _load(work: Work, stages: dict[str, float]) -> Iterator[Batch]:
    import streaming
    from torch.utils.data import DataLoader

    from gfm_pipeline.data.bench.pixels import collate_raw, counted

    stream = streaming.Stream(local=str(Path(work.copies) / "mds"), repeat=work.passes)
    dataset = streaming.StreamingDataset(streams=[stream], batch_size=work.batch, shuffle=True)
    loader = DataLoader(
        dataset, work.batch, num_workers=work.workers, collate_fn=partial(collate_raw, work=work), drop_last=True
    )
    for batch in loader:
        yield counted(batch)


CONTENDERS.register("streaming")(
    Contender(
        "MosaicML Streaming",
        _load,
        ("streaming", "torch.utils.data", "gfm_pipeline.data.bench.pixels"),
        copy="mds",
        write_copy=_write,
    )
)
