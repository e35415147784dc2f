"""PASTIS: dates and folds, what is refused, and the published layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import Transformer

from gfm_pipeline.errors import ArchiveError
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.config import BuildConfig
from tests.conftest import ROOT
from tests.contracts.test_sources import read_with_public_libraries
from tests.make.archives import MAKERS, zipped
from tests.make.folder import npy
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


SQUARE = [[600000.0, 6600000.0], [601280.0, 6600000.0], [601280.0, 6601280.0], [600000.0, 6601280.0]]
"""A place of PASTIS in the coordinates of France (EPSG:2154)."""
LAMBERT = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::2154"}}


def one_place(folder: Path, geometry: Any, crs: Any = LAMBERT) -> None:
    table = {
        "crs": crs,
        "features": [{"properties": {"Fold": 1, "ID_PATCH": 7, "dates-S2": {"0": 20180917}}, "geometry": geometry}],
    }
    zipped(
        folder / "PASTIS.zip",
        {
            "PASTIS/metadata.geojson": json.dumps(table).encode(),
            "PASTIS/DATA_S2/S2_7.npy": npy(np.ones((1, 10, 8, 8), "i2")),
        },
    )


@pytest.mark.parametrize("ring", [[*SQUARE, SQUARE[0]], SQUARE, SQUARE[::-1]])
@pytest.mark.parametrize("kind", ["Polygon", "MultiPolygon"])
def test_the_outline_of_a_place_is_its_footprint(kind: str, ring: list[list[float]], tmp_path: Path) -> None:
    one_place(tmp_path, {"type": kind, "coordinates": [ring] if kind == "Polygon" else [[ring]]})
    build(tmp_path, tmp_path / "out")
    ((_, _, meta),) = read_with_public_libraries(tmp_path / "out")
    to_wgs84 = Transformer.from_crs(2154, 4326, always_xy=True)
    expected = shapely.Polygon([to_wgs84.transform(*corner) for corner in SQUARE])
    found = shapely.Polygon(meta["footprint"])
    assert found.exterior.is_ccw
    assert len(meta["footprint"]) == 4
    assert found.symmetric_difference(expected).area < 1e-12
    assert meta["labels"] == {"fold": 1}
    (row,) = pq.read_table(tmp_path / "out/catalog.parquet").to_pylist()
    assert shapely.from_wkb(row["geometry"]).equals(found)


def test_an_outline_without_a_crs_is_in_wgs_84(tmp_path: Path) -> None:
    ring = [[2.0, 46.0], [2.1, 46.0], [2.1, 46.1], [2.0, 46.1]]
    one_place(tmp_path, {"type": "Polygon", "coordinates": [ring]}, crs=None)
    build(tmp_path, tmp_path / "out")
    ((_, _, meta),) = read_with_public_libraries(tmp_path / "out")
    assert meta["footprint"] == ring


@pytest.mark.parametrize(
    ("geometry", "crs"),
    [
        ({"type": "Point", "coordinates": [2, 46]}, None),
        ({"type": "Polygon"}, None),
        ({"type": "Polygon", "coordinates": [[]]}, None),
        ({"type": "Polygon", "coordinates": [[[2, 46], [2, 47]]]}, None),
        ({"type": "Polygon", "coordinates": [[[2, "x"], [2, 47], [3, 47]]]}, None),
        ({"type": "MultiPolygon", "coordinates": [[SQUARE], [SQUARE]]}, LAMBERT),
        ({"type": "Polygon", "coordinates": [SQUARE]}, None),
        ({"type": "Polygon", "coordinates": [SQUARE]}, {"properties": {"name": "nowhere"}}),
    ],
)
def test_an_outline_that_is_none_is_named(geometry: Any, crs: Any, tmp_path: Path) -> None:
    one_place(tmp_path, geometry, crs)
    report = build(tmp_path, tmp_path / "out", on_error="skip")
    (row,) = report.rejected
    assert row.item == "7"
    assert "metadata.geojson" in row.reason
