"""Rasters as lossless JPEG XL members: the smallest, for what is read seldom.

All planes of a raster [.., C,H,W] stand below each other in one grey image of C*H (times T) rows, which any JPEG XL
reader opens. JPEG XL holds unsigned integers of 8 and 16 bits and 32-bit floats; int16 is shifted by 32768.
"""

from __future__ import annotations

import math

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ShardError

JXL_DTYPES = ("uint8", "uint16", "int16", "float32")
Array = NDArray[np.generic]


def encode_jxl(raster: Array) -> bytes:
    """Return the raster as JPEG XL; raise ShardError for a type that it cannot hold without loss."""
    if str(raster.dtype) not in JXL_DTYPES:
        raise ShardError(f"jxl members hold {', '.join(JXL_DTYPES)}, not {raster.dtype}: encode it as blosc2 or tif.")
    planes = raster.reshape(-1, raster.shape[-1])
    if planes.dtype == np.int16:
        planes = (planes.astype(np.int32) + 32768).astype(np.uint16)
    return bytes(imagecodecs.jpegxl_encode(planes, lossless=True, effort=1, numthreads=1))


def decode_jxl(data: bytes | memoryview, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Array:
    """Return the raster; raise ShardError when the image is not of `dtype` and `shape`."""
    stored = np.dtype(np.uint16) if dtype == np.int16 else dtype
    out = np.empty((math.prod(shape[:-1]), shape[-1]), stored)  # bytes that claim more cannot allocate more
    planes = imagecodecs.jpegxl_decode(bytes(data), out=out, numthreads=1)
    if planes.shape != out.shape or planes.dtype != stored:
        raise ShardError(f"the JPEG XL member holds {planes.dtype}{list(planes.shape)}, expected {dtype}{list(shape)}.")
    if dtype == np.int16:
        planes = (planes.astype(np.int32) - 32768).astype(np.int16)
    found: Array = planes.reshape(shape)
    return found
