"""GDAL reads the one file that it is given, by the driver that its first bytes call for."""

from __future__ import annotations

import io

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from gfm_pipeline.errors import ItemError
from shard_builder.archives import MemberRef
from shard_builder.rasters.scene import SceneRaster

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
