"""The catalog in the tools that people have: geopandas and DuckDB find samples by where they lie."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from shard_builder.build.build import build_collection
from shard_builder.config import BuildConfig
from tests.make.archives import tar_gz, tiff, utm

WHERE = {1: (600000, 5400000, 32), 2: (650000, 5400000, 32), 3: (600000, 5000000, 33), 4: (723000, 5300000, 60)}
"""Upper left corners (x, y, UTM zone) by patch; the last one crosses 180 degrees."""
REGION = (10.3, 48.6, 10.5, 48.8)
"""West, south, east, north: around the first patch alone."""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("out")
    members: dict[str, dict[str, bytes]] = {"s1": {}, "s2": {}}
    for patch, (x, y, zone) in WHERE.items():
        images = {"s1": np.full((256, 256, 2), -9.0, np.float32), "s2": np.ones((256, 256, 13), np.uint16)}
        for sensor, image in images.items():
            name = f"ROIs1158_spring/{sensor}_1/ROIs1158_spring_{sensor}_1_p{patch}.tif"
            members[sensor][name] = tiff(image + patch, **utm(x, y, zone))
    for sensor, files in members.items():
        tar_gz(raw / f"ROIs1158_spring_{sensor}.tar.gz", files)
    config = BuildConfig(source="sen12ms", input=str(raw), output=str(out / "c"), max_samples=2)
    build_collection(config, "build", lambda _: None)
    return out / "c" / "catalog.parquet"


def test_geopandas_opens_it(catalog: Path) -> None:
    frame = geopandas.read_parquet(catalog)
    assert frame.crs == "OGC:CRS84"
    assert frame.key.tolist() == [f"ROIs1158_spring_1_p{patch}" for patch in WHERE]
    inside = frame[frame.intersects(shapely.box(*REGION))]
    assert inside.key.tolist() == ["ROIs1158_spring_1_p1"]
    assert geopandas.read_parquet(catalog, bbox=REGION).key.tolist() == ["ROIs1158_spring_1_p1"]


def test_duckdb_opens_it(catalog: Path) -> None:
    west, south, east, north = REGION
    query = f"""
        SELECT key, shard FROM '{catalog}'
        WHERE bbox.xmax >= {west} AND bbox.xmin <= {east} AND bbox.ymax >= {south} AND bbox.ymin <= {north}
    """
    with duckdb.connect() as connection:
        assert connection.sql(query).fetchall() == [("ROIs1158_spring_1_p1", "sen12ms-000000")]
        counted = connection.sql(f"SELECT shard, count(*) FROM '{catalog}' GROUP BY shard ORDER BY shard").fetchall()
    assert counted == [("sen12ms-000000", 2), ("sen12ms-000001", 2)]


def test_a_footprint_across_180_degrees_is_two_polygons(catalog: Path) -> None:
    frame = geopandas.read_parquet(catalog).set_index("key")
    crossing = frame.geometry["ROIs1158_spring_1_p4"]
    assert crossing.geom_type == "MultiPolygon"
    east_side, west_side = sorted(crossing.geoms, key=lambda part: part.bounds[0], reverse=True)
    assert east_side.bounds[2] == pytest.approx(180)
    assert west_side.bounds[0] == pytest.approx(-180)
    assert crossing.area < 0.01
    for longitude in (-179.99, 179.99):
        point = shapely.Point(longitude, crossing.centroid.y)
        assert frame.index[frame.contains(point)].tolist() == ["ROIs1158_spring_1_p4"]


def test_the_boxes_are_those_of_the_footprints(catalog: Path) -> None:
    table = pq.read_table(catalog)
    column = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    for row in table.to_pylist():
        assert tuple(row["bbox"].values()) == shapely.from_wkb(row["geometry"]).bounds
