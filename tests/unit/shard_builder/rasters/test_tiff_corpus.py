"""TIFFs of every type, layout, compression, nodata and mask that GDAL writes: pixels and what was not measured."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from gfm_pipeline.sensors import SensorSpec
from shard_builder.archives import MemberRef
from shard_builder.config import SensorOverride
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.images import TiffWindows, decode_tiff
from shard_builder.rasters.radiometry import prepare
from shard_builder.rasters.raster import Decoded
from shard_builder.rasters.tiff import TiffImage

REF = MemberRef("", "folder", "k1.tif", 1)
RNG = np.random.default_rng(8)
WINDOW = (5, 7, 30, 40)
STORED = {"int8": "int16", "int64": "int32", "uint64": "uint32"}
FILL = 101
"""Nodata of the sensors of integers; no pixel has it."""
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64", "float32", "float64")
FILES = [
    {"dtype": dtype, "count": count, "interleave": inter, "tile": tile, "compress": codec, "predictor": predictor,
     "nodata": nodata, "mask": mask}
    for dtype, count, inter, tile, codec, predictor, nodata, mask in itertools.product(
        DTYPES, (1, 3, 4), ("band", "pixel"), (None, (16, 32)),
        ("none", "lzw", "deflate", "zstd", "packbits", "lzma", "lerc", "lerc_zstd"), (1, 2, 3),
        ("none", "exact", "near", "other"), ("none", "internal", "alpha"),
    )
    if (predictor == 1 or codec in ("lzw", "deflate", "zstd"))
    and (predictor < 3 or dtype in ("float32", "float64"))
    and not (codec.startswith("lerc") and dtype in ("int64", "uint64"))
    and (mask != "alpha" or (count == 4 and dtype in ("uint8", "uint16")))
]  # fmt: skip
CHOSEN = [FILES[i] for i in np.random.default_rng(3).choice(len(FILES), 200, replace=False)]


def pixels_of(file: dict[str, Any]) -> tuple[np.ndarray[Any, Any], float | None]:
    """Return the pixels [C,50,60] of a file and the nodata value that it declares; nine rows hold it, or nearly."""
    kind, shape = np.dtype(file["dtype"]).kind, (file["count"], 50, 60)
    image = (RNG.normal(0, 100, shape) if kind == "f" else RNG.integers(1, 100, shape)).astype(file["dtype"])
    signed = -9999.0 if kind == "f" or file["dtype"] in ("int16", "int32", "int64") else 0.0
    nodata = {"none": None, "exact": signed, "near": -9999.9 if kind == "f" else 0.0, "other": 7.0}[file["nodata"]]
    if nodata is not None:
        image[:, :9] = np.array(nodata).astype(file["dtype"])
    if file["nodata"] == "near" and kind == "f":
        image[:, :9] = np.nextafter(image[0, 0, 0], np.zeros((), image.dtype))
    if file["mask"] == "alpha":
        image[3] = np.where(np.arange(60) > 20, np.iinfo(file["dtype"]).max, 0)
    return image, nodata


def write(path: Path, file: dict[str, Any], image: np.ndarray[Any, Any], nodata: float | None) -> None:
    profile: dict[str, Any] = {"interleave": file["interleave"], "nodata": nodata}
    if file["compress"] != "none":
        profile["compress"] = file["compress"]
    if file["predictor"] > 1:
        profile["predictor"] = file["predictor"]
    if file["tile"]:
        profile |= {"tiled": True, "blockysize": file["tile"][0], "blockxsize": file["tile"][1]}
    if file["mask"] == "alpha":
        profile |= {"alpha": "yes", "photometric": "rgb"}
    count, height, width = image.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=file["dtype"], **profile
        ) as out,
    ):
        out.write(image)
        if file["mask"] == "internal":
            out.write_mask(np.repeat([255, 0], [30, 20]).astype(np.uint8)[:, None] * np.ones(60, np.uint8))


def missing_of(path: Path, file: dict[str, Any], nodata: float | None) -> np.ndarray[Any, Any]:
    """Return what was not measured as rasterio says it; where a file says it in two ways, either counts."""
    with rasterio.open(path) as data:
        pixels, missing = data.read(), data.read_masks() == 0
    if file["mask"] == "internal" and nodata is not None:  # GDAL heeds the mask alone
        missing |= pixels == np.array(nodata).astype(pixels.dtype)
        missing[:, :9] = True
    if file["mask"] == "alpha":
        missing = missing[:3] | (pixels[3:] == 0)
    return missing


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(4))
def test_pixels_and_masks_are_those_of_rasterio(part: int, tmp_path: Path) -> None:
    for number, file in enumerate(CHOSEN[part::4]):
        path = tmp_path / f"{number}.tif"
        image, nodata = pixels_of(file)
        write(path, file, image, nodata)
        expected, missing = image[: 3 if file["mask"] == "alpha" else None], missing_of(path, file, nodata)
        stored = STORED.get(file["dtype"], file["dtype"])
        own = None if np.dtype(stored).kind == "f" else FILL
        names = ("a", "b", "c", "d")[: len(expected)]
        spec = SensorSpec(name="x", bands=names, dtype=stored, units="1", nodata=own)  # type: ignore[arg-type]
        data = path.read_bytes()
        row, column, height, width = WINDOW
        cut = (..., slice(row, row + height), slice(column, column + width))
        windows = TiffWindows(TiffImage(io.BytesIO(data), len(data), REF), False)
        check(decode_tiff(data, REF), spec, expected, missing, file)
        check(windows.read(WINDOW), spec, expected[cut], missing[cut], file)


def check(
    decoded: Decoded, spec: SensorSpec, expected: np.ndarray[Any, Any], missing: np.ndarray[Any, Any], file: Any
) -> None:
    found = prepare(decoded, PlannedRaster((REF,)), spec, SensorOverride())
    gone = np.zeros(expected.shape, bool) if found.measured is None else ~found.measured
    np.testing.assert_array_equal(gone, missing, err_msg=str(file))
    np.testing.assert_array_equal(found.raster[~missing], expected[~missing], err_msg=str(file))
