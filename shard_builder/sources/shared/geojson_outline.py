"""The outline of a place where an archive draws it as GeoJSON instead of writing it into its rasters."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from gfm_pipeline.errors import ItemError

Ring = tuple[tuple[float, float], ...]
_WGS84 = "OGC:CRS84"


def crs_of(table: dict[str, Any]) -> str:
    """Return the coordinate reference system that a GeoJSON object names; WGS 84, its default, where it names none."""
    named = table.get("crs")
    properties = named.get("properties") if isinstance(named, dict) else None
    return str(properties.get("name", _WGS84)) if isinstance(properties, dict) else _WGS84


def outline(geometry: Any, crs: str, where: str) -> Ring | None:
    """Return the corners (longitude, latitude) of a polygon, counter-clockwise, the first not repeated.

    None for a geometry that is null or not there. Raises ItemError for one that is no single polygon, or that cannot
    be placed on Earth.
    """
    if geometry is None:
        return None
    try:
        rings = geometry["coordinates"]
        if geometry["type"] == "MultiPolygon":
            (rings,) = rings
        elif geometry["type"] != "Polygon":
            raise ValueError(f"found a {geometry['type']}")
        corners = [(float(x), float(y)) for x, y, *_ in rings[0]]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ItemError(f"{where} does not draw the place as one polygon: {type(error).__name__} {error}") from error
    if corners and corners[0] == corners[-1]:
        corners.pop()
    placed = [_to_wgs84(crs, where).transform(x, y) for x, y in corners]
    if len(placed) < 3 or not all(math.isfinite(lon) and abs(lon) <= 180 and abs(lat) <= 90 for lon, lat in placed):
        raise ItemError(f"{where} draws the place at {corners[:4]} in {crs}, which is no polygon on Earth")
    turn = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(placed, placed[1:] + placed[:1], strict=True))
    return tuple(placed if turn > 0 else placed[::-1])


@lru_cache(maxsize=8)
def _to_wgs84(crs: str, where: str) -> Any:
    from pyproj import Transformer
    from pyproj.exceptions import CRSError

    try:
        return Transformer.from_crs(crs, _WGS84, always_xy=True)
    except CRSError as error:
        raise ItemError(f"{where} is in {crs[:80]!r}, which is no coordinate reference system") from error
