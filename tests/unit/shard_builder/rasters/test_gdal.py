"""GDAL reads the one file that it is given, by the driver that its first bytes call for."""

from __future__ import annotations

import io
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from gfm_pipeline.errors import ItemError
from shard_builder.archives import MemberRef
from shard_builder.rasters.scene import SceneRaster
from shard_builder.rasters.tiff import TiffImage

REF = MemberRef("", "folder", "x.tif", 1)


@pytest.mark.parametrize(
    "data",
    [b"<VRTDataset rasterXSize='5'></VRTDataset>", b"CDF\x01" + bytes(40), b"\x89HDF\r\n\x1a\n" + bytes(40), b""],
)
def test_formats_that_lead_to_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ItemError, match=r"x\.tif is no GeoTIFF, JPEG 2000, PNG or JPEG"):
        SceneRaster(io.BytesIO(data), len(data), REF)


def test_damaged_pixels_are_an_error_of_the_file() -> None:
    options = {
        "compress": "deflate",
        "dtype": "uint16",
        "crs": "EPSG:32632",
        "transform": from_origin(6e5, 5e6, 10, 10),
    }
    with MemoryFile() as file:
        with file.open(driver="GTiff", height=64, width=64, count=1, **options) as out:
            out.write(np.random.default_rng(1).integers(0, 999, (1, 64, 64)).astype(np.uint16))
        data = bytes(file.read())
    with rasterio.open(io.BytesIO(data)) as whole:
        expected = whole.read()
    scene = SceneRaster(io.BytesIO(data), len(data), REF)
    np.testing.assert_array_equal(scene.read((0, 0, 64, 64)).raster, expected)
    scene.close()
    broken = data[:-1000]
    with pytest.raises(ItemError, match=r"x\.tif"):
        SceneRaster(io.BytesIO(broken), len(broken), REF).read((0, 0, 64, 64))


def _flipped(data: bytes, offset: int, count: int) -> bytes:
    middle = offset + count // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


def _half_zeroed(data: bytes, offset: int, count: int) -> bytes:
    middle = offset + count // 2
    return data[:middle] + bytes(offset + count - middle) + data[offset + count :]


@pytest.mark.parametrize("damage", [_flipped, _half_zeroed])
@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("compress", ["deflate", "lzw", "packbits", "zstd", "lzma", "lerc", "jpeg"])
def test_what_the_reader_of_patches_refuses_is_no_pixel_of_a_scene(
    compress: str, tiled: bool, damage: Callable[[bytes, int, int], bytes]
) -> None:
    dtype = np.uint8 if compress == "jpeg" else np.uint16
    image = np.random.default_rng(4).integers(0, 99, (1, 96, 96)).astype(dtype)
    layout = {"tiled": True, "blockxsize": 32, "blockysize": 32} if tiled else {"blockysize": 32}
    with MemoryFile() as file:
        with file.open(driver="GTiff", height=96, width=96, count=1, dtype=dtype, compress=compress, **layout) as out:
            out.write(image)
        data = bytes(file.read())
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        offsets, counts = tif.pages[0].dataoffsets, tif.pages[0].databytecounts
    for index in range(len(offsets)):
        bad = damage(data, offsets[index], counts[index])
        try:
            patch = TiffImage(io.BytesIO(bad), len(bad), REF).read((0, 0, 96, 96))
        except ItemError:
            patch = None
        refused = compress == "deflate" or (compress == "jpeg" and damage is _half_zeroed)
        scene = SceneRaster(io.BytesIO(bad), len(bad), REF)
        try:
            found = scene.read((0, 0, 96, 96)).raster
        except ItemError:
            found = None
        finally:
            scene.close()
        assert found is None or (patch is not None and not refused)
        if found is not None and patch is not None and compress != "jpeg":
            np.testing.assert_array_equal(found[0], patch.pixels[..., 0])


@pytest.mark.parametrize("kind", ["png", "jpeg2k", "jpeg8"])
@pytest.mark.parametrize("damage", ["cut", "zeroed"])
def test_images_without_their_end_are_refused(kind: str, damage: str) -> None:
    image = np.random.default_rng(2).integers(0, 99, (200, 180)).astype(np.uint8)
    data = bytes(getattr(imagecodecs, f"{kind}_encode")(image))
    half = len(data) // 2
    for bad in (data[:half], data[:-20]) if damage == "cut" else (data[:half] + bytes(half),):
        with pytest.raises(ItemError, match=r"x\.tif"):
            SceneRaster(io.BytesIO(bad), len(bad), REF).read((0, 0, 200, 180))
    scene = SceneRaster(io.BytesIO(data), len(data), REF)
    assert scene.read((0, 0, 200, 180)).raster.shape == (1, 200, 180)
    scene.close()


def test_damage_outside_of_a_window_is_not_looked_for() -> None:
    image = np.random.default_rng(3).integers(0, 99, (1, 64, 8)).astype(np.uint8)
    with MemoryFile() as file:
        options = {"dtype": "uint8", "compress": "deflate", "blockysize": 32}
        with file.open(driver="GTiff", height=64, width=8, count=1, **options) as out:
            out.write(image)
        data = bytes(file.read())
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        bad = _flipped(data, tif.pages[0].dataoffsets[1], tif.pages[0].databytecounts[1])
    scene = SceneRaster(io.BytesIO(bad), len(bad), REF)
    np.testing.assert_array_equal(scene.read((0, 0, 32, 8)).raster, image[:, :32])
    with pytest.raises(ItemError, match=r"strip or tile 1 of x\.tif is damaged"):
        scene.read((31, 0, 2, 8))
    scene.close()


def test_a_damaged_mask_is_refused() -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as file:
        with file.open(driver="GTiff", height=64, width=64, count=1, dtype="uint8", compress="deflate") as out:
            out.write(np.ones((1, 64, 64), np.uint8))
            out.write_mask(np.random.default_rng(1).random((64, 64)) < 0.5)
        data = bytes(file.read())
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        page = next(page for page in tif.pages if int(page.subfiletype or 0) & 4)
        bad = _flipped(data, page.dataoffsets[0], page.databytecounts[0])
    scene = SceneRaster(io.BytesIO(bad), len(bad), REF)
    with pytest.raises(ItemError, match=r"strip or tile 0 of x\.tif is damaged"):
        scene.read((0, 0, 64, 64))
    scene.close()
