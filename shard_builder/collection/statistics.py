"""What a collection holds, in numbers: from the manifest alone, from the catalog's columns, from its label rasters."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from gfm_pipeline.errors import ShardError
from gfm_pipeline.shards import CATALOG_PATH
from gfm_pipeline.shards.manifest import Manifest, load_manifest, load_sidecar
from gfm_pipeline.shards.parquet import ParquetReader
from gfm_pipeline.shards.sample import parse_labels
from gfm_pipeline.storage import Store, open_store
from shard_builder.collection.pixels import count_classes, is_labels, read_sample
from shard_builder.rasters.georeference import crs_name

MAX_VALUES = 1000
"""Different values of one label that are counted; a label with more tells samples apart, not classes."""


@dataclass(frozen=True)
class Summary:
    """A collection in numbers; what was not asked for is None."""

    url: str
    manifest: Manifest
    sensor_sets: dict[tuple[str, ...], tuple[int, int]]
    """{sensors: (samples, shards)}."""
    places: PlaceSummary | None = None
    classes: dict[str, dict[int, int]] | None = None
    """{sensor: {class: pixels}} of all label rasters."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all tars."""
        return sum(shard.bytes for shard in self.manifest.shards)


@dataclass
class PlaceSummary:
    """What the catalog says of all samples together."""

    first_date: str | None = None
    last_date: str | None = None
    undated: int = 0
    """Samples without a date."""
    crs: Counter[str] = field(default_factory=Counter)
    gsd_m: Counter[float] = field(default_factory=Counter)
    with_footprint: int = 0
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    """{label: {value: samples}}; of a list, each element counts."""
    unbounded: list[str] = field(default_factory=list)
    """Labels with more than MAX_VALUES different values, which are not counted."""

    def add_dates(self, dates: list[str]) -> None:
        """Count the dates of one sample."""
        if not dates:
            self.undated += 1
            return
        self.first_date = min([*dates, self.first_date or dates[0]])
        self.last_date = max([*dates, self.last_date or dates[0]])

    def add_labels(self, labels: dict[str, Any]) -> None:
        """Count the labels of one sample."""
        for name, value in labels.items():
            if name in self.unbounded:
                continue
            counter = self.labels.setdefault(name, Counter())
            counter.update({_text(part) for part in value} if isinstance(value, list) else [_text(value)])
            if len(counter) > MAX_VALUES:
                self.unbounded.append(name)
                del self.labels[name]


def summarise(url: str, with_catalog: bool, with_classes: bool) -> Summary:
    """Return the numbers of the collection at `url`.

    From the manifest they cost O(shards). `with_catalog` reads catalog.parquet; `with_classes` decodes every label
    raster.
    """
    store = open_store(url)
    manifest = load_manifest(store)
    sets: dict[tuple[str, ...], tuple[int, int]] = {}
    for shard in manifest.shards:
        samples, shards = sets.get(shard.sensors, (0, 0))
        sets[shard.sensors] = samples + shard.samples, shards + 1
    return Summary(
        url,
        manifest,
        sets,
        summarise_places(store) if with_catalog else None,
        _count_all_classes(store, manifest) if with_classes else None,
    )


def summarise_places(store: Store) -> PlaceSummary:
    """Return what the catalog says of all samples, read a row group at a time; raise ShardError for a damaged one."""
    summary = PlaceSummary()
    with store.open(CATALOG_PATH) as file:
        try:
            catalog = ParquetReader(file)
            for batch in catalog.batches(["dates", "labels", "crs", "gsd_m", "geometry"]):
                columns = batch.to_pydict()
                for dates in columns["dates"]:
                    summary.add_dates(dates)
                for labels in columns["labels"]:
                    summary.add_labels(parse_labels(labels))
                summary.crs.update(crs or "none" for crs in columns["crs"])
                summary.gsd_m.update(gsd for gsd in columns["gsd_m"] if gsd is not None)
                summary.with_footprint += sum(geometry is not None for geometry in columns["geometry"])
        except Exception as error:  # columns of other types lead anywhere
            raise ShardError(f"{store.url}/{CATALOG_PATH} is damaged: {error}. Run shard-builder verify.") from error
    return summary


