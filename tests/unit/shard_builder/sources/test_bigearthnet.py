"""BigEarthNet: pairs, classes and splits of both versions, and what is said when a table is missing."""

from __future__ import annotations

import bz2
import csv
import io
import tarfile
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfm_pipeline.errors import ArchiveError, ItemError
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.config import BuildConfig
from shard_builder.sources import bigearthnet
from shard_builder.sources.shared.corine import LEFT_OUT, NINETEEN
from tests.conftest import ROOT
from tests.contracts.test_sources import read_with_public_libraries, unpack
from tests.make import bigearthnet as make

PUBLISHED = pytest.mark.skipif(find_spec("bigearthnet_common") is None, reason="bigearthnet-common is not installed")
LAYOUT = ROOT.parent / "shared" / "layouts" / "bigearthnet"


def build(raw: Path, out: Path, **more: Any) -> BuildReport:
    config = BuildConfig(source="bigearthnet", input=str(raw), output=str(out), **more)
    return build_collection(config, "build", lambda _: None)


def labels(out: Path) -> dict[str, dict[str, Any]]:
    return {key: meta["labels"] for key, _, meta in read_with_public_libraries(out)}


def test_classes_splits_and_partners_are_kept(tmp_path: Path) -> None:
    make.bigearthnet(tmp_path)
    report = build(tmp_path, tmp_path / "out")
    first, second, third = make.PATCHES
    common = {"labels_43": make.CLASSES, "labels_19": make.NINETEEN}
    assert labels(tmp_path / "out") == {
        first: common | {"s1_patch": make.PATCHES[first], "split": "train"},
        second: common | {"s1_patch": make.PATCHES[second], "split": "val", "seasonal_snow": True},
        third: common | {"s1_patch": make.PATCHES[third]},
    }
    metas = {key: meta for key, _, meta in read_with_public_libraries(tmp_path / "out")}
    assert {name: about["dates"] for name, about in metas[third]["sensors"].items()} == {
        "s1": ["2018-02-05T04:56:12Z"],
        "s2_l2a": ["2018-02-04"],  # no clock shows 09:41:60
    }
    assert metas[first]["crs"] == "EPSG:32632"
    assert report.manifest is not None
    assert report.manifest.counts["rule: B1, B9 repeated 6 x 6"] == 3


@pytest.mark.parametrize("packed", [True, False])
def test_version_two_is_paired_by_its_table(packed: bool, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    truth = make.version_two(raw)
    if not packed:
        for path in list(raw.iterdir()):
            if unpack(path, raw):
                path.unlink()
    build(raw, tmp_path / "out")
    found = {key: rasters for key, rasters, _ in read_with_public_libraries(tmp_path / "out")}
    assert found.keys() == truth.keys()
    for key, rasters in truth.items():
        assert found[key].keys() == {"s1", "s2_l2a", "corine"}
        for sensor, raster in rasters.items():
            np.testing.assert_array_equal(found[key][sensor], raster)
    told = labels(tmp_path / "out")
    assert [told[key]["split"] for key in truth] == ["train", "val", "test"]
    assert [told[key]["cloud_or_shadow"] for key in truth] == [False, False, True]
    assert all(about["labels_19"] == make.NINETEEN and about["country"] == "Austria" for about in told.values())


def test_without_the_table_nobody_knows_the_pairs(tmp_path: Path) -> None:
    make.version_two(tmp_path)
    (tmp_path / "metadata.parquet").unlink()
    with pytest.raises(ItemError, match=r"the input no metadata\.parquet \(version 2\)"):
        build(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.parquet", "PAR1 no table", "no readable Parquet file"),
        ("val.csv", "header\nS2A_nonsense\n", "line 2: found 'S2A_nonsense', expected the name of a patch"),
        ("BigEarthNet-S2.tar.zst", "x", r"Unpack it: tar --zstd -xf BigEarthNet-S2\.tar\.zst"),
    ],
)
def test_tables_and_archives_that_cannot_be_read_are_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    make.bigearthnet(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ArchiveError, match=message):
        build(tmp_path, tmp_path / "out")


def test_all_that_is_wrong_is_a_row(tmp_path: Path) -> None:
    make.broken(tmp_path)
    report = build(tmp_path, tmp_path / "out", on_error="skip")
    assert report.manifest is not None
    assert report.manifest.num_samples == 0
    reasons = "\n".join(row.reason for row in report.rejected)
    for told in (
        "lacks B1, B3",
        "is none of the 43 classes",
        "nothing tells which Sentinel-2 patch",
        "cannot be decoded",
    ):
        assert told in reasons


