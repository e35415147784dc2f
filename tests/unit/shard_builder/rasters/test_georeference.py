"""Where a raster lies is what its tags say, or unknown."""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import numpy as np
import pytest
import tifffile

from gfm_pipeline.errors import ItemError
from shard_builder.archives import MemberRef
from shard_builder.rasters.georeference import Affine, Georeference
from shard_builder.rasters.images import decode_tiff
from shard_builder.rasters.outline import footprint as outline
from shard_builder.rasters.scene import SceneRaster
from shard_builder.rasters.tiff import read_georeference
from tests.make.archives import tiff

REF = MemberRef("", "folder", "x.tif", 1)
KEYS = (1, 1, 0, 2, 1025, 0, 1, 1, 3072, 0, 1, 32632)
SCALE, TIE = (10.0, 10.0, 0.0), (0.0, 0.0, 0.0, 600000.0, 5400000.0, 0.0)


def read(
    scale: tuple[float, ...] = SCALE, tie: tuple[float, ...] = TIE, keys: tuple[int, ...] = KEYS
) -> Georeference | None:
    tags: list[Any] = [(33550, 12, 3, scale, True), (33922, 12, len(tie), tie, True), (34735, 3, len(keys), keys, True)]
    data = io.BytesIO(tiff(np.zeros((8, 8), np.uint8), extratags=tags))
    with tifffile.TiffFile(data) as file:
        return read_georeference(file.pages.first, data, REF)


def test_scale_and_tie_point() -> None:
    assert read() == Georeference("EPSG:32632", (10.0, 0.0, 600000.0, 0.0, -10.0, 5400000.0))
    moved = read(tie=(2.0, 3.0, 0.0, 600000.0, 5400000.0, 0.0))
    assert moved is not None
    assert moved.transform == (10.0, 0.0, 599980.0, 0.0, -10.0, 5400030.0)


def test_coordinates_of_pixel_centres_are_moved_by_half_a_pixel() -> None:
    placed = read(keys=(1, 1, 0, 2, 1025, 0, 1, 2, 3072, 0, 1, 32632))
    assert placed is not None
    assert placed.transform[2::3] == (599995.0, 5400005.0)


def test_a_window_moves_the_corner() -> None:
    place = Georeference("EPSG:32632", (10.0, 1.0, 5.0, 2.0, -10.0, 7.0)).window(3, 4)
    assert place.transform == (10.0, 1.0, 5 + 40 + 3, 2.0, -10.0, 7 + 8 - 30)


@pytest.mark.parametrize("keys", [(1, 1, 0, 1, 1025, 0, 1, 1), (1, 1, 0, 2, 1025, 0, 1, 1, 3072, 0, 1, 32767)])
def test_a_transform_without_a_system_can_be_compared_and_has_no_place(keys: tuple[int, ...]) -> None:
    found, apart = read(keys=keys), read(keys=keys, tie=(0.0, 0.0, 0.0, 630000.0, 5400000.0, 0.0))
    assert found is not None
    assert apart is not None
    assert (found.crs, found.transform) == (None, (10.0, 0.0, 600000.0, 0.0, -10.0, 5400000.0))
    assert outline(found, 8, 8) is None
    assert found.gsd_m(8, 8) is None
    assert found.lies_with((8, 8), found, (8, 8))
    assert not found.lies_with((8, 8), apart, (8, 8))


@pytest.mark.parametrize(
    ("moved", "together"),
    [((0.5, 0.5), True), ((0.42, -0.42), True), ((0.51, 0.0), False), ((0.0, -0.51), False), ((0.0, 100.0), False)],
)
@pytest.mark.parametrize("transform", [(6e-4, 0.0, -91.8, 0.0, -3e-4, 18.5), (40.0, -30.0, 5e5, -30.0, -40.0, 5e6)])
def test_rasters_lie_together_to_half_a_pixel_of_the_coarser_in_every_direction(
    transform: Affine, moved: tuple[float, float], together: bool
) -> None:
    coarse = Georeference("EPSG:32615", transform)
    a, b, c, d, e, f = coarse.window(*moved).transform or transform  # type: ignore[arg-type]
    fine = Georeference("EPSG:32615", (a / 6, b / 6, c, d / 6, e / 6, f))
    assert coarse.lies_with((6, 6), fine, (36, 36)) is together
    assert fine.lies_with((36, 36), coarse, (6, 6)) is together


