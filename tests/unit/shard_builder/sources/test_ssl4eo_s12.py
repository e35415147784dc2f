"""SSL4EO-S12: dates, uneven series, archives in parts, and the published layout."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfm_pipeline.errors import ArchiveError, ItemError
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.config import BuildConfig
from tests.conftest import ROOT
from tests.contracts.test_sources import read_with_public_libraries
from tests.make.archives import MAKERS
from tests.make.ssl4eo_s12 import broken, split

LAYOUT = ROOT.parent / "shared" / "layouts" / "ssl4eo" / "s12"


def build(raw: Path, out: Path, **more: Any) -> BuildReport:
    return build_collection(
        BuildConfig(source="ssl4eo_s12", input=str(raw), output=str(out), **more), "build", lambda _: None
    )


def sensors(out: Path) -> dict[str, dict[str, Any]]:
    return {key: meta["sensors"] for key, _, meta in read_with_public_libraries(out)}


def test_every_sensor_has_dates_of_its_own(tmp_path: Path) -> None:
    MAKERS["ssl4eo_s12"](tmp_path)
    report = build(tmp_path, tmp_path / "out")
    found = sensors(tmp_path / "out")
    assert {key: {name: about["shape"][0] for name, about in told.items()} for key, told in found.items()} == {
        "0000000": {"s1": 4, "s2": 4, "s2_l2a": 4},
        "0000001": {"s1": 2, "s2": 4, "s2_l2a": 3},
        "0250000": {"s1": 1, "s2_l2a": 2},
    }
    assert found["0000000"]["s1"]["dates"] == [
        "2020-03-23T16:29:31Z",
        "2020-06-21T16:29:01Z",
        "2020-09-24T16:29:29Z",
        "2020-12-28T16:37:11Z",
    ]
    assert report.plan is not None
    assert report.plan.unpaired == ("0250000 has no s2",)
    assert report.manifest is not None
    assert report.manifest.counts["rule: B1, B9, B10 repeated 6 x 6"] == 2


def test_archives_in_parts_are_the_same_archives(tmp_path: Path) -> None:
    truth = MAKERS["ssl4eo_s12"](tmp_path)
    for name, parts in (("s1_grd", 3), ("s2_l1c", 8)):
        split(tmp_path / f"{name}.tar.gz", parts)
    (tmp_path / "s2_l2a").mkdir()  # as it is published: in a folder of its own
    (tmp_path / "s2_l2a.tar.gz").rename(tmp_path / "s2_l2a" / "s2_l2a.tar.gz")
    split(tmp_path / "s2_l2a" / "s2_l2a.tar.gz", 2)
    report = build(tmp_path, tmp_path / "out", workers=2, max_samples=1)
    for key, rasters, _ in read_with_public_libraries(tmp_path / "out"):
        assert rasters.keys() == truth[key].keys()
        for sensor, raster in rasters.items():
            np.testing.assert_array_equal(raster, truth[key][sensor])
    assert report.manifest is not None
    assert report.manifest.num_samples == len(truth)


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    MAKERS["ssl4eo_s12"](tmp_path)
    split(tmp_path / "s2_l1c.tar.gz", 4)
    (tmp_path / "s2_l1c.tar.gz.partac").unlink()
    with pytest.raises(ArchiveError, match=r"part s2_l1c\.tar\.gz\.partac is missing"):
        build(tmp_path, tmp_path / "out")
    (tmp_path / "s2_l1c.tar.gz.partad").unlink()
    with pytest.raises(ArchiveError, match=r"s2_l1c\.tar\.gz\.partaa"):  # the last ones: cut short
        build(tmp_path, tmp_path / "out2")


def test_what_cannot_be_packed_is_said(tmp_path: Path) -> None:
    broken(tmp_path)
    report = build(tmp_path, tmp_path / "out", on_error="skip")
    reasons = {row.item: row.reason for row in report.rejected}
    assert reasons["0000000"] == "s1 of 0000000 lacks VH in S1A_IW_GRDH_1SDV_20200329T001515"
    assert "'spring' holds no date" in reasons["0000001"]
    assert "0000002" in reasons


@pytest.mark.skipif(not LAYOUT.is_dir(), reason="../shared is not there")
@pytest.mark.parametrize("form", ["folders", "archives"])
def test_the_published_layout(form: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in LAYOUT.iterdir():
        if path.is_dir() and form == "folders":
            shutil.copytree(path, raw / path.name)
        elif path.is_file() and form == "archives" and ".part" in path.name:
            shutil.copy(path, raw / path.name)
    report = build(raw, tmp_path / "out")
    assert not report.rejected
    found = sensors(tmp_path / "out")
    assert sorted(found) == ["0000000", "0000001"]
    shapes = {name: about["shape"] for name, about in found["0000000"].items()}
    assert shapes == {"s1": [4, 2, 36, 36], "s2": [4, 13, 36, 36], "s2_l2a": [4, 12, 36, 36]}


def test_a_folder_without_series_is_no_ssl4eo(tmp_path: Path) -> None:
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "x.tif").write_bytes(b"")
    with pytest.raises((ArchiveError, ItemError), match="holds nothing"):
        build(tmp_path, tmp_path / "out")
