"""The footprint of a raster: the ring of longitude and latitude around what of it lies on Earth.

Its corners, and points between them where an edge is no straight line on a map, to half a pixel. It never has a step
of half a turn: rasters of the whole world, wider than 180 degrees, over the antimeridian or around a pole have enough
points to say which way round they go (see `gfm_pipeline.shards.footprint`).
"""

from __future__ import annotations

import atexit
import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shard_builder.rasters.georeference import (
    LONG_LAT,
    Georeference,
    Point,
    at,
    is_earthly,
    parsed_crs,
    transform_points,
)

Floats = NDArray[np.float64]
Locate = Callable[[Floats], Floats]
"""Longitudes and latitudes [N,2] of positions (row, column) [N,2]; infinite where there is no such place."""

ROUNDS = 7
"""An edge is halved so often at most."""
WIDEST = 60.0
"""Degrees of longitude between two points of a ring at most, away from a pole."""
INSET = 1e-6
"""Share of a raster by which points are moved inwards to learn on which side of the antimeridian or a pole it lies."""
CELLS = 64
"""A raster that lies beside the Earth in part is looked at in so many cells across."""
_ROUNDING = 1e-9
"""Degrees; a tenth of a millimetre."""
_BACK = 1e-4
"""Share of a raster by which a point may come back elsewhere; more, and the projection has no place for it."""

Footprint = tuple[tuple[float, float], ...]


def footprint(place: Georeference, height: int, width: int) -> Footprint | None:
    """Return the ring (longitude, latitude) around a raster, counter-clockwise, the first point not repeated.

    None where it has no place on Earth.
    """
    if place.crs is None or not is_earthly(place.crs):
        return None
    locate = _locator(place, height, width)
    corners = np.array([(height, 0), (height, width), (0, width), (0, 0)], float)
    if _is_mirrored(locate, height, width):
        corners = corners[::-1]
    ring = _refined(corners, locate, _tolerance(locate, height, width))
    if ring is None:
        inside = _on_earth(locate, height, width)
        ring = None if inside is None else _refined(inside, locate, np.inf)
    if ring is None:
        return None
    return tuple((_wrapped(float(x)), float(y)) for x, y in _closed(ring, place, height, width))


