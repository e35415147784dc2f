"""The source `folder`: keys, series, labels, formats, and what it refuses."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pytest
import zarr

from gfm_pipeline.errors import ArchiveError, ConfigError, GfmError, ItemError
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.config import BuildConfig
from tests.contracts.test_sources import read_with_public_libraries
from tests.make.archives import MAKERS, OPTIONS, tiff, utm
from tests.make.folder import npy, zarr_zip
from tests.make.products import raster_file

GREY = {"bands": ["v"], "dtype": "uint8", "units": "1"}


def build(raw: Path, out: Path, options: dict[str, Any], **more: Any) -> BuildReport:
    config = BuildConfig(source="folder", input=str(raw), output=str(out), options=options, **more)
    return build_collection(config, "build", lambda _: None)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def found(out: Path) -> dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]]:
    return {key: (rasters, meta) for key, rasters, meta in read_with_public_libraries(out)}


def test_dates_labels_and_uneven_series(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    MAKERS["folder"](tmp_path / "raw")
    report = build(tmp_path / "raw", tmp_path / "out", OPTIONS["folder"])
    metas = {key: meta for key, (_, meta) in found(tmp_path / "out").items()}
    assert [metas[key]["labels"] for key in ("alp", "chur_2")] == [{"class": "a"}, {"class": "c"}]
    thermal = {key: meta["sensors"]["thermal"] for key, meta in metas.items()}
    assert thermal["alp"]["dates"] == ["2020-01-03", "2020-06-15", "2020-12-24"]
    assert (thermal["chur_2"]["dates"], thermal["chur_2"]["shape"]) == (["2020-01-03"], [1, 2, 16, 16])
    assert metas["chur_2"]["sensors"]["wind"]["dates"] == ["2021-02-25", "2021-03-02"]
    assert metas["alp"]["crs"] == "EPSG:32632"
    assert report.plan is not None
    assert [(item.path, item.files) for item in report.plan.ignored] == [("mine.zip", 1)]


def test_a_table_gives_labels_and_splits(tmp_path: Path) -> None:
    for key in ("a", "b c"):
        write(tmp_path / "raw" / "v" / f"{key}.npy", npy(np.zeros((4, 4), np.uint8)))
    (tmp_path / "raw" / "about.csv").write_text("patch,split,crop\na,train,maize\nb c,val,\n")
    options = {"sensors": {"v": {"files": "v/{key}.npy", **GREY}}, "table": {"file": "about.csv", "key": "patch"}}
    build(tmp_path / "raw", tmp_path / "out", options)
    labels = [meta["labels"] for _, (_, meta) in sorted(found(tmp_path / "out").items())]
    assert labels == [{"split": "train", "crop": "maize"}, {"split": "val", "crop": ""}]
    with pytest.raises(ConfigError, match=r"no column 'patsch'.*Did you mean 'patch'"):
        build(tmp_path / "raw", tmp_path / "o", options | {"table": {"file": "about.csv", "key": "patsch"}})


def test_a_key_of_several_parts(tmp_path: Path) -> None:
    for scene in ("x", "y"):
        write(tmp_path / "raw" / scene / "p1.tif", tiff(np.zeros((4, 4), np.uint8)))
    options = {"key": "{scene}_{patch}", "sensors": {"v": {"files": "{scene}/{patch}.tif", **GREY}}}
    build(tmp_path / "raw", tmp_path / "out", options)
    assert found(tmp_path / "out").keys() == {"x_p1", "y_p1"}
    with pytest.raises(ConfigError, match=r"captures patch, scene, and options\.key is '\{key\}'"):
        build(tmp_path / "raw", tmp_path / "out2", options | {"key": "{key}"})


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("form", ["zip", "folder", "tar"])
def test_zarr_in_all_its_forms(version: Any, form: str, tmp_path: Path) -> None:
    array = np.arange(2 * 1 * 20 * 24, dtype=np.float32).reshape(2, 1, 20, 24)
    write(tmp_path / "raw" / "s" / "a.zarr.zip", zarr_zip(array, version))
    name, options = "s/{key}.zarr.zip", {"archives": form == "tar"}
    if form == "folder":
        shutil.unpack_archive(tmp_path / "raw" / "s" / "a.zarr.zip", tmp_path / "raw" / "s" / "a.zarr")
        (tmp_path / "raw" / "s" / "a.zarr.zip").unlink()
        name = "s/{key}.zarr"
    if form == "tar":
        shutil.make_archive(str(tmp_path / "raw" / "part1"), "gztar", tmp_path / "raw", "s")
        shutil.rmtree(tmp_path / "raw" / "s")
    sensor = {"files": name, "dataset": "bands", "axes": "C_HW", "bands": ["p", "q"], "dtype": "float32", "units": "1"}
    build(tmp_path / "raw", tmp_path / "out", {**options, "sensors": {"v": sensor}})
    np.testing.assert_array_equal(found(tmp_path / "out")["a"][0]["v"], array[:, 0])


def test_a_palette_keeps_its_numbers(tmp_path: Path) -> None:
    from PIL import Image

    image = Image.fromarray(np.array([[0, 1], [2, 200]], np.uint8), "P")
    image.putpalette(list(range(255, -1, -1)) * 3)
    (tmp_path / "raw" / "lc").mkdir(parents=True)
    image.save(tmp_path / "raw" / "lc" / "a.png")
    build(tmp_path / "raw", tmp_path / "out", {"sensors": {"lc": {"files": "lc/{key}.png", **GREY}}})
    assert found(tmp_path / "out")["a"][0]["lc"].tolist() == [[[0, 1], [2, 200]]]


def test_coarser_bands_are_repeated_and_said_so(tmp_path: Path) -> None:
    fine, coarse = np.arange(36, dtype=np.uint16).reshape(6, 6), np.array([[1, 2], [3, 4]], np.uint16)
    for band, image in (("B2", fine), ("B1", coarse)):
        write(tmp_path / "raw" / "p" / f"{band}.tif", tiff(image))
    sensor = {"files": "{key}/{band}.tif", "bands": ["B1", "B2"], "dtype": "uint16", "units": "1"}
    report = build(tmp_path / "raw", tmp_path / "out", {"sensors": {"v": sensor}})
    raster = found(tmp_path / "out")["p"][0]["v"]
    np.testing.assert_array_equal(raster, np.stack([np.kron(coarse, np.ones((3, 3), np.uint16)), fine]))
    assert report.manifest is not None
    assert report.manifest.counts["rule: B1 repeated 3 x 3"] == 1


def test_a_missing_band_is_named(tmp_path: Path) -> None:
    for name in ("20200101_B1", "20200101_B2", "20200202_B1"):
        write(tmp_path / "raw" / "p" / f"{name}.tif", tiff(np.zeros((4, 4), np.uint8)))
    sensor = {"files": "{key}/{date}_{band}.tif", "bands": ["B1", "B2"], "dtype": "uint8", "units": "1"}
    with pytest.raises(ItemError, match="v of p lacks band B2 of 2020-02-02"):
        build(tmp_path / "raw", tmp_path / "out", {"sensors": {"v": sensor}})


def test_unsigned_netcdf_and_place(tmp_path: Path) -> None:
    (tmp_path / "raw" / "n").mkdir(parents=True)
    with h5py.File(tmp_path / "raw" / "n" / "a.nc", "w") as file:
        file["v"] = np.full((2, 3), -1, np.int16)
        file["v"].attrs.update({"_Unsigned": b"true", "grid_mapping": b"crs"})
        file["x"], file["y"] = np.array([5.0, 15, 25]), np.array([95.0, 85])
        from pyproj import CRS

        file["crs"] = 0
        file["crs"].attrs["crs_wkt"] = CRS("EPSG:32632").to_wkt()
    sensor = {"files": "n/{key}.nc", "dataset": "v", **GREY, "dtype": "uint16"}
    build(tmp_path / "raw", tmp_path / "out", {"sensors": {"v": sensor}})
    rasters, meta = found(tmp_path / "out")["a"]
    assert rasters["v"].tolist() == [[[65535] * 3] * 2]
    assert (meta["crs"], meta["transform"]) == ("EPSG:32632", [10.0, 0.0, 0.0, 0.0, -10.0, 100.0])


def _external(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["v"] = h5py.ExternalLink("other.h5", "v")


def _virtual(path: Path) -> None:
    layout = h5py.VirtualLayout(shape=(4, 4), dtype="u1")
    layout[...] = h5py.VirtualSource("other.h5", "v", shape=(4, 4))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("v", layout)


def _objects(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["v"] = ["text", "more"]


def _damaged(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))


def _lacking(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["w"] = np.zeros((4, 4))


def _bomb(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("v", (60000, 60000), "u1", chunks=(1000, 1000))


def _great_chunk(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("v", (60000, 60000), "u1", chunks=(50000, 50000))


def _flat(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["v"] = np.zeros(4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_external, "is a link, which could lead to another file"),
        (_virtual, "keeps its pixels in other files"),
        (_objects, "expected numbers"),
        (_damaged, "no readable HDF5"),
        (_lacking, "has no array 'v'; it holds w"),
        (_bomb, "refused as a bomb"),
        (_great_chunk, "claims chunks of 2500000000 bytes"),
        (_flat, r"has the shape \(4,\)"),
    ],
)
def test_hdf5_that_is_refused(make: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "raw" / "n").mkdir(parents=True)
    with h5py.File(tmp_path / "raw" / "n" / "other.h5", "w") as file:
        file["v"] = np.zeros((4, 4), np.uint8)
    make(tmp_path / "raw" / "n" / "a.h5")
    with pytest.raises(ItemError, match=message):
        build(tmp_path / "raw", tmp_path / "out", {"sensors": {"v": {"files": "n/{key:a}.h5", "dataset": "v", **GREY}}})


@pytest.mark.parametrize("escaped", [False, True])
def test_zarr_that_would_unpickle_is_refused(escaped: bool, tmp_path: Path) -> None:
    store = tmp_path / "raw" / "z" / "a.zarr"
    zarr.create_array(store, data=np.zeros((4, 4), np.uint8), zarr_format=2)
    meta = json.loads((store / ".zarray").read_text())
    meta["filters"] = [{"id": "pickle", "protocol": 5}]
    text = json.dumps(meta)
    (store / ".zarray").write_text(text.replace('"pickle"', '"\\u0070ickle"') if escaped else text)
    with pytest.raises(ItemError, match="pickle codec: refused"):
        build(tmp_path / "raw", tmp_path / "out", {"sensors": {"v": {"files": "z/{key}.zarr", **GREY}}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "'sensors' is required"),
        ({"sensors": {}}, "name a sensor"),
        ({"sensors": {"mine": {"files": "{key}.tif"}}}, r"options\.sensors\.mine.*'bands' is required"),
        ({"sensors": {"rgb": {"files": "*.tif"}}}, "captures nothing"),
        ({"sensors": {"rgb": {"files": "{key}.tif"}}, "key": "all"}, "no named part"),
        ({"sensors": {"rgb": {"files": "{key}.tif", "axes": "CC"}}}, "H and W once"),
        ({"sensors": {"rgb": {"file": "{key}.tif"}}}, "Did you mean 'files'"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        build(tmp_path, tmp_path / "out", options)


def test_a_pattern_that_fits_nothing_says_what_there_is(tmp_path: Path) -> None:
    for name in ("S2", "S1"):
        write(tmp_path / "raw" / name / "a.png", imagecodecs.png_encode(np.zeros((4, 4), np.uint8)))
    sensors = {"v": {"files": "S2/{key}.png", **GREY}, "w": {"files": "S1/{key}.tif", **GREY}}
    with pytest.raises(
        ArchiveError, match=r"'S1/\{key\}\.tif', which has e\.g\. S1/a\.png.*options\.sensors\.w\.files"
    ):
        build(tmp_path / "raw", tmp_path / "out", {"sensors": sensors})


def test_optional_sensors_leave_a_sample_complete(tmp_path: Path) -> None:
    for name in ("v/a", "v/b", "w/a"):
        write(tmp_path / "raw" / f"{name}.npy", npy(np.zeros((4, 4), np.uint8)))
    sensors = {n: {"files": f"{n}/{{key}}.npy", **GREY} for n in "vw"}
    with pytest.raises(GfmError, match="b has no w"):
        build(tmp_path / "raw", tmp_path / "o1", {"sensors": sensors}, unpaired="error")
    sensors["w"]["optional"] = True
    report = build(tmp_path / "raw", tmp_path / "o2", {"sensors": sensors}, unpaired="error")
    assert report.manifest is not None
    assert report.manifest.num_samples == 2


def test_images_are_cut_to_tiles_that_cover_the_same_ground(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    fine, series = rng.integers(1, 200, (1, 24, 32)).astype(np.uint8), rng.integers(1, 200, (2, 1, 12, 16)).astype("u1")
    write(tmp_path / "raw" / "fine" / "a.tif", tiff(fine[0], **utm(600000, 5400000, 32)))
    write(tmp_path / "raw" / "fine" / "small.tif", tiff(fine[0, :8, :8]))
    for date, image in zip(("20200103", "20200615"), series, strict=True):
        write(tmp_path / "raw" / "coarse" / f"a_{date}.npy", npy(image))
    (tmp_path / "raw" / "about.csv").write_text("key,split\na,train\nsmall,val\n")
    sensors = {
        "fine": {"files": "fine/{key}.tif", **GREY},
        "coarse": {"files": "coarse/{key}_{date}.npy", **GREY, "optional": True},
    }
    options = {"sensors": sensors, "table": {"file": "about.csv"}}
    build(tmp_path / "raw", tmp_path / "out", options, tile_px=8, stride_px=8)
    tiles = found(tmp_path / "out")
    assert sorted(tiles) == sorted(["small", *(f"a_r{row}_c{col}" for row in (0, 8, 16) for col in (0, 8, 16, 24))])
    assert tiles.pop("small")[1]["labels"] == {"split": "val"}
    for key, (rasters, meta) in tiles.items():
        row, column = (int(part[1:]) for part in key.split("_")[1:])
        np.testing.assert_array_equal(rasters["fine"], fine[:, row : row + 8, column : column + 8])
        coarse = series[..., row // 2 : row // 2 + 4, column // 2 : column // 2 + 4]
        np.testing.assert_array_equal(rasters["coarse"], coarse)
        assert meta["transform"] == [10.0, 0.0, 600000.0 + 10 * column, 0.0, -10.0, 5400000.0 - 10 * row]
        assert (meta["labels"], meta["sensors"]["coarse"]["dates"]) == (
            {"split": "train"},
            ["2020-01-03", "2020-06-15"],
        )


def test_tiles_that_are_no_whole_pixels_are_named(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "fine" / "a.npy", npy(np.ones((24, 24), np.uint8)))
    write(tmp_path / "raw" / "coarse" / "a.npy", npy(np.ones((10, 10), np.uint8)))
    options = {"sensors": {name: {"files": f"{name}/{{key}}.npy", **GREY} for name in ("fine", "coarse")}}
    with pytest.raises(ItemError, match=r"coarse/a\.npy is 10 x 10 px beside 24 x 24 .*no whole number of its pixels"):
        build(tmp_path / "raw", tmp_path / "out", options, tile_px=8)


def test_bands_lie_as_the_sensor_declares_them_whatever_the_order_in_the_files(tmp_path: Path) -> None:
    image = np.stack([np.full((4, 4), value, np.uint8) for value in (1, 2, 3)])
    for date, names in (("20200101", ("B8A", "B02", "B03")), ("20200201", ("B02", "B03", "B8A"))):
        data = raster_file(image, 10, names=names)
        write(tmp_path / "raw" / "s2" / f"a_{date}.tif", data)
    sensor = {"files": "s2/{key}_{date}.tif", "bands": ["B2", "B3", "B8A"], "dtype": "uint8", "units": "1"}
    report = build(tmp_path / "raw", tmp_path / "out", {"sensors": {"s2": sensor}})
    assert found(tmp_path / "out")["a"][0]["s2"][:, :, 0, 0].tolist() == [[2, 3, 1], [1, 2, 3]]
    assert report.manifest is not None
    assert report.manifest.counts["rule: s2: bands brought to the declared order by name"] == 1
    other = {"sensors": {"s2": sensor | {"bands": ["B2", "B3", "B4"]}}}
    with pytest.raises(
        ItemError, match=r"a_20200101\.tif calls its bands B8A, B02, B03, the sensor s2 declares B2, B3"
    ):
        build(tmp_path / "raw", tmp_path / "other", other)


@pytest.mark.parametrize("form", ["zarr", "hdf5"])
def test_coordinates_name_the_bands_of_an_array(form: str, tmp_path: Path) -> None:
    image = np.stack([np.full((4, 4), value, np.uint8) for value in (1, 2)])
    names = np.array([b"VH", b"VV"])
    if form == "hdf5":
        path = tmp_path / "raw" / "a.h5"
        path.parent.mkdir()
        with h5py.File(path, "w") as file:
            file["bands"], file["band"] = image, names
            file["band"].make_scale()
            file["bands"].dims[0].attach_scale(file["band"])
    else:
        path = tmp_path / "raw" / "a.zarr"
        group = zarr.create_group(store=str(path), zarr_format=2)
        group.create_array("bands", data=image, attributes={"_ARRAY_DIMENSIONS": ["band", "y", "x"]})
        group.create_array("band", data=names)
    sensor = {"files": f"{{key}}.{path.suffix[1:]}", "dataset": "bands", **GREY, "bands": ["VV", "VH"]}
    build(tmp_path / "raw", tmp_path / "out", {"sensors": {"sar": sensor}})
    assert found(tmp_path / "out")["a"][0]["sar"][:, 0, 0].tolist() == [2, 1]


@pytest.mark.parametrize("dataset", ["S2_{band}", "data/S2_{band}", "data/{band}/values"])
@pytest.mark.parametrize("kind", ["h5", "zarr"])
def test_arrays_of_bands_may_be_spelt_otherwise(kind: str, dataset: str, tmp_path: Path) -> None:
    path = tmp_path / "raw" / f"a.{kind}"
    path.parent.mkdir()
    with h5py.File(path, "w") if kind == "h5" else nullcontext(zarr.create_group(str(path), zarr_format=2)) as file:
        for value, name in enumerate(("B02", "B8A", "B08")):
            image = np.full((4, 4), value, np.uint8)
            there = dataset.replace("{band}", name)
            file.create_dataset(there, data=image) if kind == "h5" else file.create_array(there, data=image)
    sensor = {"files": f"{{key}}.{kind}", "dataset": dataset, **GREY, "bands": ["B8", "B2"]}
    build(tmp_path / "raw", tmp_path / "out", {"sensors": {"s2": sensor}})
    assert found(tmp_path / "out")["a"][0]["s2"][:, 0, 0].tolist() == [2, 0]
