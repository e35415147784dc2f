"""Footprints over the antimeridian, around poles and of the whole Earth: one reading of a ring for all who use it."""

from __future__ import annotations

import pytest
import shapely

from gfm_pipeline.shards.footprint import bounds, middle
from shard_builder.catalog import geometry_of
from shard_builder.rasters.georeference import Affine, Georeference
from shard_builder.rasters.outline import footprint

SINUSOIDAL = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
Bounds = tuple[float, float, float, float]
PLACES: dict[str, tuple[str, Affine, int, int, Bounds]] = {
    "the world": ("EPSG:4326", (10, 0, -180, 0, -10, 90), 18, 36, (-180, -90, 180, 90)),
    "the world from Greenwich": ("EPSG:4326", (10, 0, 0, 0, -10, 90), 18, 36, (-180, -90, 180, 90)),
    "pixels around the poles": ("EPSG:4326", (0.25, 0, -0.125, 0, -0.25, 90.125), 721, 1440, (-180, -90, 180, 90)),
    "rows that run north": ("EPSG:4326", (10, 0, -180, 0, 10, -90), 18, 36, (-180, -90, 180, 90)),
    "200 degrees": ("EPSG:4326", (1, 0, -100, 0, -1, 40), 50, 200, (-100, -10, 100, 40)),
    "half the world": ("EPSG:4326", (1, 0, 0, 0, -1, 40), 50, 180, (0, -10, 180, 40)),
    "over the antimeridian": ("EPSG:4326", (0.01, 0, 179.5, 0, -0.01, -16), 100, 100, (179.5, -17, -179.5, -16)),
    "beyond 180": ("EPSG:4326", (1, 0, 190, 0, -1, 10), 10, 10, (-170, 0, -160, 10)),
    "all of Web Mercator": (
        "EPSG:3857",
        (156543.03392804097, 0, -20037508.342789244, 0, -156543.03392804097, 20037508.342789244),
        256,
        256,
        (-180, -85.0511, 180, 85.0511),
    ),
    "the North Pole": ("EPSG:3413", (25000, 0, -3850000, 0, -25000, 5850000), 448, 304, (-180, 30.98, 180, 90)),
    "the South Pole": ("EPSG:3031", (25000, 0, -3950000, 0, -25000, 4350000), 332, 316, (-180, -90, 180, -39.36)),
    "a pole in its corner": ("EPSG:3413", (25000, 0, 0, 0, -25000, 0), 100, 100, (-45, 58.17, 45, 90)),
    "over the antimeridian in UTM": (
        "EPSG:32601",
        (1000, 0, 160000, 0, -1000, 1000000),
        100,
        100,
        (179.98, 8.1, -179.0, 9.1),
    ),
    "a tile of MODIS beside the Earth in part": (
        SINUSOIDAL,
        (926.625, 0, -11119505.0, 0, -926.625, 6671703.0),
        1200,
        1200,
        (-180, 50, -140, 59.8),
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_bounds_and_geometry_agree_wherever_a_raster_lies(name: str) -> None:
    crs, transform, height, width, expected = PLACES[name]
    ring = footprint(Georeference(crs, transform), height, width)
    assert ring is not None
    assert bounds(ring) == pytest.approx(expected, abs=0.2)
    geometry = geometry_of(ring)
    assert geometry is not None
    assert geometry.is_valid
    west, south, east, north = expected
    inside = (west + 0.3, 0.5 * (south + north)), (east - 0.3, 0.5 * (south + north))
    if "pole" not in name.lower() and "MODIS" not in name:
        assert all(geometry.contains(shapely.Point((x + 180) % 360 - 180, y)) for x, y in inside)
    crossing = west > east
    assert geometry.bounds == pytest.approx((-180, south, 180, north) if crossing else expected, abs=0.2)
    wide = east - west + (360 if crossing else 0)
    if name in ("the North Pole", "the South Pole"):
        assert geometry.contains(shapely.Point(0, 89.9 if north == 90 else -89.9))
    elif "EPSG:4326" in crs:
        assert geometry.area == pytest.approx(wide * (north - south), rel=1e-6)


def test_rings_of_four_corners_are_read_as_ever() -> None:
    assert bounds([(5, 43), (6, 43), (6, 44), (5, 44)]) == (5, 43, 6, 44)
    ring = [(179.0, -18.0), (-179.5, -18.0), (-179.5, -17.0), (179.0, -17.0)]
    assert bounds(ring) == (179, -18, -179.5, -17)
    assert middle(ring) == (179.75, -17.5)
    geometry = geometry_of(ring)
    assert geometry is not None
    assert [part.bounds for part in geometry.geoms] == [(179, -18, 180, -17), (-180, -18, -179.5, -17)]


def test_a_ring_around_a_pole_that_says_nothing_of_it_is_closed_over_it() -> None:
    geometry = geometry_of([(0.0, 80.0), (90.0, 80.0), (180.0, 80.0), (-90.0, 80.0)])
    assert geometry is not None
    assert geometry.bounds == (-180, 80, 180, 90)


def test_small_rasters_have_their_corners_and_no_more() -> None:
    for crs, transform in (
        ("EPSG:32632", (10.0, 0.0, 6e5, 0.0, -10.0, 5.4e6)),
        ("EPSG:4326", (1e-4, 0.0, 10.0, 0.0, -1e-4, 50.0)),
        ("EPSG:32632", (7.0, 7.0, 6e5, 7.0, -7.0, 5.4e6)),
    ):
        ring = footprint(Georeference(crs, transform), 256, 256)
        assert ring is not None
        assert len(ring) == 4
        assert shapely.Polygon(ring).exterior.is_ccw
