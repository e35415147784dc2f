"""The source `mdas`: scenes, sensors on request, and grids that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfm_pipeline.config import load_config
from gfm_pipeline.errors import ConfigError, ItemError
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.config import BuildConfig
from tests.conftest import ROOT
from tests.contracts.test_sources import read_with_public_libraries
from tests.make.archives import tiff, utm
from tests.make.mdas import GSD, TOP, ground, mdas_grids
from tests.unit.shard_builder.sources.planning import plan_samples

SHARED = ROOT.parent / "shared"
ALL = ["s1", "s2_l2a", "hyspex"]
PRODUCT = {"rgb": "3K_RGB", "dsm": "3K_DSM", "s1": "Sentinel_1", "s2_l2a": "Sentinel_2", "hyspex": "HySpex"}
Found = dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]]


def config(raw: Path, out: Path, **more: Any) -> BuildConfig:
    settings = {"tile_px": 50, "edge": "drop"} | more
    return BuildConfig(source="mdas", input=str(raw), output=str(out), **settings)


def build(raw: Path, out: Path, **more: Any) -> tuple[BuildReport, Found]:
    report = build_collection(config(raw, out, **more), "build", lambda _: None)
    return report, {key: (rasters, meta) for key, rasters, meta in read_with_public_libraries(out)}


def corner(key: str) -> tuple[int, int]:
    row, column = (int(part[1:]) for part in key.split("_")[-2:])
    return row, column


def test_rgb_and_the_surface_model_of_the_sub_areas_are_the_default(tmp_path: Path) -> None:
    truth = mdas_grids(tmp_path)
    report, found = build(tmp_path, tmp_path / "out")
    assert sorted(found) == sorted(f"sub_area_1_r{row}_c{column}" for row in (0, 50) for column in (0, 50, 100))
    south, east = ground("sub_area_1", GSD["3K_RGB"])
    surface = 480 + south / 8 + east / 16
    for key, (rasters, meta) in found.items():
        row, column = corner(key)
        window = slice(row, row + 50), slice(column, column + 50)
        rgb = truth["sub_area_1"]["3K_RGB"][..., :3].transpose(2, 0, 1)
        assert rasters.keys() == {"rgb", "dsm"}
        np.testing.assert_array_equal(rasters["rgb"], rgb[(slice(None), *window)])
        away = slice(1, 49), slice(1, 49)  # from the edge of the surface, where there is no second value
        np.testing.assert_allclose(rasters["dsm"][0][away], surface[window][away], atol=1e-3)
        assert meta["labels"] == {"area": "sub_area_1"}
        assert meta["crs"] == "EPSG:32632"
        assert meta["sensors"]["dsm"]["gsd_m"] == 2.0
    assert report.manifest is not None
    assert report.manifest.counts["rule: dsm: resampled to the common grid (bilinear)"] == 6
    assert report.manifest.counts["rule: fourth band dropped"] == 6


def test_all_sensors_on_request_in_the_pixels_of_rgb(tmp_path: Path) -> None:
    mdas_grids(tmp_path)
    _, found = build(tmp_path, tmp_path / "out", options={"sensors": ALL})
    south, east = ground("sub_area_1", GSD["3K_RGB"])
    assert len(found) == 6
    for key, (rasters, _) in found.items():
        assert {sensor: raster.shape for sensor, raster in rasters.items()} == {
            "rgb": (3, 50, 50),
            "dsm": (1, 50, 50),
            "s1": (2, 50, 50),
            "s2_l2a": (12, 50, 50),
            "hyspex": (368, 50, 50),
        }
        row, column = corner(key)
        window = slice(row + 5, row + 45), slice(column + 5, column + 45)
        inner = slice(5, 45), slice(5, 45)
        np.testing.assert_allclose(rasters["s1"][0][inner], (-20 + south / 64)[window], atol=1e-4)
        for sensor, band in (("s2_l2a", 11), ("hyspex", 367)):
            expected = (1000 + south + 2 * east + 3 * band)[window]
            np.testing.assert_allclose(rasters[sensor][band].astype(float)[inner], expected, atol=2)


def test_every_sensor_in_its_own_pixels(tmp_path: Path) -> None:
    truth = mdas_grids(tmp_path)["sub_area_1"]
    options = {"sensors": ALL, "align": "own"}
    with pytest.raises(ItemError, match=r"is 33\.33 x 33\.33 px of .*3K_dsm_sub_area1.tif and does not fit its pixels"):
        build(tmp_path, tmp_path / "out", options=options)
    report, found = build(tmp_path, tmp_path / "out", options=options, tile_px=30)
    assert len(found) == 4 * 5
    for key, (rasters, meta) in found.items():
        row, column = corner(key)
        for sensor, raster in rasters.items():
            gsd = GSD[PRODUCT[sensor]]
            top, left, size = (round(length * 2 / gsd) for length in (row, column, 30))
            image = np.atleast_3d(truth[PRODUCT[sensor]]).transpose(2, 0, 1)[: len(raster)]
            np.testing.assert_array_equal(raster, image[:, top : top + size, left : left + size], err_msg=sensor)
            assert meta["sensors"][sensor]["gsd_m"] == gsd
    assert report.manifest is not None
    assert not [name for name in report.manifest.counts if "resampled" in name]


@pytest.mark.parametrize("scenes", ["whole", "all"])
def test_the_whole_scene(scenes: str, tmp_path: Path) -> None:
    truth = mdas_grids(tmp_path)["entire_city"]
    _, found = build(tmp_path, tmp_path / "out", options={"scenes": scenes})
    city = {key: rasters for key, (rasters, _) in found.items() if key.startswith("entire_city")}
    assert (len(city), len(found)) == (4 * 6, 4 * 6 + (6 if scenes == "all" else 0))
    for key, rasters in city.items():
        row, column = corner(key)
        for sensor, raster in rasters.items():  # one grid: bit for bit
            image = np.atleast_3d(truth[PRODUCT[sensor]]).transpose(2, 0, 1)[: len(raster)]
            np.testing.assert_array_equal(raster, image[:, row : row + 50, column : column + 50])


def test_the_whole_scene_and_its_sub_areas_show_the_same_ground(tmp_path: Path) -> None:
    mdas_grids(tmp_path)
    _, found = build(tmp_path, tmp_path / "out", options={"scenes": "all", "sensors": ["s2_l2a"]})
    part, whole = found["sub_area_1_r0_c0"][0]["s2_l2a"], found["entire_city_r50_c50"][0]["s2_l2a"]
    np.testing.assert_array_equal(part[:, 5:45, 5:45], whole[:, 5:45, 5:45])


@pytest.mark.parametrize("below", [".", TOP, f"{TOP}/sub_area_1"])
def test_an_unpacked_folder_is_recognised_at_any_depth(below: str, tmp_path: Path) -> None:
    mdas_grids(tmp_path / "raw", packed=False)
    samples = plan_samples(config(tmp_path / "raw" / below, tmp_path / "out"))
    assert len(samples) == 6
    assert {sample.labels["area"] for sample in samples} == {"sub_area_1"}


def test_what_is_not_asked_for_is_listed(tmp_path: Path) -> None:
    mdas_grids(tmp_path)
    report, _ = build(tmp_path, tmp_path / "out", options={"sensors": ["s1"]})
    assert report.plan.ignored[0].files == 2 + 5 + 2 + 1  # a text and other data, the city, two sensors, OSM
    assert "do not ask for" in report.plan.ignored[0].reason


def test_scenes_that_cannot_be_brought_together_are_rejected(tmp_path: Path) -> None:
    mdas_grids(tmp_path / "raw", packed=False)
    folder = tmp_path / "raw" / TOP
    apart = tiff(np.zeros((40, 40), np.float32), **utm(700000, 5360900, 32, 3.0))
    (folder / "sub_area_1" / "3K_dsm_sub_area1.tif").write_bytes(apart)
    (folder / "entire_city" / "3K_DSM.tif").write_bytes(b"II*\0 nothing more")
    more: dict[str, Any] = {"options": {"scenes": "all"}}
    with pytest.raises(ItemError, match=r"3K_DSM\.tif cannot be decoded"):
        build(tmp_path / "raw", tmp_path / "out", **more)
    nothing = build_collection(config(tmp_path / "raw", tmp_path / "out", on_error="skip", **more), "build", print)
    assert nothing.manifest is not None
    assert nothing.manifest.num_samples == 0
    (folder / "sub_area_2").mkdir()
    for product in ("3K_RGB", "3K_dsm"):
        image = np.ones(
            (60, 60, 3) if product == "3K_RGB" else (60, 60), np.uint8 if product == "3K_RGB" else np.float32
        )
        (folder / "sub_area_2" / f"{product}_sub_area2.tif").write_bytes(tiff(image))
    report, found = build(tmp_path / "raw", tmp_path / "skip", on_error="skip", **more)
    assert list(found) == ["sub_area_2_r0_c0"]
    reasons = {row.item: row.reason for row in report.rejected}
    assert reasons.keys() == {"sub_area_1", "entire_city"}
    assert "have no part in common" in reasons["sub_area_1"]


def test_options_that_are_not_known(tmp_path: Path) -> None:
    for options in ({"scenes": "some"}, {"sensors": ["s3"]}, {"grid": "own"}):
        with pytest.raises(ConfigError, match="options of source mdas"):
            build(tmp_path, tmp_path / "out", options=options)


@pytest.mark.skipif(not (SHARED / "layouts" / "mdas").is_dir(), reason="../shared/layouts/mdas is not there")
@pytest.mark.parametrize("below", [".", TOP, f"{TOP}.zip"])
def test_a_layout_as_it_is_published(below: str, tmp_path: Path) -> None:
    raw = SHARED / "layouts" / "mdas" / below
    sensors = {"s2_l2a": {"bands": [f"b{i}" for i in range(13)], "display": {}}, "s1": {"convert": "linear_to_db"}}
    more: dict[str, Any] = {"options": {"sensors": ALL}, "sensors": sensors, "tile_px": 32, "max_nodata": 1}
    if below == ".":  # the zip and what it holds
        with pytest.raises(ItemError, match="sub_area_1_r0_c0"):
            build(raw, tmp_path / "out", **more)
        return
    _, found = build(raw, tmp_path / "out", **more)
    assert sorted(found) == [f"sub_area_{area}_r0_c0" for area in (1, 2, 3)]
    assert {len(rasters) for rasters, _ in found.values()} == {5}


@pytest.mark.skipif(not (SHARED / "raw").is_dir(), reason="../shared/raw is not there")
def test_real_imagery_by_the_shipped_configuration(tmp_path: Path) -> None:
    path = ROOT / "configs" / "build" / "mdas.yaml"
    built = load_config(path, BuildConfig, [f"input={SHARED / 'raw'}", f"output={tmp_path}", "workers=1"])
    assert len(plan_samples(built)) == 8