def _locator(place: Georeference, height: int, width: int) -> Locate:
    middle = np.array([height, width]) / 2
    crs, ground = _ground(place)
    found = parsed_crs(crs)
    projected = found is not None and found.is_projected
    limit = np.inf if projected or found is None else np.pi / 2 / found.axis_info[0].unit_conversion_factor
    size = np.ptp(np.array(ground(np.array([(0, 0), (height, 0), (0, width), (height, width)], float))), axis=1).max()
    pixel = size / max(height, width)

    def to_earth(positions: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        x, y = ground(positions)
        y = np.where(np.abs(y) <= limit + pixel, np.clip(y, -limit, limit), y)  # half a pixel beyond the pole
        return x, y, *transform_points(crs, LONG_LAT, x, y)

    def locate(positions: Floats) -> Floats:
        inner = positions + INSET * (middle - positions)
        x, y, inner_lon, inner_lat = to_earth(inner)
        _, _, lon, lat = to_earth(positions)
        with np.errstate(invalid="ignore"):
            lon = np.where(np.isfinite(lon), lon, inner_lon)
            lat = np.where(np.isfinite(lat), lat, inner_lat)
            lon = lon - 360 * np.round((lon - inner_lon) / 360)  # on the raster's side of the antimeridian
            at_pole = (np.abs(lat) > 90 - _ROUNDING) & (projected | (np.abs(lon - inner_lon) > 1))
            lon = np.where(at_pole, inner_lon, lon)  # a pole itself has no longitude
            if projected:
                back = transform_points(LONG_LAT, crs, inner_lon, inner_lat)
                lon = np.where(np.hypot(back[0] - x, back[1] - y) <= _BACK * size, lon, np.inf)
        with np.errstate(invalid="ignore"):
            lat = np.where(np.abs(lat) <= 90 + _ROUNDING, lat, np.inf)  # PROJ passes degrees on as they are
        placed = np.stack([lon, lat], axis=1)
        return np.where(np.isfinite(placed).all(axis=1, keepdims=True), placed, np.inf)

    return locate


def _ground(place: Georeference) -> tuple[str, Callable[[Floats], tuple[Floats, Floats]]]:
    """Return the system and the coordinates (x, y) of positions (row, column) [N,2]."""
    assert place.crs is not None
    transform = place.transform
    if transform is not None:
        return place.crs, lambda positions: at(transform, positions[:, 0], positions[:, 1])
    warp = _through(place.points)
    return place.crs, lambda positions: warp(positions + place.corner)


@lru_cache(maxsize=8)
def _through(points: tuple[Point, ...]) -> Callable[[Floats], tuple[Floats, Floats]]:
    """Return the smoothest surface through ground control points (a thin plate), GDAL's."""
    from rasterio.control import GroundControlPoint
    from rasterio.transform import GCPTransformer

    warp = GCPTransformer([GroundControlPoint(row=r, col=c, x=x, y=y) for r, c, x, y in points], tps=len(points) > 3)

    def ground(positions: Floats) -> tuple[Floats, Floats]:
        x, y = warp.xy(positions[:, 0].tolist(), positions[:, 1].tolist(), offset="ul")
        return np.array(x, float), np.array(y, float)

    return ground


atexit.register(_through.cache_clear)  # they hold memory of GDAL, which is gone before they are


def _tolerance(locate: Locate, height: int, width: int) -> float:
    """Return half a pixel at the middle of a raster, in degrees of a great circle; 0 where it has no place."""
    middle = np.array([height, width]) / 2
    found = locate(middle + np.array([(0, 0), (0.5, 0), (0, 0.5)]))
    sides = _apart(found[1:], found[:1])
    return float(sides.min()) if np.isfinite(sides).all() else 0.0


def _is_mirrored(locate: Locate, height: int, width: int) -> bool:
    """Return whether the corners of a raster, rows run down, go round clockwise on Earth."""
    middle = np.array([height, width]) / 2
    here, below, beside = locate(middle + np.array([(0, 0), (0.5, 0), (0, 0.5)]))[:, None]
    if not np.isfinite([here, below, beside]).all():
        return False
    return bool(_east(below, here) * (beside - here)[:, 1] < (below - here)[:, 1] * _east(beside, here))


def _apart(some: Floats, others: Floats) -> Floats:
    """Return distances in degrees on a map that is true at the second ones."""
    with np.errstate(invalid="ignore"):
        return np.hypot(_east(some, others) * np.cos(np.radians(others[:, 1])), some[:, 1] - others[:, 1])


def _east(some: Floats, others: Floats) -> Floats:
    """Return by how many degrees the first ones lie east of the second, the shorter way."""
    with np.errstate(invalid="ignore"):
        east: Floats = some[:, 0] - others[:, 0]
        return east - 360 * np.round(east / 360)


def _refined(ring: Floats, locate: Locate, tolerance: float) -> Floats | None:
    """Return longitudes and latitudes of a ring of positions, halved where they are bent; None: no place."""
    placed = locate(ring)
    for _ in range(ROUNDS):
        after, after_placed = np.roll(ring, -1, axis=0), np.roll(placed, -1, axis=0)
        if not np.isfinite(placed).all():
            return None
        step = after_placed - placed
        step[:, 0] -= 360 * np.round(step[:, 0] / 360)
        bent = np.abs(step[:, 0]) > WIDEST
        for share in (0.25, 0.5, 0.75):
            between = locate(ring + share * (after - ring))
            straight = placed + share * step
            bent |= ~(np.abs(_east(between, straight)) <= WIDEST / 2)  # half a turn that looked like none
            bent |= ~(_apart(between, straight) <= tolerance) & (tolerance < np.inf)
        if not bent.any():
            break
        middles = ring[bent] + 0.5 * (after[bent] - ring[bent])
        where = np.flatnonzero(bent) + 1
        ring, placed = np.insert(ring, where, middles, axis=0), np.insert(placed, where, locate(middles), axis=0)
    return placed if np.isfinite(placed).all() else None


def _on_earth(locate: Locate, height: int, width: int) -> Floats | None:
    """Return the ring of positions around what of a raster lies on Earth, in whole cells: the largest such part."""
    import shapely

    rows, columns = np.linspace(0, height, CELLS + 1), np.linspace(0, width, CELLS + 1)
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    there = np.isfinite(locate(grid.reshape(-1, 2))).all(axis=1).reshape(CELLS + 1, CELLS + 1)
    whole = there[:-1, :-1] & there[1:, :-1] & there[:-1, 1:] & there[1:, 1:]
    down, right = np.nonzero(whole)
    if not down.size:
        return None
    cells = shapely.union_all(shapely.box(columns[right], rows[down], columns[right + 1], rows[down + 1]))
    part = max(getattr(cells, "geoms", [cells]), key=lambda part: float(part.area))
    ring = shapely.get_coordinates(shapely.Polygon(part.exterior).normalize().exterior)[:-1, ::-1]
    return np.ascontiguousarray(ring)


def _closed(ring: Floats, place: Georeference, height: int, width: int) -> Floats:
    """Return a ring with longitudes that do not jump; one around a pole is led over it."""
    steps = np.diff(ring[:, 0], append=ring[0, 0])
    steps -= 360 * np.round(steps / 360)
    turn = 360 * float(np.round(steps.sum() / 360))
    if not turn:
        return ring
    longitudes = ring[0, 0] + np.concatenate([[0.0], np.cumsum(steps[:-1])])
    start, pole = ring[0], 90.0 if _has_north_pole(ring, place, height, width) else -90.0
    back = start[0] + turn - np.linspace(0, turn, 5)
    over = np.stack([np.concatenate([[back[0]], back]), np.array([start[1], *[pole] * 5])], axis=1)
    return np.vstack([np.stack([longitudes, ring[:, 1]], axis=1), over])


def _has_north_pole(ring: Floats, place: Georeference, height: int, width: int) -> bool:
    if place.crs is None or place.transform is None:
        return bool(ring[:, 1].mean() > 0)
    x, y = transform_points(LONG_LAT, place.crs, [0.0, 0.0], [90.0, -90.0])
    corners = at(place.transform, np.array([0, height, 0, height]), np.array([0, 0, width, width]))
    inside = [min(c) <= v <= max(c) for c, v in zip(corners, (x[0], y[0]), strict=True)]
    other = [min(c) <= v <= max(c) for c, v in zip(corners, (x[1], y[1]), strict=True)]
    return all(inside) if all(inside) != all(other) else bool(ring[:, 1].mean() > 0)


def _wrapped(longitude: float) -> float:
    if abs(abs(longitude) - 180) < _ROUNDING:
        return math.copysign(180.0, longitude)
    return longitude if -180 <= longitude <= 180 else (longitude + 180) % 360 - 180
