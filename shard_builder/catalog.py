"""catalog.parquet: one row per sample with its footprint, as GeoParquet (geoparquet.org, version 1.1)."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from gfm_pipeline.shards.footprint import Ring, unwrapped
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


def write_catalog(path: Path, store: Store, sidecars: Iterable[Sidecar]) -> int:
    """Write the catalog of the collection's committed shards to a local file, one row group per shard.

    Returns the number of samples without a location.

    A shard whose part is lost has its rows read from the json members of its tar.
    """
    lost = 0
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
            lost += table.column("geometry").null_count
    return lost


def _read_record(store: Store, sidecar: Sidecar, index: int) -> SampleRecord:
    meta = sidecar.samples[index].meta
    path = tar_path(sidecar.name)
    where = f"{store.url}/{path}: the record of sample {sidecar.samples[index].key}"
    return parse_record(store.get_range(path, meta.offset, meta.size), where)


def _table(shard: str, records: Sequence[SampleRecord]) -> pa.Table:
    return pa.Table.from_pylist([catalog_row(shard, record) for record in records], SCHEMA)


def catalog_row(shard: str, record: SampleRecord) -> dict[str, object]:
    """Return the row of a sample, by column."""
    geometry = geometry_of(record.footprint) if record.footprint else None
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


def geometry_of(footprint: Ring) -> shapely.Geometry | None:
    """Return a footprint as RFC 7946 wants it: cut at 180 degrees where it crosses them; None for one without area."""
    polygon = shapely.Polygon(unwrapped(footprint))
    west, _, east, _ = polygon.bounds
    if west >= -180 and east <= 180 and polygon.is_valid:
        return polygon
    if not polygon.is_valid:
        polygon = shapely.make_valid(polygon)
    parts: list[shapely.Geometry] = []
    for turn in range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360)):
        cut = shapely.intersection(polygon, shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90))
        moved = shapely.transform(cut, lambda points, turn=turn: points - [360 * turn, 0])
        parts += [part for part in shapely.get_parts(moved) if part.geom_type == "Polygon" and part.area > 0]
    if not parts:
        return None
    joined = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return joined if joined.is_valid else shapely.union_all(parts)  # parts that touch
