"""catalog.parquet: one row per sample with its footprint, as GeoParquet (geoparquet.org, version 1.1)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from gfm_pipeline.shards.manifest import Sidecar, tar_path
from gfm_pipeline.shards.sample import SampleRecord
from gfm_pipeline.storage import Store

# No "crs" means longitude and latitude on WGS 84.
GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"]}},
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
    ],
    metadata={"geo": json.dumps(GEO)},
)


def make_catalog(store: Store, sidecars: Iterable[Sidecar]) -> bytes:
    """Return the catalog of the collection's committed shards, one row group per shard; reads every json member."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, SCHEMA, compression="zstd") as writer:
        for sidecar in sidecars:
            rows = [_row(store, sidecar, index) for index in range(len(sidecar.samples))]
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return buffer.getvalue()


def catalog_row(record: SampleRecord, shard: str) -> dict[str, object]:
    """Return the row of a sample, by column."""
    polygon = shapely.Polygon(record.footprint) if record.footprint else None
    gsd = [sensor.gsd_m for sensor in record.sensors.values() if sensor.gsd_m is not None]
    return {
        "key": record.key,
        "shard": shard,
        "sensors": list(record.sensors),
        "gsd_m": min(gsd) if gsd else None,
        "dates": sorted({date for sensor in record.sensors.values() for date in sensor.dates}),
        "crs": record.crs,
        "labels": json.dumps(record.labels, sort_keys=True),
        "geometry": shapely.to_wkb(polygon) if polygon is not None else None,
    }


def _row(store: Store, sidecar: Sidecar, index: int) -> dict[str, object]:
    meta = sidecar.samples[index].meta
    data = store.get_range(tar_path(sidecar.name), meta.offset, meta.size)
    return catalog_row(SampleRecord.model_validate_json(data), sidecar.name)
