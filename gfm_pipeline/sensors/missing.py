"""The one rule for what was not measured; builder, statistics, loader, objectives, metrics, pictures and export use it.

A pixel was not measured where it is NaN or equals its sensor's `nodata`. The builder brings every other way in which a
file can say so (masks, alpha, fill values, tags that are nearly equal) to this form, so that no reader needs another.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def unmeasured(raster: NDArray[np.generic], nodata: float | None) -> NDArray[np.bool_] | None:
    """Return where nothing was measured in `raster`, shaped like it; None when that is nowhere."""
    missing: NDArray[np.bool_] | None = np.isnan(raster) if raster.dtype.kind == "f" else None
    if nodata is not None:
        hit: NDArray[np.bool_] = raster == nodata
        missing = hit if missing is None else missing | hit
    return missing if missing is not None and missing.any() else None
