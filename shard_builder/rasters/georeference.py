"""Where a raster lies, as its GeoTIFF tags say. What they do not say is not guessed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer
from pyproj.exceptions import ProjError

Affine = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): x = a*col + b*row + c, y = d*col + e*row + f, of a pixel's upper left corner."""


@dataclass(frozen=True)
class Georeference:
    """Coordinate reference system and transform of a raster."""

    crs: str
    transform: Affine

    def window(self, row: int, column: int) -> Georeference:
        """Return the georeference of the part that starts at (row, column)."""
        a, b, c, d, e, f = self.transform
        return Georeference(self.crs, (a, b, a * column + b * row + c, d, e, d * column + e * row + f))

    def lies_with(self, size: tuple[int, int], other: Georeference, other_size: tuple[int, int]) -> bool:
        """Return whether the corners of two rasters (height, width) agree to half a pixel of the coarser."""
        if self.crs != other.crs:
            return False
        pixel = max(math.hypot(place.transform[0], place.transform[3]) for place in (self, other))
        return all(
            math.dist(self._at(*corner, *size), other._at(*corner, *other_size)) <= pixel / 2
            for corner in ((0, 0), (0, 1), (1, 0))
        )

    def _at(self, down: int, right: int, height: int, width: int) -> tuple[float, float]:
        a, b, c, d, e, f = self.transform
        row, column = down * height, right * width
        return a * column + b * row + c, d * column + e * row + f

    def footprint(self, height: int, width: int) -> tuple[tuple[float, float], ...] | None:
        """Return the corners (longitude, latitude), counter-clockwise; None where PROJ cannot place them on Earth."""
        a, b, c, d, e, f = self.transform
        corners = [(0, height), (width, height), (width, 0), (0, 0)]
        points = [(a * x + b * y + c, d * x + e * y + f) for x, y in corners]
        try:
            to_wgs84 = _transformer(self.crs, "OGC:CRS84")
            placed = tuple(to_wgs84.transform(x, y) for x, y in points)
        except ProjError:
            return None
        if not all(abs(lon) <= 180 and abs(lat) <= 90 for lon, lat in placed):
            return None
        return placed if a * e < b * d else placed[::-1]  # rows run south; a raster with rows north is mirrored

    @property
    def gsd_m(self) -> float | None:
        """Pixel size in metres for a projected system; None for a geographic one."""
        return abs(self.transform[0]) if _is_projected(self.crs) else None


def to_pixels(
    rows: NDArray[np.float64], columns: NDArray[np.float64], place: Georeference, other: Georeference
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return positions (rows, columns) in pixels of a raster at `place` as positions in pixels of one at `other`.

    (0, 0) is the upper left corner of a raster. What PROJ cannot place is infinite.
    """
    a, b, c, d, e, f = place.transform
    x, y = a * columns + b * rows + c, d * columns + e * rows + f
    if place.crs != other.crs:
        x, y = _transformer(place.crs, other.crs).transform(x, y)
    a, b, c, d, e, f = other.transform
    scale = a * e - b * d
    with np.errstate(invalid="ignore"):  # what is infinite may become NaN
        return (a * (y - f) - d * (x - c)) / scale, (e * (x - c) - b * (y - f)) / scale


def read_georeference(page: Any) -> Georeference | None:
    """Return the georeference of a tifffile page, or None when its tags do not give one."""
    tags = page.geotiff_tags or {}
    code = tags.get("ProjectedCSTypeGeoKey") or tags.get("GeographicTypeGeoKey")
    transform = _transform(tags)
    if code is None or transform is None or int(code) in (0, 32767):
        return None
    if not all(map(math.isfinite, transform)) or transform[0] * transform[4] == transform[1] * transform[3]:
        return None  # damaged: no place, or no area
    if int(tags.get("GTRasterTypeGeoKey", 1)) == 2:  # coordinates are of pixel centres
        a, b, c, d, e, f = transform
        transform = (a, b, c - (a + b) / 2, d, e, f - (d + e) / 2)
    return Georeference(f"EPSG:{int(code)}", transform)


def _transform(tags: dict[str, Any]) -> Affine | None:
    matrix = tags.get("ModelTransformation")
    if matrix is not None:
        flat = [float(value) for row in matrix for value in (row if hasattr(row, "__len__") else [row])]
        return flat[0], flat[1], flat[3], flat[4], flat[5], flat[7]
    scale, tie = tags.get("ModelPixelScale"), tags.get("ModelTiepoint")
    if scale is None or tie is None or len(tie) != 6:
        return None
    column, row, _, x, y, _ = (float(value) for value in tie)
    return float(scale[0]), 0.0, x - column * scale[0], 0.0, -float(scale[1]), y + row * scale[1]


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


@lru_cache(maxsize=64)
def _is_projected(crs: str) -> bool:
    from pyproj import CRS

    try:
        return bool(CRS(crs).is_projected)
    except ProjError:
        return False
