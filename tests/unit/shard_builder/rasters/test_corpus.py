"""GeoTIFFs as rasterio writes them, in hundreds of combinations: what is read of them is what rasterio reads."""

from __future__ import annotations

import io
import random
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import rasterio
import shapely
import tifffile
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.warp import transform as to_earth

from shard_builder.archives import MemberRef
from shard_builder.build.build import build_collection
from shard_builder.catalog import geometry_of
from shard_builder.config import BuildConfig
from shard_builder.rasters import resample as resample_module
from shard_builder.rasters.georeference import Georeference
from shard_builder.rasters.images import decode_tiff
from shard_builder.rasters.location import plain_georeference
from shard_builder.rasters.outline import footprint
from shard_builder.rasters.raster import WholeRaster
from shard_builder.rasters.scene import SceneRaster
from tests.contracts.test_sources import read_with_public_libraries

NUM_CASES = 320
SIZE = 20, 36
REF = MemberRef("", "folder", "x.tif", 1)
NO_CODE = "+proj=tmerc +lat_0=0 +lon_0=9.5 +k=0.9996 +x_0=500000 +y_0=0 +ellps=WGS84 +units=m +no_defs"
UTM = 6e5, 5.4e6, 10.0
PLACES: dict[str, tuple[str | None, tuple[float, float, float]]] = {
    "UTM": ("EPSG:32632", UTM),
    "UTM south": ("EPSG:32733", UTM),
    "another datum": ("EPSG:25832", UTM),
    "user-defined": (NO_CODE, UTM),
    "ESRI": ("ESRI:54009", UTM),
    "degrees": ("EPSG:4326", (11.0, 48.0, 1e-4)),
    "over 180": ("EPSG:4326", (179.9, -16.0, 0.01)),
    "world": ("EPSG:4326", (-180.0, 90.0, 10.0)),
    "feet": ("EPSG:2263", (980000.0, 200000.0, 1.0)),
    "Web Mercator": ("EPSG:3857", (1e6, 6e6, 10.0)),
    "pole": ("EPSG:3413", (-18 * 25000.0, 10 * 25000.0, 25000.0)),
    "no system": (None, UTM),
    "points": ("EPSG:4326", (11.0, 48.0, 1e-4)),
    "none": (None, (0.0, 0.0, 0.0)),
}
AXES: dict[str, list[Any]] = {
    "dtype": ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"],
    "count": [1, 2, 3, 5],
    "interleave": ["pixel", "band"],
    "tiled": [False, True],
    "compress": [None, "deflate", "lzw", "zstd", "packbits", "lzma"],
    "predictor": [1, 2, 3],
    "nodata": [None, 0, 7, "near", "nan"],
    "mask": [None, "internal", "alpha"],
    "place": list(PLACES),
    "turn": ["north up", "south up", "rotated"],
    "point": [False, True],
    "bigtiff": ["NO", "YES"],
}


class Case(NamedTuple):
    """A file to be written."""

    dtype: str
    count: int
    interleave: str
    tiled: bool
    compress: str | None
    predictor: int
    nodata: Any
    mask: str | None
    place: str
    turn: str
    point: bool
    bigtiff: str


def cases() -> list[Case]:
    """Return combinations drawn once and for all, as far as GDAL can write them."""
    draw = random.Random(20)
    found = []
    for _ in range(NUM_CASES):
        case = Case(*(draw.choice(values) for values in AXES.values()))
        floats = case.dtype.startswith("float")
        if case.compress not in ("deflate", "lzw", "zstd") or case.predictor == (2 if floats else 3):
            case = case._replace(predictor=1)
        if case.nodata in ("near", "nan") and not floats:
            case = case._replace(nodata=None)
        if case.mask == "alpha" and (case.count == 1 or case.nodata is not None):
            case = case._replace(mask=None)
        if case.place in ("world", "over 180", "points"):
            case = case._replace(turn="north up")
        found.append(case)
    return found


def transform_of(case: Case) -> Affine | None:
    """Return where its pixels lie."""
    x, y, step = PLACES[case.place][1]
    if not step or case.place == "points":
        return None
    if case.turn == "rotated":
        return Affine.translation(x, y) @ Affine.rotation(30) @ Affine.scale(step, -step)
    return Affine(step, 0, x, 0, step if case.turn == "south up" else -step, y)


