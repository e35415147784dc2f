"""Bytes of an image file, in the formats of the published archives and the same bytes every time."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

SYNTHETIC_NOTE = "Synthetic image made by shard-builder demo; it shows no real place."
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class Georeference:
    """Where the upper left corner of a north-up raster lies, in metres of a WGS 84 / UTM zone."""

    epsg: int
    """326zz for zones of the northern hemisphere, 327zz for the southern."""
    easting: float
    northing: float
    gsd_m: float

    def tags(self) -> list[tuple[int, str, int, Any, bool]]:
        """Return the GeoTIFF tags: pixel scale, tie point, keys and the text they refer to."""
        hemisphere = "N" if self.epsg < 32700 else "S"
        text = f"WGS 84 / UTM zone {self.epsg % 100}{hemisphere}|WGS 84|"
        citation = text.index("|") + 1
        keys = [
            (1024, 0, 1, 1),  # a projected coordinate system
            (1025, 0, 1, 1),  # a pixel is an area
            (1026, 34737, citation, 0),
            (2049, 34737, len(text) - citation, citation),
            (2054, 0, 1, 9102),  # degrees
            (3072, 0, 1, self.epsg),
            (3076, 0, 1, 9001),  # metres
        ]
        directory = [1, 1, 0, len(keys), *(number for key in keys for number in key)]
        return [
            (33550, "d", 3, (self.gsd_m, self.gsd_m, 0.0), True),
            (33922, "d", 6, (0.0, 0.0, 0.0, self.easting, self.northing, 0.0), True),
            (34735, "H", len(directory), directory, True),
            (34737, "s", 0, text, True),
        ]


def encode_tiff(image: npt.NDArray[Any], where: Georeference | None = None) -> bytes:
    """Return a deflated TIFF of `image` [H,W] or [H,W,C], bands interleaved, with geographic tags if known."""
    buffer = io.BytesIO()
    colour = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    tifffile.imwrite(
        buffer,
        image,
        photometric="rgb" if colour else "minisblack",
        planarconfig="contig" if image.ndim == 3 else None,
        compression="zlib",
        predictor=True,
        metadata=None,
        description=SYNTHETIC_NOTE,
        software="shard-builder demo",
        extratags=where.tags() if where else (),
    )
    return buffer.getvalue()


def encode_jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    """Return a JPEG of a colour image [H,W,3]."""
    return bytes(imagecodecs.jpeg8_encode(image, level=_JPEG_QUALITY))


def encode_png(image: npt.NDArray[np.uint8]) -> bytes:
    """Return a PNG of a colour image [H,W,3]."""
    return bytes(imagecodecs.png_encode(image))