def test_every_class_is_merged_once() -> None:
    merged = [old for classes in NINETEEN.values() for old in classes]
    assert len(NINETEEN) == 19
    assert len(merged) + len(LEFT_OUT) == len({*merged, *LEFT_OUT}) == 43


@pytest.mark.skipif(not LAYOUT.exists(), reason=f"{LAYOUT} is not there")
def test_the_published_layouts_are_recognised(tmp_path: Path) -> None:
    # These files have other types than the published ones: the layout is what they show.
    types = {"s2_l2a": {"dtype": "uint16"}, "s1": {"dtype": "uint16", "units": "digital number"}}
    report = build(LAYOUT / "v1", tmp_path / "one", sensors=types, on_error="skip")
    assert report.manifest is not None
    assert report.manifest.counts["samples_planned"] == 4
    types = {name: {"dtype": "int16", "units": "digital number"} for name in types}
    report = build(LAYOUT / "v2", tmp_path / "two", sensors=types, on_error="skip")
    assert report.manifest is not None
    assert report.manifest.num_samples == 4
    assert all(set(entry.sensors) == {"corine", "s1", "s2_l2a"} for entry in report.manifest.shards)
    assert sorted(told["split"] for told in labels(tmp_path / "two").values()) == ["test", "train", "train", "val"]


def published(name: str) -> bytes:
    """Return a file of the wheel bigearthnet-common, whose own code is not imported."""
    return bz2.decompress((resources.files("bigearthnet_common") / name).read_bytes())


@PUBLISHED
def test_real_pairs_of_either_name_are_packed(tmp_path: Path) -> None:
    for sensor in ("S1", "S2"):
        packed = io.BytesIO(published(f"BigEarthNet-{sensor}-Example.tar.bz2"))
        with tarfile.open(fileobj=packed) as archive:
            archive.extractall(tmp_path / "raw", filter="data")
    report = build(tmp_path / "raw", tmp_path / "out")
    assert not report.rejected
    assert [(entry.sensors, entry.samples) for entry in report.manifest.shards] == [(("s1", "s2_l2a"), 6)]
    metas = {key: meta for key, _, meta in read_with_public_libraries(tmp_path / "out")}
    # Their metadata says 09:30:20 and 09:41:56; a name cannot say the second of these.
    dates = {key: meta["sensors"]["s2_l2a"]["dates"] for key, meta in metas.items()}
    assert dates["S2B_MSIL2A_20170924T93020_69_24"] == ["2017-09-24T09:30:20Z"]
    assert dates["S2B_MSIL2A_20180204T94161_57_38"] == ["2018-02-04T09:41:56Z"]
    assert dates["S2A_MSIL2A_20170613T101031_87_48"] == ["2017-06-13T10:10:31Z"]
    assert all(meta["crs"].startswith("EPSG:326") for meta in metas.values())


@PUBLISHED
def test_every_official_name_is_one_of_a_patch() -> None:
    rows = list(csv.reader(published("s1_s2_name_country_season.csv.bz2").decode().splitlines()))[1:]
    assert len(rows) == 590_326
    odd = [name for row in rows for name in row[:2] if not bigearthnet._PATCH.fullmatch(name)]
    assert not odd
    short = [s2 for _, s2, *_ in rows if len(s2.split("_")[2]) == len("20170924T93020")]
    assert len(short) == 69_866
    for name in ("train", "val", "test", "patches_with_seasonal_snow", "patches_with_cloud_and_shadow"):
        data = published(f"{name}.csv.bz2")
        assert len(list(bigearthnet._listed(data, name))) == len(data.split())


@pytest.mark.parametrize(
    ("patch", "about", "date"),
    [
        ("S2B_MSIL2A_20170924T93020_69_24", None, "2017-09-24T09:30:20Z"),
        ("S2B_MSIL2A_20180204T94161_57_38", None, "2018-02-04"),
        ("S2B_MSIL2A_20180204T94161_57_38", {"acquisition_date": "no date"}, "2018-02-04"),
        ("S2B_MSIL2A_20180204T94161_57_38", {"acquisition_date": "2018-02-04 09:41:56"}, "2018-02-04T09:41:56Z"),
        ("S2A_MSIL2A_20170613T101031_87_48", {"acquisition_date": "2018-02-04 09:41:56"}, "2017-06-13T10:10:31Z"),
        ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57", None, "2017-06-13T10:10:31Z"),
        ("S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48", None, "2017-06-13T16:50:43Z"),
    ],
)
def test_acquisition_times(patch: str, about: dict[str, str] | None, date: str) -> None:
    assert bigearthnet._PATCH.fullmatch(patch)
    assert bigearthnet._date(patch, about) == date