def written(case: Case) -> bytes:
    """Return the file."""
    numbers = np.random.default_rng(zlib.crc32(repr(case).encode()))
    pixels = numbers.integers(0, 99, (case.count, *SIZE)).astype(case.dtype)
    nodata = {"near": 7.1, "nan": np.nan}.get(case.nodata, case.nodata)
    if case.nodata == "near":
        pixels[pixels == 7] = np.dtype(case.dtype).type(np.float32(7.1))
    elif case.nodata == "nan":
        pixels[pixels == 7] = np.nan
    if case.mask == "alpha":
        pixels[-1] = np.where(numbers.random(SIZE) < 0.3, 0, 99)
    crs, (x, y, step) = PLACES[case.place]
    options: dict[str, Any] = {"transform": transform_of(case), "crs": crs}
    if case.place == "points":
        points = [(row, column) for row in (0, SIZE[0]) for column in (0, SIZE[1])]
        options = {"gcps": [GroundControlPoint(r, c, x + c * step, y - r * step) for r, c in points], "crs": crs}
    options |= {"tiled": case.tiled, "interleave": case.interleave, "BIGTIFF": case.bigtiff, "nodata": nodata}
    if case.tiled:
        options |= {"blockxsize": 16, "blockysize": 16}
    if case.compress:
        options |= {"compress": case.compress}
    if case.predictor > 1:
        options |= {"predictor": case.predictor}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as file:
        shape = {"height": SIZE[0], "width": SIZE[1], "count": case.count, "dtype": case.dtype}
        with file.open(driver="GTiff", **shape, **{k: v for k, v in options.items() if v is not None}) as data:
            if case.mask == "alpha":
                data.colorinterp = [*[ColorInterp.undefined] * (case.count - 1), ColorInterp.alpha]
            data.write(pixels)
            if case.point:
                data.update_tags(AREA_OR_POINT="Point")
            if case.mask == "internal":
                data.write_mask(numbers.random(SIZE) < 0.7)
        return bytes(file.read())


class Expected(NamedTuple):
    """What rasterio reads."""

    pixels: np.ndarray
    measured: np.ndarray
    crs: CRS | None
    transform: Affine
    points: int


def read_by_rasterio(data: bytes, case: Case) -> Expected:
    """Return pixels, where something was measured, and the location."""
    with MemoryFile(data) as file, file.open() as raster:
        pixels = raster.read()
        measured = raster.read_masks() != 0
        for band, nodata in enumerate(raster.nodatavals):  # GDAL has one kind of mask; all of them count
            if nodata is not None and not np.isnan(nodata):
                measured[band] &= ~np.isclose(pixels[band], nodata, rtol=2e-7, atol=0)
        if pixels.dtype.kind == "f":
            measured &= ~np.isnan(pixels)
        if case.mask == "alpha":
            measured[:-1] &= pixels[-1] != 0
            measured[-1] = True
        points, crs = raster.gcps
        return Expected(pixels, measured, raster.crs or crs, raster.transform, len(points))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_every_file_is_read_as_rasterio_reads_it() -> None:
    several = cases()
    assert len(set(several)) > 0.9 * NUM_CASES
    for case in several:
        data = written(case)
        check(case, data, read_by_rasterio(data, case))


def check(case: Case, data: bytes, expected: Expected) -> None:
    """Compare both readers of the product with rasterio, whole and by windows."""
    note = repr(case)
    scene = SceneRaster(io.BytesIO(data), len(data), REF)
    for decoded in (scene.read((0, 0, *SIZE)), decode_tiff(data, REF)):
        np.testing.assert_array_equal(decoded.raster, expected.pixels, err_msg=note)
        assert decoded.raster.dtype == case.dtype, note
        values = resample_module._measured(decoded, WholeRaster(decoded), None)
        np.testing.assert_array_equal(~np.isnan(values), expected.measured, err_msg=note)
        check_location(case, decoded.facts.georeference, expected)
    for row, column, height, width in ((0, 0, 7, 9), (13, 20, 7, 16), (15, 15, 3, 3)):
        part = scene.read((row, column, height, width))
        cut = expected.pixels[:, row : row + height, column : column + width]
        np.testing.assert_array_equal(part.raster, cut, err_msg=note)
    scene.close()
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        plain = plain_georeference(file.pages.first)
    assert plain in (None, scene.facts.georeference), note


