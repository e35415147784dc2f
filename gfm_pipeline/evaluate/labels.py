"""What is known of labelled samples: from their catalog, or from a label raster that belongs to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.mixture import ShardRef, Stream
from gfm_pipeline.data.reader import StreamReader
from gfm_pipeline.errors import ConfigError, ShardError, nearest
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.sensors.missing import unmeasured
from gfm_pipeline.shards import CATALOG_PATH
from gfm_pipeline.shards.manifest import load_manifest
from gfm_pipeline.shards.parquet import ParquetReader
from gfm_pipeline.shards.sample import parse_labels
from gfm_pipeline.storage import Store

Shares = dict[str, float]
"""By class, its share of a sample; a class that a catalog names has all of it."""


@dataclass(frozen=True)
class Targets:
    """Labels of N samples as classifiers want them."""

    classes: tuple[str, ...]
    """Names of the classes, sorted; numbers by value."""
    member_NE: NDArray[np.bool_]
    """[N, classes] which sample belongs to which class."""


def check_label(stream: Stream, label: str, where: str) -> None:
    """Raise ConfigError for a label that the collections do not have, before anything is computed."""
    for store, shards in _by_store(stream.shards).items():
        raster = _raster(store, label)
        if raster is None:
            next(_from_catalog(store, shards, label, None, where))
        else:
            _check_rasters(shards, raster[0], where)


def read_labels(shards: Sequence[ShardRef], label: str, wanted: Set[str], where: str) -> dict[str, Shares]:
    """Return the classes of the samples with the `wanted` keys, by key.

    Raises ConfigError for a label that the collections do not have and for samples without one.
    """
    found: dict[str, Shares] = {}
    for store, own in _by_store(shards).items():
        raster = _raster(store, label)
        read = _from_rasters(own, *raster, wanted) if raster else _from_catalog(store, own, label, wanted, where)
        found |= dict(read)
    missing = sorted(wanted - found.keys())
    if missing:
        raise ConfigError(
            f"{where}.label: {len(missing)} samples have no {label}, the first is {missing[0]}. Set {where}.filter to "
            "those that have one."
        )
    return found


def single_class(shares: list[Shares], where: str) -> Targets:
    """Return the class of each sample: the largest share, of equal ones the first by name; exactly one by catalog.

    Raises ConfigError for a sample that a catalog gives several classes.
    """
    for one in shares:
        if sum(share == 1.0 for share in one.values()) > 1:
            raise ConfigError(
                f"{where}.task is single, found a sample of the classes {', '.join(sorted(one))}. "
                f"Set {where}.task=multi."
            )
    return _targets([[min(one, key=lambda name: (-one[name], _order(name)))] for one in shares])


def many_classes(shares: list[Shares], min_share: float) -> Targets:
    """Return which classes have at least `min_share` of each sample."""
    return _targets([[name for name, share in one.items() if share >= min_share] for one in shares])


def _targets(names: list[list[str]]) -> Targets:
    classes = tuple(sorted({name for row in names for name in row}, key=_order))
    member_NE = np.zeros((len(names), len(classes)), dtype=np.bool_)
    for row, chosen in enumerate(names):
        member_NE[row, [classes.index(name) for name in chosen]] = True
    return Targets(classes, member_NE)


def _order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (0, name)


def _by_store(shards: Sequence[ShardRef]) -> dict[Store, list[ShardRef]]:
    stores: dict[Store, list[ShardRef]] = {}
    for shard in shards:
        stores.setdefault(shard.store, []).append(shard)
    return stores


def _raster(store: Store, label: str) -> tuple[SensorSpec, int] | None:
    """Return the sensor and the number of the band that `label` names, or None for a label of the catalog."""
    specs = load_manifest(store).sensors
    sensor, dot, band = label.partition(".")
    return (specs[sensor], specs[sensor].band_index(band)) if dot and sensor in specs else None


def _check_rasters(shards: Iterable[ShardRef], spec: SensorSpec, where: str) -> None:
    for shard in shards:
        if spec.name not in shard.entry.sensors:
            raise ConfigError(
                f"{where}.label: the samples of shard {shard.entry.name} have no {spec.name}. Set {where}.filter to "
                "samples that have one."
            )


def _from_rasters(
    shards: Sequence[ShardRef], spec: SensorSpec, band: int, wanted: Set[str]
) -> Iterator[tuple[str, Shares]]:
    """Yield the shares of the samples that are `wanted`; of one whose raster tells nothing, none.

    They are read as the loader reads: with its checks, and again when bytes come wrong.
    """
    reader = StreamReader(Stream("labels", (spec.name,), 1, tuple(shards), (), ""))
    try:
        for number in range(len(shards)):
            rows = [row for row, key in enumerate(reader.keys(number)) if key in wanted]
            for key, raster in reader.rasters(number, rows, spec.name):
                shares = _shares(raster[band], spec.nodata)
                if shares:
                    yield key, shares
    finally:
        reader.close()


def _shares(classes_HW: NDArray[np.generic], nodata: float | None) -> Shares:
    missing = unmeasured(classes_HW, nodata)
    values, counts = np.unique(classes_HW if missing is None else classes_HW[~missing], return_counts=True)
    total = int(counts.sum())
    return {str(value): count / total for value, count in zip(values.tolist(), counts.tolist(), strict=True)}


def _from_catalog(
    store: Store, shards: Iterable[ShardRef], label: str, wanted: Set[str] | None, where: str
) -> Iterator[tuple[str, Shares]]:
    """Yield the label of each of the `wanted` samples that has it, None: of all; raise ConfigError if none has."""
    used = {shard.entry.name for shard in shards}
    known: set[str] = set()
    with store.open(CATALOG_PATH) as file:
        for batch in ParquetReader(file).batches(["key", "shard", "labels"]):
            rows: Mapping[str, list[str]] = batch.to_pydict()
            for key, shard, text in zip(rows["key"], rows["shard"], rows["labels"], strict=True):
                if shard not in used or (wanted is not None and key not in wanted):
                    continue
                try:
                    labels = parse_labels(text)
                except ValueError as error:
                    raise ShardError(
                        f"{store.url}/{CATALOG_PATH} is damaged: {error}. Run shard-builder verify."
                    ) from error
                known |= labels.keys()
                if label in labels:
                    values = labels[label] if isinstance(labels[label], list) else [labels[label]]
                    yield key, {str(value): 1.0 for value in values}
    if label not in known:
        raise ConfigError(f"{where}.label: no sample of {store.url} has a label '{label}'. {nearest(label, known)}")
