"""Features of held-out samples: the encoder's output for the whole, unmasked image of each sensor, averaged over it.

Beside them the plainest description of an image there is, mean and deviation of every band: a reference that any
learnt feature must beat. Legend: N samples, B images, C bands, D channels, i x j features of an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gfm_pipeline.data.batch import StreamBatch
from gfm_pipeline.evaluate.samples import HeldOut, measure
from gfm_pipeline.evaluate.team import Team
from gfm_pipeline.models.msgfm import MsGFM, SensorImages

PIXELS = "pixel_statistics"

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """Descriptions of N samples."""

    keys: list[str]
    by_name: dict[str, Array]
    """[N,D] of each sensor; of all of them side by side ("s1+s2"), if several; and `PIXELS` of all sensors."""


def extract_features(model: MsGFM, held_out: HeldOut, device: torch.device, team: Team) -> Features:
    """Return the features of all samples, on every process; all of them must call it."""
    parts = measure(held_out, team, lambda batch: (batch.keys, _describe(model, batch.to(device))))
    keys = [found[0][row] for rows, found in parts for row in rows]
    sensors = held_out.stream.sensors
    by_name = {name: np.concatenate([found[1][name][rows] for rows, found in parts]) for name in (*sensors, PIXELS)}
    pixels = by_name.pop(PIXELS)
    if len(sensors) > 1:
        by_name["+".join(sensors)] = np.concatenate([by_name[sensor] for sensor in sensors], axis=1)
    return Features(keys, by_name | {PIXELS: pixels})


@torch.inference_mode()
def _describe(model: MsGFM, batch: StreamBatch) -> dict[str, Array]:
    features = {sensor: model.encode([SensorImages(sensor, image)])[0] for sensor, image in batch.images.items()}
    out: dict[str, Array] = {name: part.float().mean((1, 2)).cpu().numpy() for name, part in features.items()}
    moments = [moment for sensor in batch.images for moment in _moments(batch, sensor)]
    return out | {PIXELS: torch.cat(moments, dim=1).cpu().numpy()}


def _moments(batch: StreamBatch, sensor: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and deviation [B,C] of every band over what was measured of it; 0 of a band without a pixel."""
    image = batch.images[sensor]
    if sensor not in batch.valid:
        return image.mean((2, 3)), image.std((2, 3), correction=0)
    valid = batch.valid[sensor]
    count = valid.sum((2, 3)).clamp(min=1)
    mean = (image * valid).sum((2, 3)) / count
    apart = (image - mean[:, :, None, None]) * valid
    return mean, (apart.square().sum((2, 3)) / count).sqrt()
