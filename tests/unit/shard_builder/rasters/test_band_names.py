"""Bands that a file names are taken by name, and names of others are an error."""

from __future__ import annotations

import io

import numpy as np
import pytest
import rasterio
import tifffile

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec, builtin_sensor
from shard_builder.archives import MemberRef
from shard_builder.rasters.band_names import check_band, in_declared_order
from shard_builder.rasters.images import decode_rgb, decode_tiff
from shard_builder.rasters.raster import Decoded, Facts

EUROSAT = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A"]


def spec(*bands: str) -> SensorSpec:
    return SensorSpec(name="x", bands=bands, dtype="uint16", units="1")


def decoded(*names: str, bands: int | None = None) -> Decoded:
    """Return bands of 0, 1, 2 ... that a file calls so."""
    raster = np.arange(bands or len(names), dtype=np.uint16)[:, None, None] * np.ones((1, 2, 3), np.uint16)
    return Decoded(raster, Facts(bands=names))


def order(found: Decoded) -> list[int]:
    return found.raster[:, 0, 0].tolist()


def test_eurosat_keeps_b8a_last_and_is_brought_to_the_declared_order() -> None:
    found = in_declared_order(decoded(*EUROSAT), builtin_sensor("s2"), "a.tif")
    assert order(found) == [0, 1, 2, 3, 4, 5, 6, 7, 12, 8, 9, 10, 11]
    assert found.facts.rules == ("s2: bands brought to the declared order by name",)
    assert in_declared_order(found, builtin_sensor("s2"), "a.tif") is found
    less = in_declared_order(decoded(*EUROSAT), builtin_sensor("s2_l2a"), "a.tif")
    assert order(less) == [0, 1, 2, 3, 4, 5, 6, 7, 12, 8, 10, 11]  # B10 is none of its bands


@pytest.mark.parametrize(
    ("names", "declared"),
    [
        (("B02", "B03"), ("B2", "B3")),
        (("Band 1", "Band 2"), ("B2", "B3")),  # a count, no names
        (("", ""), ("B2", "B3")),
        (("bands", "bands"), ("B2", "B3")),
        (("B2", ""), ("B2", "B3")),
        (("height",), ("elevation",)),
        ((), ("B2", "B3")),
    ],
)
def test_what_is_in_order_or_says_nothing_stays_as_it_is(names: tuple[str, ...], declared: tuple[str, ...]) -> None:
    given = decoded(*names, bands=len(declared))
    assert in_declared_order(given, spec(*declared), "a.tif") is given


@pytest.mark.parametrize(
    ("names", "declared"),
    [
        (("B1", "B2", "B3"), ("B2", "B3", "B4")),
        (("HH", "HV"), ("VV", "VH")),
        (("red", "green"), ("R", "NIR")),
        (("", "B2"), ("B2", "B3")),
        (("u", "w"), ("u", "v")),
    ],
)
def test_other_bands_than_the_declared_ones_are_named(names: tuple[str, ...], declared: tuple[str, ...]) -> None:
    with pytest.raises(ItemError, match=rf"a\.tif calls its bands .*declares {', '.join(declared)}. Set sensors\.x"):
        in_declared_order(decoded(*names), spec(*declared), "a.tif")


def test_names_of_another_kind_are_reported() -> None:
    found = in_declared_order(decoded("red", "green"), spec("B4", "B3"), "a.tif")
    assert order(found) == [0, 1]
    assert found.facts.rules == ("x: bands that the file calls red, green taken in its order as B4, B3",)


def test_what_belongs_to_a_band_moves_with_it() -> None:
    given = decoded("B3", "B2")
    mask = np.stack([np.zeros((2, 3), bool), np.ones((2, 3), bool)])
    given = Decoded(given.raster, Facts(bands=given.facts.bands, nodata=(3, 2)), None, mask)
    found = in_declared_order(given, spec("B2", "B3"), "a.tif")
    assert (found.facts.nodata, found.facts.bands) == ((2, 3), ("B2", "B3"))
    assert found.mask is not None
    assert found.mask[:, 0, 0].tolist() == [True, False]
    series = Decoded(np.stack([given.raster] * 2), Facts(bands=given.facts.bands), None, mask)
    assert in_declared_order(series, spec("B2", "B3"), "a.tif").raster[1, :, 0, 0].tolist() == [1, 0]


def test_a_file_of_one_band_is_the_one_of_its_path() -> None:
    check_band(decoded("Blue"), "B2", "a_B02.tif")
    check_band(decoded("B02"), "B2", "a_B02.tif")
    with pytest.raises(ItemError, match=r"a_B02\.tif is band B2 by its path, and calls itself B03"):
        check_band(decoded("B03"), "B2", "a_B02.tif")


def described(names: list[str], image: np.ndarray, **options: object) -> bytes:
    with rasterio.MemoryFile() as memory:
        count, height, width = image.shape
        with memory.open(
            driver="GTiff", count=count, height=height, width=width, dtype=image.dtype, **options
        ) as dataset:
            dataset.write(image)
            dataset.descriptions = names
        return bytes(memory.read())


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_descriptions_are_read_from_geotiffs(interleave: str) -> None:
    image = np.arange(3, dtype=np.uint16)[:, None, None] * np.ones((1, 16, 16), np.uint16)
    data = described(["B4 & co", "B3", ""], image, interleave=interleave)
    ref = MemberRef("", "folder", "a.tif", len(data))
    assert decode_tiff(data, ref).facts.bands == ("B4 & co", "B3", "")


def test_dropping_a_fourth_band_drops_its_name() -> None:
    data = described(["blue", "green", "red", "nir"], np.zeros((4, 16, 16), np.uint8))
    found = decode_rgb(data, MemberRef("", "folder", "a.tif", len(data)))
    assert found.facts.bands == ("blue", "green", "red")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((4, 5, 3), np.uint8))
    assert decode_rgb(buffer.getvalue(), MemberRef("", "folder", "b.tif", 1)).facts.bands == ()