def describe(summary: Summary) -> list[str]:
    """Return the numbers as lines for a person."""
    manifest = summary.manifest
    lines = [
        f"{manifest.name} ({manifest.source}): {manifest.num_samples} samples in {len(manifest.shards)} shards, "
        f"{summary.num_bytes / 1e6:.1f} MB",
        f"  digest {manifest.digest}",
        "  sensors of a sample          samples    shards",
    ]
    for sensors, (samples, shards) in summary.sensor_sets.items():
        lines.append(f"  {' + '.join(sensors):<26} {samples:>9} {shards:>9}")
    lines.append(
        f"  {'sensor':<10}{'band':<10}{'samples':>9}{'pixels':>14}{'mean':>12}{'std':>12}{'min':>12}{'max':>12}"
    )
    for sensor, bands in manifest.statistics.items():
        for band in bands:
            numbers = "".join(f"{value:>12.5g}" for value in (band.mean, band.std, band.min, band.max))
            samples = manifest.samples_with[sensor]
            lines.append(f"  {sensor:<10}{band.band:<10}{samples:>9}{band.count:>14}{numbers}")
    for name, spec in manifest.sensors.items():
        gsd = f"{spec.gsd_m:g} m nominally, " if spec.gsd_m else ""
        lines.append(f"  {name}: {gsd}{spec.dtype}, {spec.units}")
    lines += _describe_places(summary.places) if summary.places else []
    for sensor, classes in (summary.classes or {}).items():
        total = sum(classes.values())
        shares = ", ".join(f"{value}: {pixels} ({100 * pixels / total:.1f}%)" for value, pixels in classes.items())
        lines.append(f"  {sensor}, pixels of each class: {shares}")
    return lines


def to_document(summary: Summary) -> dict[str, Any]:
    """Return the numbers as a tree of JSON values."""
    manifest, places = summary.manifest, summary.places
    return {
        "url": summary.url,
        "name": manifest.name,
        "source": manifest.source,
        "digest": manifest.digest,
        "samples": manifest.num_samples,
        "shards": len(manifest.shards),
        "bytes": summary.num_bytes,
        "sensor_sets": [
            {"sensors": list(sensors), "samples": samples, "shards": shards}
            for sensors, (samples, shards) in summary.sensor_sets.items()
        ],
        "sensors": {
            name: {
                "samples": manifest.samples_with[name],
                "gsd_m": spec.gsd_m,
                "dtype": spec.dtype,
                "units": spec.units,
                "bands": [
                    {"band": b.band, "count": b.count, "mean": b.mean, "std": b.std, "min": b.min, "max": b.max}
                    for b in manifest.statistics.get(name, [])
                ],
            }
            for name, spec in manifest.sensors.items()
        },
        "counts": manifest.counts,
        "places": vars(places) if places else None,
        "classes": summary.classes,
    }


def _describe_places(places: PlaceSummary) -> list[str]:
    lines = [
        f"  dates: {places.first_date or 'none'} to {places.last_date or 'none'}, {places.undated} samples without",
        f"  footprints: {places.with_footprint} samples; finest sensor: "
        + (", ".join(f"{gsd:g} m: {count}" for gsd, count in sorted(places.gsd_m.items())) or "gsd unknown"),
        "  coordinate systems: " + ", ".join(f"{crs_name(crs)}: {count}" for crs, count in places.crs.most_common()),
    ]
    for name, counter in places.labels.items():
        lines.append(f"  label {name}: " + ", ".join(f"{value}: {count}" for value, count in counter.most_common()))
    lines += [f"  label {name}: more than {MAX_VALUES} different values" for name in places.unbounded]
    return lines


def _count_all_classes(store: Store, manifest: Manifest) -> dict[str, dict[int, int]]:
    sensors = [name for name, spec in manifest.sensors.items() if is_labels(spec)]
    return count_classes(
        (
            read_sample(store, shard.name, entry, sensors, manifest.sensors)
            for shard in manifest.shards
            if set(shard.sensors) & set(sensors)
            for entry in load_sidecar(store, shard.name, shard.sidecar_sha256).samples
        ),
        manifest.sensors,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
