"""The one rule for what was not measured; builder, statistics, loader, objectives, metrics, pictures and export use it.

A pixel was not measured where it is NaN or equals its sensor's `nodata`. The builder brings every other way in which a
file can say so (masks, alpha, fill values, tags that are nearly equal) to this form, so that no reader needs another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def unmeasured(raster: NDArray[np.generic], nodata: float | None) -> NDArray[np.bool_] | None:
    """Return where nothing was measured in `raster`, shaped like it; None when that is nowhere."""
    missing: NDArray[np.bool_] | None = _missing(raster, nodata, integral=raster.dtype.kind != "f")
    return missing if missing is not None and missing.any() else None


def holds(dtype: np.dtype[np.generic], value: float) -> bool:
    """Return whether a pixel of `dtype` can be `value`; NaN is for floating point only."""
    if dtype.kind == "f":
        if not math.isfinite(value):
            return True
        with np.errstate(over="ignore"):  # -3.40282347e+38 is float32's lowest number, rounded away from 0
            return bool(np.isfinite(dtype.type(value)))
    if dtype.kind == "b":
        return value in (0, 1)
    limits = np.iinfo(str(dtype))
    return math.isfinite(value) and value == int(value) and limits.min <= int(value) <= limits.max


def is_declared(raster: NDArray[np.generic], value: float) -> NDArray[np.bool_]:
    """Return where `raster` holds the value that its file declares for "nothing was measured", shaped like it.

    Floating point is compared as GDAL does it, since headers are often written with fewer digits than the pixels have:
    to twice the precision of 32 bits; near the largest number of the type everything of its sign and size is equal.
    """
    found: NDArray[np.bool_]
    if not holds(raster.dtype, value):
        return np.zeros(raster.shape, np.bool_)
    if raster.dtype.kind != "f":
        found = raster == raster.dtype.type(int(value))
        return found
    if math.isnan(value):
        found = np.isnan(raster)
        return found
    fill = raster.dtype.type(value)
    found = raster == fill
    if math.isinf(value) or value == 0:
        return found
    with np.errstate(over="ignore", invalid="ignore"):
        width = np.abs(raster + fill) * (2 * np.finfo(np.float32).eps)
        near: NDArray[np.bool_] = (np.abs(raster - fill) < width) & np.isfinite(raster)
    return found | near


def unmeasured_tensor(image: Tensor, nodata: float | Sequence[float] | None) -> Tensor | None:
    """Return where nothing was measured in a tensor of any type, bool and shaped like it; None when that is known to
    be nowhere. What is there is not looked at, so that no value has to come from the device.

    `nodata` may be several values, for images of archives that use different ones.
    """
    integral = not image.is_floating_point()
    # As int64: torch would bring a number to the type of the pixels, where 65535 becomes the 255 of uint8.
    pixels = image.long() if integral else image
    missing: Tensor | None = None
    for value in nodata or (None,) if isinstance(nodata, Sequence) else (nodata,):
        found: Tensor | None = _missing(pixels, value, integral)
        if found is not None:
            missing = found if missing is None else missing | found
    return missing


def _missing(pixels: Any, nodata: float | None, integral: bool) -> Any:
    """The rule, for arrays of numpy and torch alike. A `nodata` is brought to the type of the pixels, as they were."""
    missing = None if integral else pixels != pixels  # NaN alone is not equal to itself
    if nodata is None or (integral and not float(nodata).is_integer()):
        return missing
    if integral and not -(2**63) <= nodata < 2**63:  # no pixel is that, and torch cannot compare with it
        return missing
    # Integers are compared with an integer: torch would bring both to float32, which has not 2147483647.
    hit = pixels == (int(nodata) if integral else nodata)
    return hit if missing is None else missing | hit
