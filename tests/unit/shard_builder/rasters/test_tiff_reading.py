"""What a TIFF says beside its pixels (masks, alpha, further pages, sparse tiles, palettes), held against GDAL."""

from __future__ import annotations

import io
import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.transform import from_origin

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from shard_builder.archives import MemberRef
from shard_builder.config import SensorOverride
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.images import TiffWindows, decode_rgb, decode_tiff
from shard_builder.rasters.radiometry import Pixels, prepare
from shard_builder.rasters.raster import Decoded
from shard_builder.rasters.scene import SceneRaster
from shard_builder.rasters.tiff import TiffImage, parse_nodata

RNG = np.random.default_rng(2)
REF = MemberRef("", "folder", "k1.tif", 1)
HALF = np.repeat([0, 255], 24).astype(np.uint8)[:, None] * np.ones(40, np.uint8)
WINDOW = (17, 5, 20, 30)

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


def gdal(path: Path, image: np.ndarray[Any, Any], mask: np.ndarray[Any, Any] | None = None, **profile: Any) -> bytes:
    """Return the bytes of a GeoTIFF that GDAL wrote."""
    count, height, width = image.shape
    where = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 10, 10)}
    known = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": str(image.dtype)}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **{**known, **where, **profile}) as out,
    ):
        out.write(image)
        if mask is not None:
            out.write_mask(mask)
    return path.read_bytes()


def packed(decoded: Decoded, bands: int, dtype: str, **spec: Any) -> Pixels:
    sensor = SensorSpec(name="x", bands=tuple("abcdefghijklmnop"[:bands]), dtype=dtype, units="1", **spec)  # type: ignore[arg-type]
    return prepare(decoded, PlannedRaster((REF,)), sensor, SensorOverride())


def windowed(data: bytes, rgb: bool = False) -> Decoded:
    return TiffWindows(TiffImage(io.BytesIO(data), len(data), REF), rgb).read(WINDOW)


def cut(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    row, column, height, width = WINDOW
    return image[..., row : row + height, column : column + width]


@pytest.mark.parametrize(
    ("codec", "interleave", "dtype"),
    [*itertools.product(["LERC", "LERC_ZSTD", "LERC_DEFLATE"], ["band", "pixel"], ["float32", "float64"])],
)
def test_masks_of_lerc(codec: str, interleave: str, dtype: str, tmp_path: Path) -> None:
    image = RNG.normal(0, 5, (2, 48, 40)).astype(dtype)
    image[0, :20, :20] = np.nan
    image[1, 30:] = np.nan
    data = gdal(
        tmp_path / "a.tif",
        image,
        compress=codec,
        nodata=np.nan,
        tiled=True,
        blockxsize=16,
        blockysize=16,
        interleave=interleave,
    )
    np.testing.assert_array_equal(packed(decode_tiff(data, REF), 2, dtype).raster, image)
    np.testing.assert_array_equal(packed(windowed(data), 2, dtype).raster, cut(image))


@pytest.mark.parametrize("profile", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}, {"compress": "deflate"}])
@pytest.mark.parametrize(("bands", "dtype"), [(3, "uint8"), (2, "uint16"), (1, "float32")])
def test_masks_inside_the_file(bands: int, dtype: str, profile: dict[str, Any], tmp_path: Path) -> None:
    image = RNG.integers(1, 200, (bands, 48, 40)).astype(dtype)
    data = gdal(tmp_path / "a.tif", image, HALF, **profile)
    missing = np.broadcast_to(HALF == 0, image.shape)
    nodata = None if dtype == "float32" else 0
    readers = [decode_tiff, decode_rgb] if bands == 3 else [decode_tiff]
    for read in readers:
        found = packed(read(data, REF), bands, dtype, nodata=nodata)
        assert found.nodata_share == 0.5
        np.testing.assert_array_equal(~found.measured if found.measured is not None else None, missing)
        np.testing.assert_array_equal(found.raster[~missing], image[~missing])
        found = packed(windowed(data, read is decode_rgb), bands, dtype, nodata=nodata)
        np.testing.assert_array_equal(~found.measured if found.measured is not None else None, cut(missing))


