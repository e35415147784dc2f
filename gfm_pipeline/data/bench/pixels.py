"""The work itself, as programs that use torch do it: for the contenders that leave it to their user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gfm_pipeline.data.bench.work import Batch, Work


def prepared(rasters: Mapping[str, NDArray[Any]], work: Work, rng: np.random.Generator) -> dict[str, Any]:
    """Return the sensors of one sample [C,H,W] as the task wants them."""
    return _crop(rasters, work, rng) if work.task == "crop" else _resized(rasters, work, rng)


def _crop(rasters: Mapping[str, NDArray[Any]], work: Work, rng: np.random.Generator) -> dict[str, Any]:
    height, width = next(iter(rasters.values())).shape[1:]
    top, left = rng.integers(height - work.crop_px + 1), rng.integers(width - work.crop_px + 1)
    box = (slice(None), slice(top, top + work.crop_px), slice(left, left + work.crop_px))
    return {sensor: raster[box] for sensor, raster in rasters.items()}


def _resized(rasters: Mapping[str, NDArray[Any]], work: Work, rng: np.random.Generator) -> dict[str, Any]:
    height, width = next(iter(rasters.values())).shape[1:]
    area, ratio = height * width * rng.uniform(0.67, 1), np.exp(rng.uniform(np.log(0.75), np.log(4 / 3)))
    rows, columns = min(height, round(np.sqrt(area / ratio))), min(width, round(np.sqrt(area * ratio)))
    top, left, flip = rng.integers(height - rows + 1), rng.integers(width - columns + 1), rng.random() < 0.5
    out = {}
    for sensor, raster in rasters.items():
        image = torch.from_numpy(raster[:, top : top + rows, left : left + columns].astype(np.float32))
        size = (work.crop_px, work.crop_px)
        image = torch.nn.functional.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
        shape = work.sensors[sensor]
        mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (shape.mean, shape.std))
        out[sensor] = ((image.flip(-1) if flip else image) - mean) / std
    return out


def counted(batch: Mapping[str, torch.Tensor]) -> Batch:
    """Return what is in a batch of tensors by sensor; every tensor is looked at, as a trainer would."""
    for tensor in batch.values():
        float(tensor.flatten()[-1])
    return Batch(len(next(iter(batch.values()))), sum(t.numel() * t.element_size() for t in batch.values()))


def collate(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack samples as torch's default does."""
    return {
        sensor: torch.stack([torch.as_tensor(np.ascontiguousarray(sample[sensor])) for sample in samples])
        for sensor in samples[0]
        if not sensor.startswith("__")  # webdataset adds keys of its own
    }


def collate_raw(samples: list[dict[str, Any]], work: Work) -> dict[str, torch.Tensor]:
    """Prepare and stack samples as they come from a dataset of whole rasters."""
    rng = np.random.default_rng()
    return collate([prepared({sensor: sample[sensor] for sensor in work.sensors}, work, rng) for sample in samples])