def check_location(case: Case, place: Georeference | None, expected: Expected) -> None:
    """Compare system, transform, footprint and pixel size with what rasterio makes of them."""
    note = repr(case)
    if case.place == "none":
        assert place is None, note
        return
    assert place is not None, note
    if case.place == "points":
        assert (place.transform, len(place.points)) == (None, expected.points), note
    else:
        assert place.transform == pytest.approx(tuple(expected.transform[:6]), rel=1e-12), note
    ring, gsd_m = footprint(place, *SIZE), place.gsd_m(*SIZE)
    if case.place == "no system":
        assert (place.crs, ring, gsd_m) == (None, None, None), note
        return
    assert place.crs is not None, note
    assert CRS.from_user_input(place.crs) == expected.crs, note
    assert ring is not None, note
    geometry = geometry_of(ring)
    assert geometry is not None, note
    assert geometry.is_valid, note
    rows, columns = (axis.ravel() for axis in np.meshgrid(*(np.arange(0.5, side, 3) for side in SIZE), indexing="ij"))
    assert expected.crs is not None
    longitudes, latitudes = located(case, expected.crs, rows, columns)
    on_earth = np.abs(latitudes) <= 90  # the raster of the whole world has a row more than that
    inside = shapely.points(longitudes[on_earth], latitudes[on_earth])
    assert shapely.contains(geometry, inside).all(), note
    if case.place != "world":
        outside = shapely.points(*located(case, expected.crs, np.array([-1.0, SIZE[0] + 1]), np.array([5.0, 9.0])))
        assert not shapely.contains(geometry, outside).any(), note
    if case.place != "points":
        assert gsd_m == pytest.approx(ground_m(case, expected.crs), rel=0.015), note


def located(case: Case, crs: CRS, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return longitudes from -180 to 180 and latitudes, by rasterio."""
    x, y, step = PLACES[case.place][1]
    transform = transform_of(case) or Affine(step, 0, x, 0, -step, y)
    xs, ys = transform @ (columns, rows)
    longitude, latitude = (np.array(values) for values in to_earth(crs, CRS.from_epsg(4326), xs.tolist(), ys.tolist()))
    return (longitude + 180) % 360 - 180, latitude


def ground_m(case: Case, crs: CRS) -> float:
    """Return the side of a square of the area of the middle pixel, on a sphere."""
    middle = np.array(SIZE) / 2
    rows, columns = middle[0] + np.array([-0.5, 0.5, -0.5]), middle[1] + np.array([-0.5, -0.5, 0.5])
    longitude, latitude = (np.radians(values) for values in located(case, crs, rows, columns))
    round_axis = np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]
    )
    points = 6371008.8 * round_axis.T
    return float(np.linalg.norm(np.cross(points[1] - points[0], points[2] - points[0])) ** 0.5)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_tiles_of_the_source_scenes_hold_what_rasterio_reads(tmp_path: Path) -> None:
    chosen = [case for case in cases() if case.dtype == "uint16" and case.count == 1]
    (tmp_path / "raw").mkdir()
    for number, case in enumerate(chosen):
        (tmp_path / "raw" / f"x{number}.tif").write_bytes(written(case))
    sensor = {"files": "{key}.tif", "bands": ["v"], "dtype": "uint16", "units": "1", "nodata": 999}
    places = {"input": str(tmp_path / "raw"), "output": str(tmp_path / "out"), "tile_px": 9}
    options = {"sensors": {"a": sensor}}
    build_collection(BuildConfig(source="scenes", options=options, max_nodata=1, **places), "build", lambda _: None)
    found = list(read_with_public_libraries(tmp_path / "out"))
    assert len(found) == 12 * len(chosen)
    for key, rasters, _ in found:
        name, row, column = key.split("_")
        number, top, left = int(name[1:]), int(row[1:]), int(column[1:])
        expected = read_by_rasterio(written(chosen[number]), chosen[number])
        tile = np.where(expected.measured, expected.pixels, 999)[:, top : top + 9, left : left + 9]
        np.testing.assert_array_equal(rasters["a"], tile, err_msg=repr(chosen[number]))
