"""Rasters as TIFF members: zstd with a predictor, in strips, one page per date, one plane per band.

GDAL and QGIS open such a member straight from the tar, and so does `tifffile.imread`, which gives [C,H,W] or
[T,C,H,W] without the axes that have length one.
"""

from __future__ import annotations

import io
import math

import numpy as np
import tifffile
from numpy.typing import NDArray

from gfm_pipeline.errors import ShardError

STRIP_ROWS = 64
"""Rows that are decoded together: a window costs the strips that it touches."""
_PREDICTOR = {"f": 3, "i": 2, "u": 2}
Array = NDArray[np.generic]


def encode_tif(raster: Array) -> bytes:
    """Return a raster [.., C,H,W] as a TIFF that depends on nothing but the raster."""
    pages = raster.reshape(-1, *raster.shape[-3:])  # [T,C,H,W]
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for page_CHW in pages:
            planes = page_CHW[0] if len(page_CHW) == 1 else page_CHW
            writer.write(
                planes,
                photometric="minisblack",
                planarconfig=None if planes.ndim == 2 else "separate",
                compression="zstd",
                compressionargs={"level": 1},
                predictor=_PREDICTOR[raster.dtype.kind],
                rowsperstrip=STRIP_ROWS,
                metadata=None,
                software="",
                maxworkers=1,
            )
    return buffer.getvalue()


def decode_tif(
    data: bytes | memoryview, dtype: np.dtype[np.generic], shape: tuple[int, ...], rows: tuple[int, int] | None = None
) -> Array:
    """Return the raster, or its `rows` (first, last + 1); raise ShardError when it is not of `dtype` and `shape`.

    The pages are compared with what is expected before any pixel is decoded.
    """
    channels, height, width = shape[-3:]
    first, last = rows or (0, height)
    out = np.empty((math.prod(shape[:-3]), channels, last - first, width), dtype)
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        pages = [tif.pages[i] for i in range(len(tif.pages))] if len(tif.pages) == len(out) else []
        for page in pages:
            found = (page.samplesperpixel, page.imagelength, page.imagewidth)
            if found != (channels, height, width) or page.dtype != dtype or page.is_tiled:
                pages = []
        if not pages:
            raise ShardError(f"the TIFF member does not hold {dtype}{list(shape)} in strips.")
        for page, target in zip(pages, out, strict=True):
            _decode_page(page, target, first, last)
    return out.reshape(*shape[:-2], last - first, width)


def _decode_page(page: tifffile.TiffPage, target: Array, first: int, last: int) -> None:
    """Fill `target` [C,rows,W] with the rows [first, last) of a page."""
    strips = -(-page.imagelength // page.rowsperstrip)
    if len(page.dataoffsets) != strips * len(target):
        raise ShardError(f"a TIFF page has {len(page.dataoffsets)} strips, expected {strips * len(target)}.")
    handle = page.parent.filehandle
    for plane in range(len(target)):
        for strip in range(first // page.rowsperstrip, -(-last // page.rowsperstrip)):
            index = plane * strips + strip
            handle.seek(page.dataoffsets[index])
            segment, _, found = page.decode(handle.read(page.databytecounts[index]), index)
            top = strip * page.rowsperstrip
            if segment is None or found[1:3] != (min(page.rowsperstrip, page.imagelength - top), page.imagewidth):
                raise ShardError(f"strip {index} of a TIFF member holds no {page.imagewidth} px rows.")
            low, high = max(first, top), min(last, top + found[1])
            target[plane, low - first : high - first] = segment[0, low - top : high - top, :, 0]
