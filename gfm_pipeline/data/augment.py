"""Random crop and horizontal flip: drawn once per sample, applied to each of its sensors.

The resized crop follows torchvision's RandomResizedCrop; the plain one has the size of the training image, so that
pixels are copied and not resized. Either is drawn on the pixel grid of the sample's coarsest sensor and
carried to the others in relative coordinates, so sensors whose sizes are multiples of each other stay aligned exactly
and all others to half a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.config import AugmentConfig
from gfm_pipeline.data.seeding import uniforms
from gfm_pipeline.errors import ShardError

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


def crop_draws(*name: int) -> NDArray[np.float64]:
    """Return the random numbers of the crop of the sample that `name` (integers, see `seeding`) stands for."""
    return uniforms(ATTEMPTS * _DRAWS_PER_ATTEMPT + 1, *name)


def choose_crop(
    config: AugmentConfig, sizes: Iterable[tuple[int, int]], image_px: int, draws: NDArray[np.float64]
) -> Crop:
    """Return the crop that the `crop_draws` of a sample stand for.

    `sizes` are the (height, width) of its sensors; the one with the fewest pixels gives the grid. Raises ShardError
    when a plain crop of `image_px` does not fit in it.
    """
    rows, columns = min(sizes, key=lambda size: (size[0] * size[1], size))
    flip = bool(config.flip and draws[-1] < 0.5)
    boxes = (
        _plain_boxes(rows, columns, image_px) if config.kind == "crop" else _resized_boxes(config, rows, columns, draws)
    )
    for attempt, (height, width) in enumerate(boxes):
        if 0 < height <= rows and 0 < width <= columns:
            _, _, top_draw, left_draw = draws[attempt * _DRAWS_PER_ATTEMPT :][:_DRAWS_PER_ATTEMPT].tolist()
            top, left = int(top_draw * (rows - height + 1)), int(left_draw * (columns - width + 1))
            return Crop(rows, columns, top, left, height, width, flip)
    height, width = _largest_in_ratio(config.ratio, rows, columns)
    return Crop(rows, columns, (rows - height) // 2, (columns - width) // 2, height, width, flip)


def _plain_boxes(rows: int, columns: int, image_px: int) -> Iterator[tuple[int, int]]:
    if min(rows, columns) < image_px:
        raise ShardError(
            f"an image of {rows} x {columns} pixels holds no crop of data.image_px {image_px}. Set data.augment.kind "
            "to resized_crop, or data.image_px lower."
        )
    yield image_px, image_px


def _resized_boxes(
    config: AugmentConfig, rows: int, columns: int, draws: NDArray[np.float64]
) -> Iterator[tuple[int, int]]:
    """Yield the (height, width) that are tried, in order."""
    low, high = math.log(config.ratio[0]), math.log(config.ratio[1])
    for attempt in range(ATTEMPTS):
        area_draw, ratio_draw = draws[attempt * _DRAWS_PER_ATTEMPT :][:2].tolist()
        area = rows * columns * (config.scale[0] + (config.scale[1] - config.scale[0]) * area_draw)
        ratio = math.exp(low + (high - low) * ratio_draw)
        yield round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))


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
