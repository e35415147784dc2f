"""Where a raster lies: known, known but for its coordinate reference system, or (None) not at all.

What a file does not say is not guessed. A georeference without a system can be compared with others, but has no place
on Earth. One without a grid (ground control points, rational polynomials) has a place, but its pixels can be compared
with those of the same points only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError

Affine = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): x = a*col + b*row + c, y = d*col + e*row + f, of a pixel's upper left corner."""
Point = tuple[float, float, float, float]
"""A ground control point: (row, column, x, y)."""
Size = tuple[int, int]
"""(height, width) in pixels."""

TRUE_SCALE = 0.01
"""Up to this share a projection's scale is left out of `gsd_m`: that of UTM is 0.0004 at most, by design."""
LONG_LAT = "OGC:CRS84"
HALF = 0.5 + 1e-6
"""Of a pixel, and what coordinates are rounded by: rasters that are further apart do not lie together."""


@dataclass(frozen=True)
class Georeference:
    """Coordinate reference system and transform of a raster, or its ground control points."""

    crs: str | None
    """As "EPSG:32633" or "ESRI:54009" where there is such a code, else as WKT 2; None: not stated, or of no use."""
    transform: Affine | None
    """None: the raster has ground control points in place of a grid."""
    points: tuple[Point, ...] = ()
    corner: tuple[int, int] = (0, 0)
    """(row, column) at which the raster starts in what the points count."""

    def window(self, row: int, column: int) -> Georeference:
        """Return the georeference of the part that starts at (row, column)."""
        if self.transform is None:
            return replace(self, corner=(self.corner[0] + row, self.corner[1] + column))
        a, b, c, d, e, f = self.transform
        return Georeference(self.crs, (a, b, a * column + b * row + c, d, e, d * column + e * row + f))

    def lies_with(self, size: Size, other: Georeference, other_size: Size) -> bool:
        """Return whether the corners of two rasters (height, width) agree to half a pixel of the coarser."""
        return self.apart(size, other, other_size) <= HALF

    def apart(self, size: Size, other: Georeference, other_size: Size) -> float:
        """Return how far the corners of two rasters lie apart at most, in rows or columns of the coarser.

        Infinite where that is not known. Where one of them has no coordinate reference system, its numbers are taken
        to be of the other's. Rasters without a grid lie together where all their points do.
        """
        if self.transform is None or other.transform is None:
            return 0.0 if self == other and size == other_size else math.inf
        if not same_crs(self.crs, other.crs) and not all(map(is_earthly, filter(None, (self.crs, other.crs)))):
            return math.inf
        return min(_steps(self, size, other, other_size), _steps(other, other_size, self, size))

    @property
    def described(self) -> str:
        """How messages name it."""
        crs = (self.crs or "no coordinate reference system").partition(",")[0]
        return f"{crs}, {self.transform or f'{len(self.points)} ground control points'}"

    def gsd_m(self, height: int, width: int) -> float | None:
        """Return the pixel size in metres on the ground at the middle of a raster, None where that is not known.

        It is the side of a square pixel of the same area. The scale of a projection counts where it is off by more
        than TRUE_SCALE, as that of Web Mercator is.
        """
        if self.crs is None or self.transform is None or not is_earthly(self.crs):
            return None
        a, b, _, d, e, _ = self.transform
        side = abs(a) if (b, d, abs(e)) == (0, 0, abs(a)) else math.sqrt(abs(a * e - b * d))
        nominal = side * _metres(self.crs)
        rows, columns = np.array([-0.5, -0.5, 0.5]) + height / 2, np.array([-0.5, 0.5, -0.5]) + width / 2
        longitude, latitude = transform_points(self.crs, LONG_LAT, *at(self.transform, rows, columns))
        if not (np.isfinite(longitude).all() and np.abs(latitude).max() <= 90):
            return nominal or None
        start = longitude[[0, 0]], latitude[[0, 0]]
        bearings, _, sides = Geod(ellps="WGS84").inv(*start, longitude[1:], latitude[1:])
        ground = math.sqrt(abs(float(sides[0] * sides[1] * math.sin(math.radians(bearings[0] - bearings[1])))))
        return nominal if nominal and abs(ground / nominal - 1) <= TRUE_SCALE else ground or None


