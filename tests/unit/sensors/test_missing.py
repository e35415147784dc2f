"""What was not measured becomes the mean of its band; what was stays as it is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gfm_pipeline.sensors.missing import is_declared, unmeasured, unmeasured_tensor


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
    (-3.40282347e38, LOWEST, "f4", True),
    (3.4028235e38, -LOWEST, "f4", True),
    (-3.41e38, LOWEST, "f4", False),
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


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"])
@pytest.mark.parametrize(
    "nodata", [None, 0.0, 0.5, 255.0, -1.0, -9999.0, 65535.0, 2147483647.0, -(2.0**31), 0.1, 1e30, 2.0**63, -3.4e38]
)
def test_arrays_and_tensors_have_one_rule(dtype: str, nodata: float | None) -> None:
    torch = pytest.importorskip("torch")
    values = [0, 1, 2, 3, 254, 255, -1, -9999, 65535, 2147483646, 2147483647, -(2.0**31)]
    holds = np.array([value for value in values if np.dtype(dtype).kind == "f" or _fits(value, dtype)], dtype)
    if holds.dtype.kind == "f":
        holds = np.concatenate([holds, np.array([np.nan, np.inf, 0.5, 0.1, 1e30, -3.4e38, 2.0**63], dtype)])
    of_array, of_tensor = unmeasured(holds, nodata), unmeasured_tensor(torch.from_numpy(holds), nodata)
    as_stored = nodata if nodata is None or holds.dtype.kind != "f" else float(holds.dtype.type(nodata))
    expected = [math.isnan(value) or value == as_stored for value in holds.tolist()]
    assert (np.zeros(len(holds), bool) if of_array is None else of_array).tolist() == expected
    assert ([False] * len(holds) if of_tensor is None else of_tensor.tolist()) == expected


def _fits(value: float, dtype: str) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max)
