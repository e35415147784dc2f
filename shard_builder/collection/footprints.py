"""Footprints of a collection's samples, from the geometry column of its catalog."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from gfm_pipeline.errors import ShardError
from gfm_pipeline.shards import CATALOG_PATH
from gfm_pipeline.shards.parquet import ParquetReader
from gfm_pipeline.storage import Store


def read_footprints(store: Store, most: int) -> tuple[list[NDArray[np.float64]], int]:
    """Return at most `most` outer rings [N,2] of longitude and latitude, evenly taken, and how many samples have one.

    Raises ShardError for a damaged catalog.
    """
    with store.open(CATALOG_PATH) as file:
        try:
            catalog = ParquetReader(file)
            stride = max(1, -(-catalog.metadata.num_rows // most))
            rings: list[NDArray[np.float64]] = []
            placed = 0
            for batch in catalog.batches(["geometry"]):
                shapes = [data for data in batch.column(0).to_pylist() if data is not None]
                for data in shapes[-placed % stride :: stride]:
                    rings += [shapely.get_coordinates(part.exterior) for part in _parts(shapely.from_wkb(data))]
                placed += len(shapes)
        except Exception as error:  # pyarrow and shapely raise types of their own, other geometries lead anywhere
            raise ShardError(f"{store.url}/{CATALOG_PATH} is damaged: {error}. Run shard-builder verify.") from error
    return rings, placed


def _parts(shape: shapely.Geometry) -> list[shapely.Polygon]:
    return list(shape.geoms) if isinstance(shape, shapely.MultiPolygon) else [shape]
