from __future__ import annotations

import numpy as np
import pytest

from gfm_pipeline.data.config import MaskConfig
from gfm_pipeline.data.masking import draw_mask, mask_grid
from gfm_pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("image_px", "cell_px", "ratio", "expected"),
    [
        (192, 32, 0.6, (6, 22)),
        (64, 32, 0.6, (2, 3)),
        (50, 10, 0.6, (5, 15)),
        (40, 10, 0.5, (4, 8)),
        (40, 10, 0.01, (4, 1)),
    ],
)
def test_the_number_of_hidden_cells(image_px, cell_px, ratio, expected):
    assert mask_grid(MaskConfig(cell_px=cell_px, ratio=ratio), image_px) == expected


def test_rounding_errors_hide_no_further_cell():
    # 0.14 * 100 is 14.000000000000002.
    assert mask_grid(MaskConfig(cell_px=1, ratio=0.14), 10) == (10, 14)


def test_masks_hide_exactly_as_many_and_every_cell_equally_often():
    masks = np.stack([draw_mask(6, 22, sample, 7) for sample in range(2000)])
    assert masks.dtype == np.bool_
    assert (masks.sum(axis=(1, 2)) == 22).all()
    assert abs(masks.mean(axis=0) - 22 / 36).max() < 0.05
    assert len(np.unique(masks.reshape(2000, -1), axis=0)) > 1990


def test_an_image_that_cells_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match=r"data.image_px is 100, expected a multiple of data.mask.cell_px \(32\)"):
        mask_grid(MaskConfig(), 100)


def test_a_mask_that_leaves_nothing_visible_is_refused():
    with pytest.raises(ConfigError, match="hides all 1 cells"):
        mask_grid(MaskConfig(), 32)