def at(transform: Affine, rows: Any, columns: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the coordinates (x, y) of positions in pixels; (0, 0) is the upper left corner of a raster."""
    a, b, c, d, e, f = transform
    return a * columns + b * rows + c, d * columns + e * rows + f


def to_pixels(
    rows: NDArray[np.float64], columns: NDArray[np.float64], place: Georeference, other: Georeference
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return positions (rows, columns) in pixels of a raster at `place` as positions in pixels of one at `other`.

    Both have a grid. (0, 0) is the upper left corner of a raster. What PROJ cannot place is infinite.
    """
    assert place.transform is not None
    assert other.transform is not None
    x, y = at(place.transform, rows, columns)
    if not same_crs(place.crs, other.crs):
        assert place.crs is not None
        assert other.crs is not None
        x, y = transform_points(place.crs, other.crs, x, y)
    a, b, c, d, e, f = other.transform
    scale = a * e - b * d
    with np.errstate(invalid="ignore"):  # what is infinite may become NaN
        return (a * (y - f) - d * (x - c)) / scale, (e * (x - c) - b * (y - f)) / scale


def same_crs(one: str | None, other: str | None) -> bool:
    """Return whether two systems have the same coordinates; what is not stated is taken to be the other's."""
    return one is None or other is None or one == other or _equal(*sorted((one, other)))


def transform_points(source: str, target: str, x: Any, y: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coordinates in another system, infinite where PROJ cannot place them."""
    try:
        found = _transformer(source, target).transform(np.asarray(x, float), np.asarray(y, float))
    except ProjError:
        return np.full(np.shape(x), np.inf), np.full(np.shape(x), np.inf)
    return np.asarray(found[0], float), np.asarray(found[1], float)


def is_earthly(crs: str) -> bool:
    """Return whether a system has places on Earth: PROJ knows it, and it is no local one."""
    found = parsed_crs(crs)
    return found is not None and (found.is_projected or found.is_geographic)


@lru_cache(maxsize=256)
def parsed_crs(crs: str) -> CRS | None:
    """Return what PROJ makes of a system; None for one that it does not know."""
    try:
        return CRS(crs)
    except ProjError:
        return None


@lru_cache(maxsize=256)
def crs_text(text: str) -> str | None:
    """Return a system (WKT or a code), without its heights, as georeferences name it; None for one without a place.

    Those are local systems, and ones that PROJ does not know.
    """
    crs = parsed_crs(text)
    if crs is None:
        return None
    if crs.is_compound and crs.sub_crs_list:
        crs = crs.sub_crs_list[0]
    if crs.is_bound and crs.source_crs is not None:
        crs = crs.source_crs
    if not (crs.is_projected or crs.is_geographic):
        return None
    code = crs.to_authority(min_confidence=100)
    return ":".join(code) if code and code[0] in ("EPSG", "ESRI") else crs.to_wkt()


@lru_cache(maxsize=256)
def _equal(one: str, other: str) -> bool:
    first, second = parsed_crs(one), parsed_crs(other)
    return first is not None and second is not None and first.equals(second, ignore_axis_order=True)


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


@lru_cache(maxsize=64)
def _metres(crs: str) -> float:
    """Return the metres of a unit of a projected system; 0 for a geographic one."""
    found = parsed_crs(crs)
    return float(found.axis_info[0].unit_conversion_factor) if found is not None and found.is_projected else 0.0


def _steps(place: Georeference, size: Size, other: Georeference, other_size: Size) -> float:
    """Return how far the corners of two rasters lie apart at most, in rows or columns of the first."""
    corners = np.array([(0, 0), (0, 1), (1, 0)], float)
    there = corners * other_size
    rows, columns = to_pixels(there[:, 0], there[:, 1], other, place)
    with np.errstate(invalid="ignore"):
        apart = float(np.abs(np.array([rows, columns]).T - corners * size).max())
    return apart if math.isfinite(apart) else math.inf


def crs_name(crs: str) -> str:
    """Return a system as a line of text can hold it: its code, or of WKT without one its name."""
    kind, quote, rest = crs.partition('["')
    return f"{rest.partition(chr(34))[0]} ({kind}, no code)" if quote else crs
