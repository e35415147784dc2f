"""Resampling against GDAL, exact means of blocks, and pixels that were not measured."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import Resampling as Gdal
from rasterio.warp import reproject

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from shard_builder.archives import MemberRef
from shard_builder.planned import Grid, PlannedRaster, Resampling, Window
from shard_builder.rasters import resample as module
from shard_builder.rasters.georeference import Georeference, to_pixels
from shard_builder.rasters.raster import Decoded, Facts, WholeRaster
from shard_builder.rasters.resample import mean_or_bilinear, resample

RNG = np.random.default_rng(3)
UTM32 = "EPSG:32632"
X, Y = 620000.0, 5350000.0
REF = MemberRef("", "folder", "x.tif", 1)
WAVES = (1000 + 300 * np.sin(np.arange(90) / 4)[:, None] + 300 * np.cos(np.arange(80) / 5)[None]).astype(np.float32)


def place(size: float, right: float = 0, down: float = 0, crs: str = UTM32) -> Georeference:
    return Georeference(crs, (size, 0.0, X + right, 0.0, -size, Y - down))


def at(crs: str, size: float, place: Georeference, rows: float, columns: float) -> Georeference:
    """Return a georeference in another system whose corner lies at a position of `place`."""
    here = Georeference(crs, (1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    (down,), (right,) = to_pixels(np.array([rows]), np.array([columns]), place, here)
    return Georeference(crs, (size, 0.0, float(right), 0.0, -size, -float(down)))


def resampled(
    image: np.ndarray,
    source: Georeference,
    target: Georeference,
    how: Any,
    window: Window | None = None,
    nodata: float | None = None,
    declared: float | None = None,
) -> Decoded:
    bands = image[None] if image.ndim == 2 else image
    opened = WholeRaster(Decoded(bands, Facts(source, () if declared is None else (declared,))))
    names = tuple(map(str, range(len(bands))))
    spec = SensorSpec(name="x", bands=names, dtype=str(bands.dtype), units="1", nodata=nodata)  # type: ignore[arg-type]
    return resample(opened, PlannedRaster((REF,), window, grid=Grid(target, 40, 48), resampling=how), spec)


def gdal(image: np.ndarray, source: Georeference, target: Georeference, how: Gdal) -> np.ndarray:
    found = np.full((module.BLOCK, module.BLOCK), np.nan)
    crs = [CRS.from_string(p.crs) for p in (source, target)]
    reproject(
        image.astype(np.float64),
        found,
        Affine(*source.transform),
        src_crs=crs[0],
        dst_transform=Affine(*target.transform),
        dst_crs=crs[1],
        resampling=how,
        src_nodata=np.nan,
        dst_nodata=np.nan,
    )
    return found[:40, :48]


HOME = place(10.0)
GRIDS = {
    "shifted": place(10.0, 33.0, 57.0),
    "finer": place(4.0, 120.0, 111.0),
    "coarser": place(13.0, 41.0, 30.0),
    "another zone": at("EPSG:32633", 9.0, HOME, 20, 15),
    "degrees": at("EPSG:4326", 9e-5, HOME, 20, 15),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("how", get_args(Resampling))
def test_it_agrees_with_gdal(grid: str, how: str) -> None:
    expected = gdal(WAVES, HOME, GRIDS[grid], Gdal[how])
    assert np.isfinite(expected).mean() > 0.9
    decoded = resampled(WAVES, HOME, GRIDS[grid], how)
    inside = np.isfinite(expected)
    found = decoded.raster[0]
    assert found.dtype == np.float32
    if how in ("nearest", "mode", "min", "max"):
        assert (found[inside] == expected[inside].astype(np.float32)).mean() > 0.999  # ties of rounding
    elif grid == "coarser":  # GDAL takes the width of its kernel from the size of both rasters, not from their pixels
        assert np.abs(found - expected)[inside].max() < 6
    else:
        np.testing.assert_allclose(found[inside], expected[inside], atol=0.05)
    assert (decoded.mask is None) == inside.all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_average_on_whole_factors_is_the_mean_of_blocks(dtype: type) -> None:
    image = RNG.integers(0, 200, (2, 200, 240)).astype(dtype)
    found = resampled(image, place(2.0), place(10.0), "average").raster
    means = image.astype(np.float64).reshape(2, 40, 5, 48, 5).mean(axis=(2, 4))
    np.testing.assert_array_equal(found, (means if np.dtype(dtype).kind == "f" else np.rint(means)).astype(dtype))
    assert found.dtype == dtype


def test_average_of_a_finer_raster_agrees_with_gdal_nearly() -> None:
    grid = at("EPSG:32633", 60.0, HOME, 5, 5)
    expected = gdal(WAVES, HOME, grid, Gdal.average)[2:8, 2:8]
    found = resampled(WAVES, HOME, grid, "average").raster[0, 2:8, 2:8]
    assert np.abs(found - expected).max() < 0.02 * WAVES.max()


def test_a_finer_raster_is_averaged_and_a_coarser_one_interpolated() -> None:
    for size, how in ((30.0, "average"), (15.0, "average"), (10.0, "bilinear"), (4.0, "bilinear")):
        assert mean_or_bilinear(Grid(place(size), 40, 48), HOME) == how


@pytest.mark.parametrize("how", ["nearest", "bilinear", "average"])
@pytest.mark.parametrize("grid", ["finer", "another zone"])
@pytest.mark.parametrize("at_once", [2**23, 2000])
def test_windows_are_parts_of_the_whole(how: str, grid: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = RNG.integers(0, 60000, (2, 180, 160)).astype(np.uint16)
    monkeypatch.setattr(module, "SOURCE_VALUES", at_once)
    monkeypatch.setattr(module, "BLOCK", 16)
    whole = resampled(fine, place(5.0), GRIDS[grid], how)
    for row, column, height, width in [(0, 0, 40, 48), (11, 17, 9, 5), (39, 47, 1, 1)]:
        part = resampled(fine, place(5.0), GRIDS[grid], how, (row, column, height, width))
        cut = whole.raster[:, row : row + height, column : column + width]
        np.testing.assert_array_equal(part.raster, cut)
        assert part.facts.georeference == GRIDS[grid].window(row, column)


@pytest.mark.parametrize("how", ["nearest", "bilinear", "average"])
@pytest.mark.parametrize(
    ("dtype", "nodata"), [(np.float32, np.nan), (np.float32, -9999.0), (np.int16, -9999), (np.uint8, 0)]
)
def test_what_was_not_measured_does_not_bleed(how: str, dtype: type, nodata: float) -> None:
    image = np.full((90, 80), 100, dtype)
    image[20:40, 10:30] = nodata
    image[60, 60] = nodata
    value = None if np.isnan(nodata) else nodata
    for grid in (place(10.0, 33.0, 57.0), place(4.0, 50.0, 150.0), place(18.0)):
        decoded = resampled(image, place(10.0), grid, how, None, value)
        missing = np.isnan(decoded.raster) if value is None else decoded.raster == nodata
        assert set(np.unique(decoded.raster[~missing])) == {100}
        assert missing.any()
        assert not missing.all()


def test_a_declared_value_is_kept_for_what_follows() -> None:
    image = np.full((90, 80), 7, np.uint8)
    image[20:40, 10:30] = 255
    decoded = resampled(image, place(10.0), place(10.0, 3.0, 3.0), "bilinear", declared=255)
    assert set(np.unique(decoded.raster)) == {7, 255}
    assert decoded.facts.nodata == (255,)


def test_a_mean_that_is_the_nodata_value_by_chance_is_not_lost() -> None:
    image = np.full((80, 96), 127, np.uint8)
    image[::2] = 129
    found = resampled(image, place(5.0), place(10.0), "average", nodata=128).raster
    assert set(np.unique(found)) == {129}


def test_integers_are_rounded_and_clipped() -> None:
    image = np.array([[0, 1], [1, 1]], np.uint8).repeat(100, 0).repeat(100, 1)
    image[::2, ::2] = 255
    found = resampled(image, place(5.0), place(10.0), "average").raster[0]
    assert (found[0, 0], found[0, -1]) == (64, 64)
    assert resampled(np.full((90, 80), 255, np.uint8), HOME, place(7.0, 9, 9), "bilinear").raster.min() == 255


def test_outside_of_the_raster_is_masked() -> None:
    decoded = resampled(np.full((20, 20), 5, np.uint16), place(10.0), place(10.0, -34.0, -40.0), "bilinear")
    assert decoded.mask is not None
    assert decoded.mask[4:24, 3:23].all()
    assert decoded.mask.sum() == 20 * 20
    far = resampled(np.full((20, 20), 5, np.uint16), place(10.0), place(10.0, 1e6, 0), "average")
    assert far.mask is not None
    assert not far.mask.any()


def test_the_edge_is_not_darker() -> None:
    found = resampled(np.full((20, 24), 50, np.uint16), place(10.0), place(5.0), "bilinear")
    assert found.mask is None
    assert set(np.unique(found.raster)) == {50}


def test_a_series_is_resampled_date_by_date() -> None:
    class Series(WholeRaster):
        def __init__(self, raster: np.ndarray) -> None:
            super().__init__(Decoded(raster[0], Facts(HOME)))
            self.raster = raster

        def read(self, window: Window) -> Decoded:
            row, column, height, width = window
            return Decoded(self.raster[..., row : row + height, column : column + width], self.facts.at(row, column))

    spec = SensorSpec(name="x", bands=("a", "b"), dtype="float32", units="1")
    planned = PlannedRaster((REF,), (0, 0, 40, 48), ("2020-01-01",) * 3, Grid(GRIDS["finer"], 40, 48))
    series = np.stack([np.stack([WAVES, WAVES * 2])] * 3)
    found = resample(Series(series), planned, spec).raster
    np.testing.assert_array_equal(found[1, :1], resampled(WAVES, HOME, GRIDS["finer"], "bilinear").raster)
    assert found.shape == (3, 2, 40, 48)


def test_without_a_place_there_is_no_grid() -> None:
    opened = WholeRaster(Decoded(WAVES[None], Facts()))
    spec = SensorSpec(name="x", bands=("a",), dtype="float32", units="1")
    with pytest.raises(ItemError, match=r"x\.tif has no georeference"):
        resample(opened, PlannedRaster((REF,), grid=Grid(HOME, 8, 8)), spec)
