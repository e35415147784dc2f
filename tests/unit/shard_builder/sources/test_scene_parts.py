"""Scenes of a sensor in files of a band or a date each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import Affine

from gfm_pipeline.errors import ArchiveError, ItemError
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.config import BuildConfig
from tests.contracts.test_sources import read_with_public_libraries
from tests.make.products import raster_file

Found = dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]]
BANDS = {"bands": ["B1", "B2"], "dtype": "uint16", "units": "1", "nodata": 0}
SPLIT = {"a": {"files": "{key}_{band}.tif", **BANDS}}
SERIES = {"a": {"files": "{key}_{date}.tif", **BANDS, "bands": ["B1"]}}


def build(folder: Path, sensors: dict[str, Any], **more: Any) -> tuple[BuildReport, Found]:
    options = {"sensors": sensors, **more.pop("options", {})}
    more = {"tile_px": 8, "on_error": "fail"} | more
    config = BuildConfig(
        source="scenes", input=str(folder / "raw"), output=str(folder / "out"), options=options, **more
    )
    report = build_collection(config, "build", lambda _: None)
    found = {key: (rasters, meta) for key, rasters, meta in read_with_public_libraries(folder / "out")}
    return report, found


def write(folder: Path, name: str, image: np.ndarray, x: float = 0, y: float = 0, gsd: float = 10, **more: Any) -> None:
    """Write an image whose corner lies `x` metres east and `y` metres south of the place of all."""
    (folder / "raw").mkdir(exist_ok=True)
    place = {"transform": Affine(gsd, 0, 600000 + x, 0, -gsd, 5400000 - y)} | more
    (folder / "raw" / name).write_bytes(raster_file(image, gsd, **place))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(1, 999, shape).astype(np.uint16)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_bands_of_several_resolutions_come_to_the_finest_grid(resampling: str, tmp_path: Path) -> None:
    fine, coarse = noise(1, 16, 16), noise(1, 8, 8)
    write(tmp_path, "x_B01.tif", coarse, gsd=20)  # the first band is not the finest
    write(tmp_path, "x_B02.tif", fine)
    report, found = build(tmp_path, {"a": SPLIT["a"] | {"resampling": resampling}})
    assert sorted(found) == ["x_r0_c0", "x_r0_c8", "x_r8_c0", "x_r8_c8"]
    for key, (rasters, meta) in found.items():
        row, column = (int(part[1:]) for part in key.split("_")[1:])
        np.testing.assert_array_equal(rasters["a"][1], fine[0, row : row + 8, column : column + 8])
        repeated = coarse[0].repeat(2, 0).repeat(2, 1)[row : row + 8, column : column + 8]
        assert (rasters["a"][0] == repeated).all() == (resampling == "nearest")
        assert meta["transform"] == [10.0, 0.0, 600000.0 + 10 * column, 0.0, -10.0, 5400000.0 - 10 * row]
        assert meta["sensors"]["a"]["gsd_m"] == 10
    assert report.manifest is not None
    assert report.manifest.counts[f"rule: a: resampled to the common grid ({resampling})"] == 4


def test_dates_that_differ_by_pixels_make_a_series_of_their_common_part(tmp_path: Path) -> None:
    first, second = noise(1, 17, 16), noise(1, 16, 18)
    write(tmp_path, "x_20200601.tif", second, x=-10, y=10)  # a pixel further west, one further south
    write(tmp_path, "x_20200301.tif", first)
    report, found = build(tmp_path, SERIES)
    assert sorted(found) == ["x_r1_c0", "x_r1_c8", "x_r9_c0", "x_r9_c8"]
    for key, (rasters, meta) in found.items():
        row, column = (int(part[1:]) for part in key.split("_")[1:])
        np.testing.assert_array_equal(rasters["a"][0], first[:, row : row + 8, column : column + 8])
        np.testing.assert_array_equal(rasters["a"][1], second[:, row - 1 : row + 7, column + 1 : column + 9])
        assert meta["sensors"]["a"]["dates"] == ["2020-03-01", "2020-06-01"]
        assert meta["transform"][2::3] == [600000.0 + 10 * column, 5400000.0 - 10 * row]
    assert report.manifest is not None
    assert not any("resampled" in rule for rule in report.manifest.counts)


def test_one_date_is_an_image_and_bands_of_dates_a_series(tmp_path: Path) -> None:
    sensors = {"a": {"files": "{key}_{date}_{band}.tif", **BANDS}}
    images = noise(3, 2, 8, 8)
    for date, image in zip(("20200101", "20200201"), images, strict=False):
        for band, pixels in zip(("B1", "B2"), image, strict=True):
            write(tmp_path, f"two_{date}_{band}.tif", pixels[None])
    for band, pixels in zip(("B1", "B2"), images[2], strict=True):
        write(tmp_path, f"one_20200101_{band}.tif", pixels[None])
    _, found = build(tmp_path, sensors)
    np.testing.assert_array_equal(found["two_r0_c0"][0]["a"], images[:2])
    np.testing.assert_array_equal(found["one_r0_c0"][0]["a"], images[2])


def test_a_sensor_of_several_files_comes_to_the_grid_of_another_one(tmp_path: Path) -> None:
    pan, fine, coarse = noise(1, 32, 32), noise(1, 16, 16), noise(1, 8, 8)
    write(tmp_path, "x_pan.tif", pan, gsd=5)
    write(tmp_path, "x_B1.tif", fine)
    write(tmp_path, "x_B2.tif", coarse, gsd=20)
    sensors = {"pan": {"files": "{key}_pan.tif", **BANDS, "bands": ["P"]}, "a": SPLIT["a"] | {"resampling": "nearest"}}
    _, found = build(tmp_path, sensors)
    (rasters, _) = found["x_r8_c24"]
    np.testing.assert_array_equal(rasters["pan"][0], pan[0, 8:16, 24:32])
    np.testing.assert_array_equal(rasters["a"][0], fine[0].repeat(2, 0).repeat(2, 1)[8:16, 24:32])
    np.testing.assert_array_equal(rasters["a"][1], coarse[0].repeat(4, 0).repeat(4, 1)[8:16, 24:32])
    own = tmp_path / "own"
    own.mkdir()
    (own / "raw").symlink_to(tmp_path / "raw")
    _, found = build(own, sensors, options={"align": "own"})
    np.testing.assert_array_equal(found["x_r8_c24"][0]["a"][0], fine[0, 4:8, 12:16])
    np.testing.assert_array_equal(found["x_r8_c24"][0]["a"][1], coarse[0].repeat(2, 0).repeat(2, 1)[4:8, 12:16])


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("x_B1.tif", "x_B2.tif", "y_B1.tif", "x_B02.tif"):
        write(tmp_path, name, noise(1, 8, 8))
    report, found = build(tmp_path, SPLIT, on_error="skip")
    assert list(found) == ["x_r0_c0"]
    reasons = {row.item: row.reason for row in report.rejected}
    assert reasons["x"].startswith("duplicate of x_B")
    assert reasons["y"] == "a of y lacks band B2"


def test_files_without_a_grid_need_one_size(tmp_path: Path) -> None:
    for name, side in (("x_B1.tif", 8), ("x_B2.tif", 8), ("y_B1.tif", 8), ("y_B2.tif", 16)):
        write(tmp_path, name, noise(1, side, side), crs=None, transform=None)
    report, found = build(tmp_path, SPLIT, on_error="skip")
    np.testing.assert_array_equal(found["x_r0_c0"][0]["a"], np.concatenate([noise(1, 8, 8)] * 2))
    (row,) = report.rejected
    assert "y_B2.tif is 16 x 16 px and y_B1.tif 8 x 8; without georeferences" in row.reason


def test_bands_are_taken_by_the_names_in_every_file(tmp_path: Path) -> None:
    image = np.stack([np.full((8, 8), value, np.uint16) for value in (1, 2)])
    write(tmp_path, "x_20200101.tif", image, names=("B02", "B01"))
    write(tmp_path, "x_20200201.tif", image, names=("B01", "B02"))
    _, found = build(tmp_path, {"a": {"files": "{key}_{date}.tif", **BANDS}})
    assert found["x_r0_c0"][0]["a"][:, :, 0, 0].tolist() == [[2, 1], [1, 2]]
    write(tmp_path, "y_B1.tif", image[:1], names=("B02",))
    write(tmp_path, "y_B2.tif", image[:1], names=("B02",))
    with pytest.raises(ItemError, match=r"y_B1\.tif is band B1 by its path, and calls itself B02"):
        build(_other(tmp_path), SPLIT)


def test_the_grid_is_that_of_the_first_sensor_that_a_place_has(tmp_path: Path) -> None:
    write(tmp_path, "x_s.tif", noise(1, 8, 8))
    write(tmp_path, "y_t.tif", noise(1, 9, 9))
    one = BANDS | {"bands": ["v"], "optional": True}
    sensors = {"s": {"files": "{key}_s.tif", **one}, "t": {"files": "{key}_t.tif", **one}}
    _, found = build(tmp_path, sensors, edge="drop")
    assert sorted(found) == ["x_r0_c0", "y_r0_c0"]
    required = {"s": sensors["s"] | {"optional": False}, "t": sensors["t"]}
    with pytest.raises(ItemError, match="y has no s, in whose pixels"):
        build(_other(tmp_path), required)


def _other(folder: Path) -> Path:
    other = folder / "other"
    other.mkdir()
    (other / "raw").symlink_to(folder / "raw")
    return other


def test_a_pattern_of_an_optional_sensor_may_fit_nothing(tmp_path: Path) -> None:
    write(tmp_path, "x_s.tif", noise(1, 8, 8))
    one = BANDS | {"bands": ["v"]}
    sensors = {"s": {"files": "{key}_s.tif", **one}, "t": {"files": "{key}_t.tif", **one, "optional": True}}
    _, found = build(tmp_path, sensors)
    assert list(found) == ["x_r0_c0"]
    sensors["t"]["optional"] = False
    with pytest.raises(ArchiveError, match=r"no file in .* fits '\{key\}_t\.tif'"):
        build(_other(tmp_path), sensors)
