"""Random resized crop and horizontal flip: drawn once per sample, applied to each of its sensors.

The crop follows torchvision's RandomResizedCrop. It is drawn on the pixel grid of the sample's coarsest sensor and
carried to the others in relative coordinates, so sensors whose sizes are multiples of each other stay aligned exactly
and all others to half a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from gfm_pipeline.data.config import AugmentConfig
from gfm_pipeline.data.seeding import uniforms
from gfm_pipeline.shards.codec import Raster

ATTEMPTS = 10
"""Crops drawn before falling back to the largest one in the centre, as in torchvision."""
_DRAWS_PER_ATTEMPT = 4


@dataclass(frozen=True)
class Crop:
    """A box on a grid of rows x columns, and whether it is mirrored."""

    rows: int
    columns: int
    top: int
    left: int
    height: int
    width: int
    flip: bool

    def box(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the box on another grid over the same ground, at least one pixel in each direction."""
        return (
            _scaled(self.top, self.height, self.rows, height),
            _scaled(self.left, self.width, self.columns, width),
        )


def draw_crop(config: AugmentConfig, sizes: Iterable[tuple[int, int]], *name: int) -> Crop:
    """Return the crop of the sample that `name` (integers, see `seeding`) stands for.

    `sizes` are the (height, width) of its sensors; the one with the fewest pixels gives the grid.
    """
    rows, columns = min(sizes, key=lambda size: (size[0] * size[1], size))
    draws = uniforms(ATTEMPTS * _DRAWS_PER_ATTEMPT + 1, *name)
    flip = bool(config.flip and draws[-1] < 0.5)
    low, high = math.log(config.ratio[0]), math.log(config.ratio[1])
    for area_draw, ratio_draw, top_draw, left_draw in draws[:-1].reshape(ATTEMPTS, _DRAWS_PER_ATTEMPT).tolist():
        area = rows * columns * (config.scale[0] + (config.scale[1] - config.scale[0]) * area_draw)
        ratio = math.exp(low + (high - low) * ratio_draw)
        height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < height <= rows and 0 < width <= columns:
            top, left = int(top_draw * (rows - height + 1)), int(left_draw * (columns - width + 1))
            return Crop(rows, columns, top, left, height, width, flip)
    height, width = _largest_in_ratio(config.ratio, rows, columns)
    return Crop(rows, columns, (rows - height) // 2, (columns - width) // 2, height, width, flip)


def apply_crop(raster: Raster, crop: Crop, image_px: int) -> torch.Tensor:
    """Return the crop of `raster` [C,H,W], of any type, as float32 [C,image_px,image_px] in the same units.

    Pixels become float32 before they are resized, so integers are not rounded. A crop that already has the size is
    copied exactly.
    """
    rows, columns = crop.box(raster.shape[1], raster.shape[2])
    pixels: NDArray[np.float32] = raster[:, rows, columns].astype(np.float32, order="C")  # [C,h,w]
    image = torch.from_numpy(pixels)
    if image.shape[1:] != (image_px, image_px):
        image = interpolate(image[None], size=(image_px, image_px), mode="bilinear", antialias=True)[0]
    return image.flip(-1) if crop.flip else image


def _scaled(start: int, length: int, grid: int, size: int) -> slice:
    begin = min(round(start * size / grid), size - 1)
    return slice(begin, max(round((start + length) * size / grid), begin + 1))


def _largest_in_ratio(ratio: tuple[float, float], rows: int, columns: int) -> tuple[int, int]:
    """Return (height, width) of the largest box whose width / height lies in `ratio`."""
    if columns / rows < ratio[0]:
        return max(1, min(rows, round(columns / ratio[0]))), columns
    if columns / rows > ratio[1]:
        return rows, max(1, min(columns, round(rows * ratio[1])))
    return rows, columns
