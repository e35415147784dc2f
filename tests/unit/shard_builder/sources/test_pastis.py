"""PASTIS: dates and folds, what is refused, and the published layout."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gfm_pipeline.errors import ArchiveError
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.config import BuildConfig
from tests.conftest import ROOT
from tests.contracts.test_sources import read_with_public_libraries
from tests.make.archives import MAKERS, zipped
from tests.make.pastis import broken

LAYOUT = ROOT.parent / "shared" / "layouts" / "pastis"


def build(raw: Path, out: Path, **more: Any) -> BuildReport:
    return build_collection(
        BuildConfig(source="pastis", input=str(raw), output=str(out), **more), "build", lambda _: None
    )


@pytest.mark.parametrize("form", ["zip", "folder", "inside the folder"])
def test_dates_and_folds(form: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    MAKERS["pastis"](raw)
    if form != "zip":
        shutil.unpack_archive(raw / "PASTIS-R.zip", raw)
        (raw / "PASTIS-R.zip").unlink()
    report = build(raw / "PASTIS-R" if form == "inside the folder" else raw, tmp_path / "out")
    metas = {key: meta for key, _, meta in read_with_public_libraries(tmp_path / "out")}
    assert {key: meta["labels"]["fold"] for key, meta in metas.items()} == {"10000": 1, "10001": 2, "20005": 3}
    told = metas["10001"]["sensors"]
    assert {name: about["dates"] for name, about in told.items()} == {
        "s2_theia": ["2018-09-17", "2018-09-18"],
        "s1a": ["2018-09-17", "2018-09-18", "2018-09-19"],
        "s1d": ["2018-09-17"],
        "crops": [],
    }
    assert report.manifest is not None
    assert report.manifest.sensors["crops"].kind == "labels"
    assert report.plan is not None
    assert sum(item.files for item in report.plan.ignored) == 3  # instances


def test_what_is_refused(tmp_path: Path) -> None:
    broken(tmp_path)
    report = build(tmp_path, tmp_path / "out", on_error="skip")
    reasons = {row.item: row.reason for row in report.rejected}
    assert "is no .npy file" in reasons["1"]
    assert "has the shape (2, 10, 8, 8), expected [T,C,H,W] with 3 steps" in reasons["2"]
    assert "does not know this place" in reasons["3"]


@pytest.mark.parametrize("table", [None, b"{}", b"[", b'{"features": [{"properties": {"ID_PATCH": "x"}}]}'])
def test_a_table_that_is_no_table(table: bytes | None, tmp_path: Path) -> None:
    members = {"PASTIS/DATA_S2/S2_1.npy": b""} | ({"PASTIS/metadata.geojson": table} if table else {})
    zipped(tmp_path / "PASTIS.zip", members)
    with pytest.raises(ArchiveError, match=r"metadata\.geojson"):
        build(tmp_path, tmp_path / "out")


@pytest.mark.skipif(not LAYOUT.is_dir(), reason="../shared is not there")
def test_the_published_layout(tmp_path: Path) -> None:
    linear = {name: {"units": "digital number"} for name in ("s1a", "s1d")}  # its pixels are noise from 0 to 255
    report = build(LAYOUT, tmp_path / "out", sensors=linear)
    assert not report.rejected
    found = {key: (rasters, meta) for key, rasters, meta in read_with_public_libraries(tmp_path / "out")}
    assert sorted(found) == ["0", "1", "2", "3", "4"]
    shapes = {name: raster.shape for name, raster in found["3"][0].items()}
    assert shapes == {"s2_theia": (9, 10, 32, 32), "s1a": (8, 3, 32, 32), "s1d": (4, 3, 32, 32), "crops": (1, 32, 32)}
    assert found["3"][1]["labels"] == {"fold": 4}
