"""What was not measured becomes the mean of its band; what was stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from gfm_pipeline.data.normalize import fill_unmeasured

MEAN = np.array([[[5.0]], [[-2.0]]], np.float32)


@pytest.mark.parametrize(("dtype", "nodata"), [("float32", None), ("float32", -9999.0), ("uint16", 0.0)])
def test_only_unmeasured_pixels_become_the_mean(dtype: str, nodata: float | None) -> None:
    raster = np.arange(1, 19, dtype=dtype).reshape(2, 3, 3)
    raster[1, 2, 0] = np.nan if nodata is None else nodata
    filled = fill_unmeasured(raster, nodata, MEAN)
    assert filled[1, 2, 0] == -2
    kept = np.ones(raster.shape, bool)
    kept[1, 2, 0] = False
    np.testing.assert_array_equal(filled[kept], raster[kept])


def test_a_complete_raster_is_not_copied() -> None:
    raster = np.ones((2, 3, 3), np.float32)
    assert fill_unmeasured(raster, None, MEAN) is raster
    assert fill_unmeasured(raster, 0.0, MEAN) is raster
