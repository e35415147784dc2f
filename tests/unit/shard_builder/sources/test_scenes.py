"""The source `scenes`: the common grid, overlaps, and scenes that do not lie over each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pyproj import CRS

from gfm_pipeline.errors import ConfigError, GfmError, ItemError
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.config import BuildConfig
from shard_builder.planned import PlannedSample
from tests.contracts.test_sources import read_with_public_libraries
from tests.make.archives import MAKERS, OPTIONS, tar_gz, tiff, utm, zipped
from tests.unit.shard_builder.sources.planning import plan_samples

VALUE = {"bands": ["v"], "dtype": "uint16", "units": "1"}
TWO = {"a": {"files": "s/{key}_a.tif", **VALUE}, "b": {"files": "s/{key}_b.tif", **VALUE}}


def config(folder: Path, options: dict[str, Any], **more: Any) -> BuildConfig:
    return BuildConfig(
        source="scenes", input=str(folder / "raw"), output=str(folder / "out"), options=options, tile_px=8, **more
    )


def build(folder: Path, options: dict[str, Any], **more: Any) -> BuildReport:
    return build_collection(config(folder, options, **more), "build", lambda _: None)


def write(folder: Path, name: str, image: np.ndarray, *place: int) -> None:
    (folder / "raw" / "s").mkdir(parents=True, exist_ok=True)
    (folder / "raw" / "s" / name).write_bytes(tiff(image, **(utm(place[0], place[1], place[2]) if place else {})))


def planned(folder: Path, options: dict[str, Any]) -> list[PlannedSample]:
    """Return what a build would load, without loading it."""

    return plan_samples(config(folder, options))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(1, 999, shape).astype(np.uint16)


def test_the_same_grid_up_to_whole_steps_is_cut_not_resampled(tmp_path: Path) -> None:
    a, b = noise(20, 30), noise(24, 18)
    write(tmp_path, "x_a.tif", a, 600000, 5400000, 32)
    write(tmp_path, "x_b.tif", b, 600030, 5400020, 32)  # 3 pixels further east, 2 further north
    build(tmp_path, {"sensors": TWO})
    found = {key: (rasters, meta) for key, rasters, meta in read_with_public_libraries(tmp_path / "out")}
    assert sorted(found) == sorted(f"x_r{row}_c{column}" for row in (0, 8, 12) for column in (3, 11, 13))
    for key, (rasters, meta) in found.items():
        row, column = (int(part[1:]) for part in key.split("_")[1:])
        np.testing.assert_array_equal(rasters["a"][0], a[row : row + 8, column : column + 8])
        np.testing.assert_array_equal(rasters["b"][0], b[row + 2 : row + 10, column - 3 : column + 5])
        assert meta["transform"] == [10.0, 0.0, 600000.0 + 10 * column, 0.0, -10.0, 5400000.0 - 10 * row]
        assert meta["labels"] == {"scene": "x"}


def test_scenes_without_a_place_are_taken_to_cover_the_same(tmp_path: Path) -> None:
    a, b = noise(16, 16), noise(32, 32)
    write(tmp_path, "x_a.tif", a)
    write(tmp_path, "x_b.tif", b)
    with pytest.raises(ItemError, match=r"without georeferences they cannot be brought to one grid\. Set align=own"):
        build(tmp_path, {"sensors": TWO})
    build(tmp_path, {"sensors": TWO, "align": "own"})
    for key, rasters, _ in read_with_public_libraries(tmp_path / "out"):
        row, column = (int(part[1:]) for part in key.split("_")[1:])
        np.testing.assert_array_equal(rasters["b"][0], b[2 * row : 2 * row + 16, 2 * column : 2 * column + 16])


def test_another_grid_is_planned_on_the_common_one(tmp_path: Path) -> None:
    write(tmp_path, "x_a.tif", noise(40, 40), 600000, 5400000, 32)
    write(tmp_path, "x_b.tif", noise(40, 40), 600004, 5400003, 32)
    samples = planned(tmp_path, {"sensors": TWO | {"b": TWO["b"] | {"kind": "labels"}}})
    assert len(samples) == 25
    for sample in samples:
        a, b = sample.rasters["a"], sample.rasters["b"]
        assert (a.grid, b.window, b.resampling) == (None, a.window, "nearest")
        assert b.grid is not None
        assert (b.grid.height, b.grid.width, b.grid.georeference.transform[2]) == (40, 40, 600000.0)


def test_scenes_of_another_projection_overlap_where_both_are(tmp_path: Path) -> None:
    from pyproj import Transformer

    write(tmp_path, "x_a.tif", noise(60, 60), 600000, 5400000, 32)
    x, y = Transformer.from_crs("EPSG:32632", "EPSG:32633", always_xy=True).transform(600100, 5399900)
    write(tmp_path, "x_b.tif", noise(60, 60), round(x), round(y), 33)
    corners = [sample.rasters["a"].window for sample in planned(tmp_path, {"sensors": TWO})]
    rows, columns = ({window[i] for window in corners if window} for i in (0, 1))
    assert 10 <= min(rows) <= 16  # the grids are turned against each other by four degrees
    assert 10 <= min(columns) <= 16
    with pytest.raises(ItemError, match="align=own cannot cut them, align=grid can"):
        build(tmp_path, {"sensors": TWO, "align": "own"})


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((601000, 5400000, 32), "have no part in common"),
        ((600350, 5400000, 32), "too small for a tile"),
        ((), "has no georeference, and other scenes of its place have one"),
    ],
)
def test_scenes_that_do_not_lie_over_each_other(place: tuple[int, ...], message: str, tmp_path: Path) -> None:
    write(tmp_path, "x_a.tif", noise(40, 40), 600000, 5400000, 32)
    write(tmp_path, "x_b.tif", noise(40, 40), *place)
    with pytest.raises(ItemError, match=message):
        build(tmp_path, {"sensors": TWO})
    report = build(tmp_path, {"sensors": TWO}, on_error="skip")
    assert [(row.item, message in row.reason) for row in report.rejected] == [("x", True)]


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    for options, message in (
        ({"sensors": TWO, "grid": "c"}, r"options\.grid: no sensor is called 'c'"),
        ({"sensors": {"a": {**TWO["a"], "resampling": "sharper"}}}, "resampling"),
        ({"sensors": {"a": {**TWO["a"], "kind": "labels", "resampling": "average"}}}, "means of class numbers"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(tmp_path, options)


def test_a_missing_partner_follows_the_policy(tmp_path: Path) -> None:
    write(tmp_path, "x_a.tif", noise(8, 8), 600000, 5400000, 32)
    write(tmp_path, "y_a.tif", noise(8, 8), 600000, 5400000, 32)
    write(tmp_path, "y_b.tif", noise(8, 8), 600000, 5400000, 32)
    with pytest.raises(GfmError, match="x_r0_c0 has no b"):
        build(tmp_path, {"sensors": TWO}, unpaired="error")


def test_dates_come_from_the_name(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    MAKERS["scenes"](tmp_path / "raw")
    build_collection(config(tmp_path, OPTIONS["scenes"]), "build", lambda _: None)
    meta = next(meta for _, _, meta in read_with_public_libraries(tmp_path / "out"))
    assert meta["sensors"]["ms"]["dates"] == ["2020-07-03"]
    assert json.dumps(meta["sensors"]["pan"]["dates"]) == "[]"


def test_other_pixels_are_brought_to_the_grid_whatever_the_file(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    MAKERS["scenes"](tmp_path / "raw")
    options = OPTIONS["scenes"] | {"align": "grid"}
    options["sensors"] = options["sensors"] | {"ms": options["sensors"]["ms"] | {"resampling": "nearest"}}
    build_collection(config(tmp_path, OPTIONS["scenes"]), "build", lambda _: None)
    own = {key: rasters for key, rasters, _ in read_with_public_libraries(tmp_path / "out")}
    (tmp_path / "grid").mkdir()
    (tmp_path / "raw").rename(tmp_path / "grid" / "raw")
    report = build_collection(config(tmp_path / "grid", options), "build", lambda _: None)
    assert report.manifest is not None
    assert report.manifest.counts["rule: lc: resampled to the common grid (nearest)"] == report.manifest.num_samples
    for key, rasters, meta in read_with_public_libraries(tmp_path / "grid" / "out"):
        for sensor in ("ms", "lc"):
            np.testing.assert_array_equal(rasters[sensor], own[key][sensor].repeat(2, 1).repeat(2, 2)[:, :8, :8])
            assert meta["sensors"][sensor]["gsd_m"] == 10


def test_a_scene_of_another_projection_shows_the_same_ground(tmp_path: Path) -> None:
    from pyproj import Transformer

    across, down = np.meshgrid(np.arange(60), np.arange(60))
    write(tmp_path, "x_a.tif", (1000 + 10 * across + 7 * down).astype(np.uint16), 600000, 5400000, 32)
    to_32 = Transformer.from_crs("EPSG:32633", "EPSG:32632", always_xy=True)
    x, y = Transformer.from_crs("EPSG:32632", "EPSG:32633", always_xy=True).transform(600050, 5399950)
    x, y = round(x), round(y)
    east, north = to_32.transform(x + 10 * across + 5, y - 10 * down - 5)
    ramp = 1000 + (east - 600005) + 0.7 * (5399995 - north)  # what the first one has at its pixel centres
    write(tmp_path, "x_b.tif", np.rint(ramp.clip(0)).astype(np.uint16), x, y, 33)
    build(tmp_path, {"sensors": TWO})
    found = list(read_with_public_libraries(tmp_path / "out"))
    assert len(found) >= 16
    for _, rasters, meta in found:
        assert np.abs(rasters["a"].astype(int) - rasters["b"]).max() <= 1
        assert meta["crs"] == "EPSG:32632"


@pytest.mark.parametrize("source", ["scenes", "folder"])
def test_world_files_tell_scenes_apart(source: str, tmp_path: Path) -> None:
    for name, east in (("a", 600000), ("b", 600080), ("c", 630000)):
        write(tmp_path, f"x_{name}.tif", noise(16, 16))
        (tmp_path / "raw" / "s" / f"x_{name}.tfw").write_text(f"10\n0\n0\n-10\n{east + 5}\n5399995\n")
    apart = {"a": TWO["a"], "c": {"files": "s/{key}_c.tif", **VALUE}}
    settings = {"source": source, "input": str(tmp_path / "raw"), "on_error": "skip"}
    settings |= {"tile_px": 8} if source == "scenes" else {}
    report = build_collection(
        BuildConfig(**settings, output=str(tmp_path / "out"), options={"sensors": apart}), "build", lambda _: None
    )
    assert "apart" in report.rejected[0].reason or "no part in common" in report.rejected[0].reason
    if source == "scenes":
        windows = {s.key: s.rasters["b"].window for s in planned(tmp_path, {"sensors": TWO})}
        assert windows == {"x_r0_c8": (0, 0, 8, 8), "x_r8_c8": (8, 0, 8, 8)}


PRJ = CRS("EPSG:32632").to_wkt("WKT1_ESRI")


@pytest.mark.parametrize("pack", ["folder", "zip", "tar.gz"])
@pytest.mark.parametrize("source", ["scenes", "folder"])
@pytest.mark.parametrize(("ending", "world"), [("tif", "TFW"), ("png", "pgw"), ("jpg", "jgwx"), ("tif", "tifw")])
def test_files_beside_an_image_say_where_it_lies_wherever_it_is(
    ending: str, world: str, source: str, pack: str, tmp_path: Path
) -> None:
    image = np.random.default_rng(5).integers(1, 99, (16, 16)).astype(np.uint8)
    encoded = {"tif": tiff, "png": imagecodecs.png_encode, "jpg": imagecodecs.jpeg8_encode}[ending](image)
    world = world if world != "jgwx" else "wld"
    beside = {world: b"10\n0\n0\n-10\n600005\n5399995\n", "prj": PRJ.encode()}
    members = {f"s/a.{name}": bytes(data) for name, data in {**beside, ending: encoded}.items()}
    members |= {f"s/b.{ending}": bytes(encoded), "s/c.tfw": b"1"}
    raw = tmp_path / "raw"
    raw.mkdir()
    if pack == "folder":
        (raw / "s").mkdir()
        for name, data in members.items():
            (raw / name).write_bytes(data)
    else:
        make = zipped if pack == "zip" else tar_gz
        make(raw / f"x.{pack}", members)
    own = {"files": f"s/{{key}}.{ending}", "bands": ["v"], "dtype": "uint8", "units": "1"}
    options = {"sensors": {"v": own}, "archives": pack != "folder"}
    settings = {"tile_px": 16} if source == "scenes" else {}
    config = BuildConfig(source=source, input=str(raw), output=str(tmp_path / "out"), options=options, **settings)
    report = build_collection(config, "build", lambda _: None)
    found = {key[0]: meta for key, _, meta in read_with_public_libraries(tmp_path / "out")}
    assert found["a"]["crs"] == "EPSG:32632"
    assert found["a"]["transform"] == [10.0, 0.0, 600000.0, 0.0, -10.0, 5400000.0]
    assert found["b"].get("crs") is None
    assert report.plan is not None
    assert [(row.reason, row.files) for row in report.plan.ignored] == [("world file or .prj beside no image", 1)]
