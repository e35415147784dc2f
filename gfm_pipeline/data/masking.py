"""Which cells of an image are hidden (SimMIM): an exact number, drawn anew for each sample, pass and sensor."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.config import MaskConfig
from gfm_pipeline.data.seeding import permutation
from gfm_pipeline.errors import ConfigError


def mask_grid(config: MaskConfig, image_px: int) -> tuple[int, int]:
    """Return (cells per side, hidden cells of an image); raise ConfigError for a size the cells do not divide."""
    if image_px % config.cell_px:
        raise ConfigError(
            f"data.image_px is {image_px}, expected a multiple of data.mask.cell_px ({config.cell_px}): an image is "
            "hidden in whole cells."
        )
    side = image_px // config.cell_px
    # The product may exceed a whole number by rounding alone: 0.55 * 20 gives 11.000000000000002.
    hidden = math.ceil(config.ratio * side * side - 1e-9)
    if hidden >= side * side:
        raise ConfigError(
            f"data.mask.ratio {config.ratio} hides all {side * side} cells of an image of {image_px} px. Set a smaller "
            "ratio, or a smaller data.mask.cell_px."
        )
    return side, hidden


def draw_mask(side: int, hidden: int, *name: int) -> NDArray[np.bool_]:
    """Return a mask [side,side], true in exactly `hidden` cells; `name` are integers, see `seeding`."""
    mask = np.zeros(side * side, dtype=np.bool_)
    mask[permutation(side * side, *name)[:hidden]] = True
    return mask.reshape(side, side)
