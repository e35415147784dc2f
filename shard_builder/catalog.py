"""catalog.parquet: one row per sample with its footprint, as GeoParquet (geoparquet.org, version 1.1)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from gfm_pipeline.shards.manifest import Sidecar, tar_path
from gfm_pipeline.shards.parquet import ParquetReader
from gfm_pipeline.shards.sample import SampleRecord, parse_record
from gfm_pipeline.storage import Store

_SIDES = ("xmin", "ymin", "xmax", "ymax")

# No "crs" means longitude and latitude on WGS 84.
GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        "geometry": {
            "encoding": "WKB",
            "geometry_types": ["Polygon", "MultiPolygon"],
            "covering": {"bbox": {side: ["bbox", side] for side in _SIDES}},
        }
    },
}

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("sensors", pa.list_(pa.string()), nullable=False),
        pa.field("gsd_m", pa.float64()),
        pa.field("dates", pa.list_(pa.string()), nullable=False),
        pa.field("crs", pa.string()),
        pa.field("labels", pa.string(), nullable=False),
        pa.field("geometry", pa.binary()),
        pa.field("bbox", pa.struct([pa.field(side, pa.float64(), nullable=False) for side in _SIDES])),
    ],
    metadata={"geo": json.dumps(GEO)},
)


def rows_path(shard: str) -> str:
    """Return where the writer of a shard leaves its part of the catalog until all shards are there."""
    return f".build/rows/{shard}.parquet"


def dump_rows(shard: str, records: Sequence[SampleRecord]) -> bytes:
    """Return the catalog rows of one shard as Parquet."""
    buffer = io.BytesIO()
    pq.write_table(_table(shard, records), buffer, compression="zstd")
    return buffer.getvalue()


def write_catalog(path: Path, store: Store, sidecars: Iterable[Sidecar]) -> None:
    """Write the catalog of the collection's committed shards to a local file, one row group per shard.

    A shard whose part is lost has its rows read from the json members of its tar.
    """
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for sidecar in sidecars:
            if not sidecar.samples:
                continue
            part = rows_path(sidecar.name)
            if store.exists(part):
                table = ParquetReader(io.BytesIO(store.get(part))).read()
            else:
                table = _table(sidecar.name, [_read_record(store, sidecar, i) for i in range(len(sidecar.samples))])
            writer.write_table(table.replace_schema_metadata(SCHEMA.metadata))


def _read_record(store: Store, sidecar: Sidecar, index: int) -> SampleRecord:
    meta = sidecar.samples[index].meta
    path = tar_path(sidecar.name)
    where = f"{store.url}/{path}: the record of sample {sidecar.samples[index].key}"
    return parse_record(store.get_range(path, meta.offset, meta.size), where)


def _table(shard: str, records: Sequence[SampleRecord]) -> pa.Table:
    return pa.Table.from_pylist([catalog_row(shard, record) for record in records], SCHEMA)


def catalog_row(shard: str, record: SampleRecord) -> dict[str, object]:
    """Return the row of a sample, by column."""
    geometry = _split_at_antimeridian(shapely.Polygon(record.footprint)) if record.footprint else None
    gsd = [sensor.gsd_m for sensor in record.sensors.values() if sensor.gsd_m is not None]
    return {
        "key": record.key,
        "shard": shard,
        "sensors": sorted(record.sensors),  # a record that was read back has them sorted
        "gsd_m": min(gsd) if gsd else None,
        "dates": sorted({date for sensor in record.sensors.values() for date in sensor.dates}),
        "crs": record.crs,
        "labels": json.dumps(record.labels, sort_keys=True),
        "geometry": shapely.to_wkb(geometry) if geometry is not None else None,
        # Of a footprint on both sides of 180 degrees: all longitudes, so that a query by boxes misses nothing.
        "bbox": dict(zip(_SIDES, geometry.bounds, strict=True)) if geometry is not None else None,
    }


def _split_at_antimeridian(polygon: shapely.Polygon) -> shapely.Geometry:
    """Return a footprint that crosses 180 degrees as two polygons, as GeoJSON (RFC 7946) wants it."""
    west, _, east, _ = polygon.bounds
    if east - west <= 180:
        return polygon
    moved = shapely.Polygon([(x + 360 if x < 0 else x, y) for x, y in polygon.exterior.coords])
    left = shapely.intersection(moved, shapely.box(0, -90, 180, 90))
    right = shapely.intersection(moved, shapely.box(180, -90, 360, 90))
    back = shapely.transform(right, lambda points: points - [360, 0])
    return shapely.MultiPolygon([left, back])