@pytest.mark.parametrize("bands", [1, 3, 5])
@pytest.mark.parametrize("kind", ["YES", "PREMULTIPLIED"])
def test_alpha_beside_the_bands_is_a_mask(bands: int, kind: str, tmp_path: Path) -> None:
    image = RNG.integers(1, 200, (bands, 48, 40)).astype(np.uint8)
    at = min(bands, 3)  # GDAL's alpha follows the colours
    photometric = "minisblack" if bands == 1 else "rgb"
    data = gdal(tmp_path / "a.tif", np.insert(image, at, HALF, axis=0), alpha=kind, photometric=photometric)
    found = packed(decode_tiff(data, REF), bands, "uint8", nodata=0)
    assert found.nodata_share == 0.5
    np.testing.assert_array_equal(found.raster[:, 24:], image[:, 24:])
    assert not found.raster[:, :24].any()
    everything = packed(decode_tiff(data, REF), bands + 1, "uint8")  # declared as a band, it is one
    np.testing.assert_array_equal(everything.raster[at], HALF)


def test_alpha_beside_rgb(tmp_path: Path) -> None:
    image = RNG.integers(1, 200, (4, 48, 40)).astype(np.uint8)
    image[3] = 255
    options: dict[str, Any] = {"photometric": "rgb", "alpha": "yes"}
    opaque = decode_rgb(gdal(tmp_path / "a.tif", image, **options), REF)
    assert opaque.mask is None
    assert opaque.facts.rules == ("alpha channel dropped",)
    image[3] = HALF
    clear = decode_rgb(gdal(tmp_path / "b.tif", image, **options), REF)
    assert packed(clear, 3, "uint8", nodata=0).nodata_share == 0.5
    assert (
        "x: file carries a mask, sensor has no nodata: taken as data; set sensors.x.nodata"
        in packed(clear, 3, "uint8").rules
    )


@pytest.mark.parametrize("nodata", [None, -1, 7.5])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_sparse_files_are_read_as_gdal_does(nodata: float | None, dtype: str, tmp_path: Path) -> None:
    if dtype == "int16" and nodata == 7.5:
        nodata = 7
    path = tmp_path / "a.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=48,
        width=40,
        count=2,
        dtype=dtype,
        sparse_ok=True,
        tiled=True,
        blockxsize=16,
        blockysize=16,
        nodata=nodata,
        interleave="band",
    ) as out:
        out.write(np.full((16, 16), 3, dtype), 1, window=((16, 32), (16, 32)))
    data = path.read_bytes()
    with rasterio.open(path) as file:
        expected, mask = file.read(), file.read_masks() == 0
    found = packed(decode_tiff(data, REF), 2, dtype, nodata=nodata)
    np.testing.assert_array_equal(found.raster, expected)
    np.testing.assert_array_equal(packed(windowed(data), 2, dtype, nodata=nodata).raster, cut(expected))
    assert found.nodata_share == pytest.approx(mask.mean())


