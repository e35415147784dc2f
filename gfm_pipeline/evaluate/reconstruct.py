"""Held-out reconstruction: every sensor of a sample from every masked sensor of it.

The loss is that of training, L1 over hidden cells in normalised units, whatever share of training crosses sensors.
For radar, the whole reconstructed image is compared with the original as well (see speckle.py). Results are kept per
sample until the end, so that means do not depend on who computed what. Pixels that were not measured count in
nothing, and a sample without a measured pixel to be reconstructed counts in no mean of its direction.

Legend: N samples, B images, C bands, H x W pixels, i x j cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfm_pipeline.data.batch import StreamBatch
from gfm_pipeline.data.normalize import Normalisation
from gfm_pipeline.evaluate.samples import SEED, HeldOut, measure
from gfm_pipeline.evaluate.speckle import backscatter_rows, is_backscatter, summarise_backscatter
from gfm_pipeline.evaluate.team import Team
from gfm_pipeline.models.embed import cells_to_pixels
from gfm_pipeline.models.msgfm import MsGFM, SensorImages
from gfm_pipeline.models.reconstruct import reconstruct_whole
from gfm_pipeline.sensors import SensorSpec

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Found:
    """What one batch gave, by direction "s1->s2"; the first axis is that of its rows."""

    losses: dict[str, Array]
    backscatter: dict[str, Array]


def evaluate_reconstruction(
    model: MsGFM, held_out: HeldOut, sensors: Mapping[str, SensorSpec], device: torch.device, team: Team
) -> dict[str, Any]:
    """Return {"samples", "loss": {direction: L1}, "backscatter": {direction: {band: {...}}}}; all processes call it."""
    parts = measure(held_out, team, lambda batch: _reconstruct(model, batch.to(device), held_out, sensors))
    losses = _joined([(rows, found.losses) for rows, found in parts])
    backscatter = _joined([(rows, found.backscatter) for rows, found in parts])
    out: dict[str, Any] = {
        "samples": sum(len(rows) for rows, _ in parts),
        "loss": {direction: mean_of_known(values) for direction, values in losses.items()},
    }
    if backscatter:
        out["backscatter"] = {
            direction: summarise_backscatter(rows, sensors[direction.partition("->")[2]])
            for direction, rows in backscatter.items()
        }
    return out


@torch.inference_mode()
def _reconstruct(model: MsGFM, batch: StreamBatch, held_out: HeldOut, sensors: Mapping[str, SensorSpec]) -> _Found:
    found = _Found({}, {})
    radars = [sensor for sensor in batch.images if is_backscatter(sensors[sensor])]
    for source, image_BCHW in batch.images.items():
        images = SensorImages(source, image_BCHW, batch.masks[source])
        (features,) = model.encode([images])
        for target, truth_BCHW in batch.images.items():
            valid_BCHW = batch.valid.get(target)
            loss_B = hidden_l1(model.decode(target, features), truth_BCHW, batch.masks[source], valid_BCHW)
            found.losses[f"{source}->{target}"] = loss_B.double().cpu().numpy()
        for target, whole_BCHW in (reconstruct_whole(model, images, radars, SEED) if radars else {}).items():
            statistics = held_out.mixture.normalisation[target]
            before, after = (physical(image, statistics) for image in (batch.images[target], whole_BCHW))
            valid = batch.valid[target].cpu().numpy() if target in batch.valid else None
            found.backscatter[f"{source}->{target}"] = backscatter_rows(before, after, sensors[target], valid)
    return found


def hidden_l1(image_BCHW: Tensor, target_BCHW: Tensor, mask_Bij: Tensor, valid_BCHW: Tensor | None = None) -> Tensor:
    """Return [B] the mean distance over the hidden cells of each image and all bands.

    With `valid`, over the pixels there that were measured; NaN for an image without one.
    """
    hidden_B1HW = cells_to_pixels(mask_Bij, target_BCHW.shape[-1])
    if valid_BCHW is not None:
        counted_BCHW = valid_BCHW & hidden_B1HW.bool()
        distance_BCHW = (image_BCHW.float() - target_BCHW.masked_fill(~valid_BCHW, 0)).abs() * counted_BCHW
        return distance_BCHW.sum((1, 2, 3)) / counted_BCHW.sum((1, 2, 3))
    distance_BCHW = (image_BCHW.float() - target_BCHW).abs() * hidden_B1HW
    return distance_BCHW.sum((1, 2, 3)) / (hidden_B1HW.sum((1, 2, 3)) * target_BCHW.shape[1])


def mean_of_known(values: NDArray[np.floating]) -> float:
    """Return the mean of the numbers that are not NaN; NaN when there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def physical(image_BCHW: Tensor, statistics: Normalisation) -> Array:
    """Return normalised images in the sensor's units."""
    mean, std = (column.astype(np.float64) for column in statistics.columns())
    out: Array = image_BCHW.double().cpu().numpy() * std + mean
    return out


def _joined(parts: list[tuple[NDArray[np.int64], dict[str, Array]]]) -> dict[str, Array]:
    """Return by direction the rows that count, of all batches."""
    directions = parts[0][1] if parts else {}
    return {name: np.concatenate([values[name][rows] for rows, values in parts]) for name in directions}
