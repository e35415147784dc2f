"""Which samples of a collection a stream takes: by place, date and labels, from the catalog alone.

Only the columns that a filter asks about are read, a row group at a time. The catalog holds the samples of each shard
in their order, so a row's place among those of its shard is the sample's place in the shard.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from gfm_pipeline.data.config import FilterConfig
from gfm_pipeline.errors import ConfigError, GfmError, ShardError
from gfm_pipeline.shards import CATALOG_PATH
from gfm_pipeline.shards.manifest import ShardEntry
from gfm_pipeline.shards.parquet import ParquetReader
from gfm_pipeline.shards.sample import parse_labels
from gfm_pipeline.storage import Store, open_store

Booleans = NDArray[np.bool_]


def select_samples(store: Store, entries: Iterable[ShardEntry], wanted: FilterConfig) -> dict[str, NDArray[np.int64]]:
    """Return the samples of each shard that pass, by the shard's name, as sorted indices within the shard.

    Raises ShardError for a catalog that cannot be read or does not fit the shards, ConfigError for a region that
    cannot be read.
    """
    region = _region(wanted)
    columns = ["shard"]
    columns += ["geometry"] if region is not None else []
    columns += ["dates"] if wanted.since or wanted.until else []
    columns += ["labels"] if wanted.labels else []
    passed: dict[str, list[Booleans]] = defaultdict(list)
    where = f"{store.url}/{CATALOG_PATH}"
    try:
        with store.open(CATALOG_PATH) as file:
            for batch in ParquetReader(file).batches(columns):
                rows: dict[str, list[Any]] = batch.to_pydict()
                tests = []
                if region is not None:
                    tests.append(_touches(rows["geometry"], region))
                if "dates" in rows:
                    tests.append(np.array([_is_dated(dates, wanted) for dates in rows["dates"]], dtype=bool))
                if "labels" in rows:
                    tests.append(np.array([_is_labelled(text, wanted) for text in rows["labels"]], dtype=bool))
                passes = reduce(np.logical_and, tests)
                shards = np.array(rows["shard"])
                for begin, end in _runs(shards):
                    passed[str(shards[begin])].append(passes[begin:end])
    except GfmError:
        raise
    except Exception as error:  # pyarrow and shapely raise types of their own for damaged bytes
        reason = " ".join(str(error).split()).rstrip(".")
        raise ShardError(f"{where} is damaged: {reason}. Run shard-builder verify.") from error
    found: dict[str, NDArray[np.int64]] = {}
    for entry in entries:
        rows_of_shard = np.concatenate(passed[entry.name]) if entry.name in passed else np.zeros(0, dtype=bool)
        if len(rows_of_shard) != entry.samples:
            raise ShardError(
                f"{where} has {len(rows_of_shard)} rows for shard {entry.name}, the manifest says {entry.samples} "
                "samples. Build the collection again."
            )
        found[entry.name] = np.flatnonzero(rows_of_shard)
    return found


def _region(wanted: FilterConfig) -> shapely.Geometry | None:
    """Return the region in longitude and latitude."""
    if wanted.region is None:
        return None
    if not isinstance(wanted.region, str):
        west, south, east, north = wanted.region
        if west <= east:
            return shapely.box(west, south, east, north)
        return shapely.union(shapely.box(west, south, 180, north), shapely.box(-180, south, east, north))
    folder, _, name = wanted.region.rpartition("/")
    text = open_store(folder or ".").get(name)
    try:
        region = shapely.union_all(shapely.get_parts(shapely.from_geojson(text)))
    except shapely.errors.GEOSException as error:
        raise ConfigError(f"{wanted.region} is no readable GeoJSON: {error}. Give a polygon in degrees.") from error
    if not shapely.area(region) > 0:
        raise ConfigError(f"{wanted.region} holds no area, expected polygons in longitude and latitude.")
    west, south, east, north = region.bounds
    if west < -360 or east > 360 or south < -90 or north > 90:
        raise ConfigError(
            f"{wanted.region} reaches from {west:g}, {south:g} to {east:g}, {north:g}, expected degrees of "
            "longitude and latitude. Reproject it to EPSG:4326."
        )
    return _wrapped(region) if west < -180 or east > 180 else region


def _wrapped(region: shapely.Geometry) -> shapely.Geometry:
    """Return a region that was drawn beyond 180 degrees, as 170 to 190, between -180 and 180."""
    turns = []
    for offset in (-360, 0, 360):
        part = shapely.intersection(region, shapely.box(offset - 180, -90, offset + 180, 90))
        turns.append(shapely.transform(part, lambda points, offset=offset: points - [offset, 0]))
    return shapely.union_all(turns)


def _touches(footprints: list[bytes | None], region: shapely.Geometry) -> Booleans:
    shapely.prepare(region)
    found: Booleans = shapely.intersects(shapely.from_wkb(np.array(footprints, dtype=object)), region)
    return found  # False where there is no footprint


def _is_dated(dates: list[str], wanted: FilterConfig) -> bool:
    since, until = wanted.since or "", wanted.until or "9999"
    return any(date[: len(since)] >= since and date[: len(until)] <= until for date in dates)


def _is_labelled(text: str, wanted: FilterConfig) -> bool:
    labels = parse_labels(text)
    for name, allowed in wanted.labels.items():
        value = labels.get(name)
        values = value if isinstance(value, list) else [value]
        if value is None or not {str(item) for item in values} & set(allowed):
            return False
    return True


def _runs(names: NDArray[np.str_]) -> list[tuple[int, int]]:
    """Return (begin, end) of every run of equal names."""
    if not len(names):
        return []
    cuts = np.flatnonzero(names[1:] != names[:-1]) + 1
    edges = [0, *cuts.tolist(), len(names)]
    return list(pairwise(edges))