def pages(*images: np.ndarray[Any, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as out:
        for image in images:
            out.write(image, photometric="minisblack", **options)
    return buffer.getvalue()


def test_further_pages_are_bands_or_an_error_that_counts_them() -> None:
    stack = RNG.integers(0, 9, (12, 48, 40)).astype(np.uint16)
    data = pages(*stack, contiguous=False)
    np.testing.assert_array_equal(packed(decode_tiff(data, REF), 12, "uint16").raster, stack)
    np.testing.assert_array_equal(packed(windowed(data), 12, "uint16").raster, cut(stack))
    with pytest.raises(ItemError, match=r"x has 12 images of one size with 12 bands in all in k1.tif, .* declares 1"):
        packed(decode_tiff(data, REF), 1, "uint16")
    with pytest.raises(ItemError, match=r"k1.tif has 2 images of one size, expected one in RGB"):
        decode_rgb(pages(*np.zeros((2, 48, 40), np.uint8), contiguous=False), REF)


def test_overviews_are_no_pages_and_other_images_are_reported(tmp_path: Path) -> None:
    image = RNG.integers(1, 200, (1, 256, 256)).astype(np.uint8)
    gdal(tmp_path / "a.tif", image, np.full((256, 256), 255, np.uint8))
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.build_overviews([2, 4])
    plain = packed(decode_tiff((tmp_path / "a.tif").read_bytes(), REF), 1, "uint8")
    assert plain.rules == ()
    np.testing.assert_array_equal(plain.raster, image)
    thumbnail = packed(decode_tiff(pages(image[0], image[0, ::4, ::4], contiguous=False), REF), 1, "uint8")
    assert thumbnail.rules == ("1 further images of other sizes or types in the file: not read",)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("photometric", ["MINISBLACK", "MINISWHITE", "PALETTE"])
def test_class_numbers_of_few_bits_and_palettes_are_as_gdal_reads_them(
    bits: int, photometric: str, tmp_path: Path
) -> None:
    classes = RNG.integers(0, 2**bits, (1, 48, 40)).astype(np.uint8)
    data = gdal(tmp_path / "a.tif", classes, nbits=bits, photometric=photometric)
    with warnings.catch_warnings(), rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(), classes)
    labels = {"kind": "labels"}
    np.testing.assert_array_equal(packed(decode_tiff(data, REF), 1, "uint8", **labels).raster, classes)
    np.testing.assert_array_equal(packed(windowed(data), 1, "uint8", **labels).raster, cut(classes))


def test_palettes_and_inverted_grey_are_no_intensities(tmp_path: Path) -> None:
    image = RNG.integers(0, 9, (1, 48, 40)).astype(np.uint8)
    for name in ("MINISWHITE", "PALETTE"):
        with pytest.raises(ItemError, match=rf"k1.tif is a TIFF of photometric {name}, whose numbers"):
            packed(decode_tiff(gdal(tmp_path / "a.tif", image, photometric=name), REF), 1, "uint8")


def scaled(path: Path, image: np.ndarray[Any, Any], scales: tuple[float, ...], offsets: tuple[float, ...]) -> bytes:
    gdal(path, image)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = scales, offsets
    return path.read_bytes()


def test_scales_are_applied_to_integers_of_a_sensor_of_values_and_named_otherwise(tmp_path: Path) -> None:
    image = np.full((2, 8, 8), 2000, np.uint16)
    data = scaled(tmp_path / "a.tif", image, (1e-4, 2e-4), (0.0, -0.1))
    found = packed(decode_tiff(data, REF), 2, "float32")
    np.testing.assert_allclose(found.raster[:, 0, 0], [0.2, 0.3], rtol=1e-6)
    said = "x: scale 0.0001, offset 0; scale 0.0002, offset -0.1 of the file applied"
    assert found.rules == (said,)
    stored = packed(decode_tiff(data, REF), 2, "uint16")
    assert stored.rules == (
        "x: file declares scale 0.0001, offset 0; scale 0.0002, offset -0.1: not applied, numbers as stored",
    )
    np.testing.assert_array_equal(stored.raster, image)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("nan", np.nan), ("-nan", np.nan), ("1.#QNAN", np.nan), ("-1.#IND", np.nan), ("NaN(0x1)", np.nan),
        ("-inf", -np.inf), ("1.#INF", np.inf), ("-9999,5", -9999.5), ("-9999", -9999), ("-3.40282e+38", -3.40282e38),
        ("255.0", 255.0), (" 0 ", 0), ("-9223372036854775808", -(2**63)), ("1e-5", 1e-5), (".5", 0.5),
        ("", None), ("none", None), ("n/a", None), ("-", None), ("0x10", None), ("1 2", None), ("1e", None),
    ],
)  # fmt: skip
def test_text_of_nodata(text: str, value: float | None) -> None:
    np.testing.assert_equal(parse_nodata(text), value)


def test_a_value_written_once_for_each_band_is_one() -> None:
    data = pages(np.array([[-9999, 1]], np.float32), extratags=[(42113, "s", 0, "-9999 -9999", True)])
    assert np.isnan(packed(decode_tiff(data, REF), 1, "float32").raster).tolist() == [[[True, False]]]


@pytest.mark.parametrize("text", ["none", "-9999m", "1 2"])
def test_text_that_is_no_number_is_reported(text: str) -> None:
    data = pages(np.zeros((8, 8), np.float32), extratags=[(42113, "s", 0, text, True)])
    assert packed(decode_tiff(data, REF), 1, "float32").rules == (f"nodata {text!r} is no number: not used",)


def test_the_unit_matrix_is_no_damaged_transform() -> None:
    buffer = io.BytesIO()
    unit = (1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1.0)
    tifffile.imwrite(buffer, np.ones((4, 4), np.uint8), extratags=[(34264, "d", 16, unit, True)])
    data = buffer.getvalue()
    ref = MemberRef("", "folder", "k1.tif", len(data))
    scene = SceneRaster(io.BytesIO(data), len(data), ref)
    assert scene.facts.georeference is None
    assert decode_tiff(data, ref).facts == scene.facts
    assert scene.facts.rules == ()
    scene.close()
