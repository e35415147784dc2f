"""What was not measured becomes the mean of its band; what was stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from gfm_pipeline.sensors.missing import is_declared, unmeasured


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


LOWEST = float(np.finfo("f4").min)
NEARLY = [  # (declared, pixel, type, whether GDAL takes them for one)
    (-3.40282306073709653e38, LOWEST, "f4", True),
    (-3.4e38, LOWEST, "f4", True),
    (-9999.001, -9999, "f4", True),
    (-9999.01, -9999, "f4", False),
    (-99999999, -1e8, "f4", True),
    (9.969e36, 9.96921e36, "f4", False),
    (-1.79769e308, float(np.finfo("f8").min), "f8", True),
    (-9999.0000000001, -9999, "f8", True),
    (0, 1e-30, "f4", False),
    (0, -0.0, "f4", True),
    (-np.inf, -np.inf, "f4", True),
    (np.nan, np.nan, "f4", True),
    (np.nan, 0, "u1", False),
    (255, 255, "u1", True),
    (256, 0, "u1", False),
    (-1, 65535, "u2", False),
    (2**64 - 1, 2**64 - 1, "u8", True),
    (2**63 - 1, 2**63 - 2, "i8", False),
]


@pytest.mark.parametrize(("declared", "pixel", "dtype", "same"), NEARLY)
def test_declared_values_are_compared_as_gdal_does(declared: float, pixel: float, dtype: str, same: bool) -> None:
    raster = np.array([[pixel, 7]], dtype)
    assert is_declared(raster, declared).tolist() == [[same, False]]
