"""What was not measured becomes the mean of its band; what was stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from gfm_pipeline.sensors.missing import unmeasured


@pytest.mark.parametrize(("dtype", "nodata"), [("float32", None), ("float32", -9999.0), ("uint16", 0.0)])
def test_what_was_not_measured_is_found(dtype: str, nodata: float | None) -> None:
    raster = np.arange(1, 19, dtype=dtype).reshape(2, 3, 3)
    raster[1, 2, 0] = np.nan if nodata is None else nodata
    found = unmeasured(raster, nodata)
    assert found is not None
    assert np.argwhere(found).tolist() == [[1, 2, 0]]


def test_a_complete_raster_has_none() -> None:
    raster = np.ones((2, 3, 3), np.float32)
    assert unmeasured(raster, None) is None
    assert unmeasured(raster, 0.0) is None
