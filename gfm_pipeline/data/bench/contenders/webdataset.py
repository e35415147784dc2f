"""webdataset's own pipeline on our shards: its tar reader, map, batching in the worker, WebLoader."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.bench.work import CONTENDERS, Batch, Contender, Work
from gfm_pipeline.shards.manifest import load_manifest, tar_path
from gfm_pipeline.storage import open_store


def _load(work: Work, stages: dict[str, float]) -> Iterator[Batch]:
    import webdataset

    from gfm_pipeline.data.bench.pixels import collate, counted

    manifest = load_manifest(open_store(work.url))
    shards = [entry.name for entry in manifest.shards if set(work.sensors) <= set(entry.sensors)]
    urls = [f"{work.url}/{tar_path(name)}" for name in shards] * work.passes
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
        .map(partial(_decode, work=work, rng=np.random.default_rng(work.seed)))
        .batched(work.batch, collation_fn=collate, partial=False)
    )
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=work.workers)
    for number, batch in enumerate(loader):
        if number == work.batches:
            break
        yield counted(batch)


def _decode(sample: dict[str, Any], work: Work, rng: np.random.Generator) -> dict[str, Any]:
    from gfm_pipeline.data.bench.pixels import prepared

    rasters = {sensor: _raster(sample[f"{sensor}.{work.encoding}"], sensor, work) for sensor in work.sensors}
    return prepared(rasters, work, rng)


def _raster(data: bytes, sensor: str, work: Work) -> NDArray[Any]:
    import imagecodecs

    shape = work.sensors[sensor]
    raster: NDArray[Any]
    if work.encoding == "npy":
        raster = np.load(io.BytesIO(data), allow_pickle=False)
    elif work.encoding == "blosc2":
        raster = np.frombuffer(imagecodecs.blosc2_decode(data), shape.dtype)
    else:
        raster = np.asarray(imagecodecs.imread(data) if work.encoding == "tif" else imagecodecs.jpegxl_decode(data))
    return raster.reshape(shape.shape)


CONTENDERS.register("webdataset")(
    Contender("webdataset", _load, ("webdataset", "torch.utils.data", "gfm_pipeline.data.bench.pixels"))
)