@pytest.mark.parametrize("bad", [math.inf, math.nan, 0.0])
def test_damaged_numbers_are_no_place(bad: float) -> None:
    assert read(scale=(bad, 10.0, 0.0)) is None


def test_a_place_that_is_not_on_earth_has_no_footprint() -> None:
    away = read(tie=(0.0, 0.0, 0.0, 1e300, 1e300, 0.0))
    assert away is not None
    assert outline(away, 8, 8) is None
    assert outline(Georeference("EPSG:1", (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)), 8, 8) is None


@pytest.mark.parametrize("step", [-0.1, 0.1])
def test_footprints_are_counter_clockwise_whichever_way_rows_run(step: float) -> None:
    footprint = outline(Georeference("EPSG:4326", (0.1, 0.0, 10.0, 0.0, step, 50.0)), 10, 20)
    assert footprint is not None
    corners = {(x, y) for x in (10.0, 12.0) for y in (50.0, 50.0 + 10 * step)}
    assert {(round(x, 9), round(y, 9)) for x, y in footprint} == corners
    ring = [*footprint, footprint[0]]
    assert sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in itertools.pairwise(ring)) > 0


@pytest.mark.parametrize("bad", [math.inf, math.nan, 0.0])
def test_damaged_numbers_are_named(bad: float) -> None:
    scale = (bad, 10.0, 0.0)
    tags: list[Any] = [(33550, 12, 3, scale, True), (33922, 12, 6, TIE, True), (34735, 3, len(KEYS), KEYS, True)]
    data = tiff(np.zeros((8, 8), np.uint8), extratags=tags)
    ref = MemberRef("", "folder", "x.tif", len(data))
    assert decode_tiff(data, ref).facts.rules == ("damaged transform: location not known",)
    with pytest.raises(ItemError, match=r"x\.tif has a damaged transform"):
        SceneRaster(io.BytesIO(data), len(data), ref)


def test_degrees_beyond_a_pole_are_no_place() -> None:
    swapped = Georeference("EPSG:4326", (0.001, 0.0, 50.0, 0.0, -0.001, 100.0))  # latitude first
    assert outline(swapped, 20, 30) is None
    assert swapped.gsd_m(20, 30) is None


@pytest.mark.parametrize(
    ("keys", "rule"),
    [
        ((1, 1, 0, 2, 1024, 0, 1, 2, 2048, 0, 1, 4326), "no grid: location by ground control points or rational"),
        ((1, 1, 0, 1, 1025, 0, 1, 1), "ground control points without a usable coordinate reference system"),
    ],
)
def test_ground_control_points_need_a_system_to_be_a_place(keys: tuple[int, ...], rule: str) -> None:
    points = [(column, row, 0.0, 10 + column / 100, 50 - row / 100, 0.0) for column in (0, 4, 8) for row in (0, 5, 8)]
    tie = tuple(float(number) for point in points for number in point)
    tags: list[Any] = [(33922, 12, len(tie), tie, True), (34735, 3, len(keys), keys, True)]
    data = tiff(np.zeros((8, 8), np.uint8), extratags=tags)
    ref = MemberRef("", "folder", "x.tif", len(data))
    scene = SceneRaster(io.BytesIO(data), len(data), ref)
    scene.close()
    for facts in (scene.facts, decode_tiff(data, ref).facts):
        assert facts.georeference is not None
        assert len(facts.georeference.points) == 9
        assert [text for text in facts.rules if text.startswith(rule)]
        assert (outline(facts.georeference, 8, 8) is None) == ("without" in rule)
