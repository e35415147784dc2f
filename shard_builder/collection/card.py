"""The dataset card of a collection: README.md in Hugging Face's form, and the pictures that it shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gfm_pipeline.errors import ShardError
from gfm_pipeline.shards.manifest import Manifest, load_manifest
from gfm_pipeline.storage import LocalStore, Store, open_store
from shard_builder.collection.card_text import CardFacts, Figure, Section, compose_card
from shard_builder.collection.footprints import read_footprints
from shard_builder.collection.histogram import SensorHistograms
from shard_builder.collection.pixels import ShownSample, count_classes, is_labels, read_chosen, wanted_sensors
from shard_builder.collection.show import draw_samples
from shard_builder.collection.statistics import summarise_places

SAMPLES_MEASURED = 200
"""Samples that the histograms are counted on."""
SAMPLES_SHOWN = 6
FOOTPRINTS_DRAWN = 5000
README, PICTURES = "README.md", "card"


@dataclass
class Measured:
    """What one pass over some samples tells."""

    histograms: dict[str, SensorHistograms]
    classes: dict[str, dict[int, int]] = field(default_factory=dict)
    """{sensor: {class: pixels}}."""
    stored: dict[str, set[str]] = field(default_factory=dict)
    """{sensor: codecs of its members}."""
    count: int = 0


def write_card(url: str, out: Path, licence: str | None) -> Path:
    """Write README.md and the folder `card` with its pictures to `out`; return the path of the README.

    The text is the same whenever the collection is. Raises ShardError for a damaged collection.
    """
    from shard_builder.collection.plots import draw_classes, draw_histograms, draw_map

    store, target = open_store(url), LocalStore(out)
    manifest = load_manifest(store)
    names = wanted_sensors(manifest, [])
    measured = measure_samples(store, manifest, names)
    places = summarise_places(store)
    figures: list[Figure] = []

    def add(section: Section, name: str, data: bytes, caption: str) -> None:
        target.put(f"{PICTURES}/{name}.png", data)
        figures.append(Figure(section, f"{PICTURES}/{name}.png", caption))

    shown = list(read_chosen(store, manifest, names, SAMPLES_SHOWN, seed=0))
    if shown:
        add("samples", "samples", draw_samples(store, manifest, names, shown), f"{len(shown)} samples, evenly chosen.")
    counted = f"Counted on {measured.count} of {manifest.num_samples} samples, evenly chosen"
    for name, histograms in measured.histograms.items() if measured.count else ():
        caption = f"{name}: share of pixels. {counted}; an axis ends 4 standard deviations from the mean at most."
        add("histograms", f"histogram-{name}", draw_histograms(histograms), caption)
    for name, classes in measured.classes.items() if measured.count else ():
        caption = f"{name}: share of pixels by class. {counted}."
        add("histograms", f"classes-{name}", draw_classes(name, classes), caption)
    rings, placed = read_footprints(store, FOOTPRINTS_DRAWN)
    if rings:
        drawn = "all of them drawn" if placed <= FOOTPRINTS_DRAWN else f"at most {FOOTPRINTS_DRAWN} of them drawn"
        caption = f"Footprints of {placed} samples, {drawn}; longitude and latitude on WGS 84."
        add("map", "map", draw_map(rings), caption)
    facts = CardFacts(manifest, places, measured.stored, licence, tuple(figures))
    target.put(README, compose_card(facts).encode())
    return out / README


def measure_samples(store: Store, manifest: Manifest, names: Sequence[str]) -> Measured:
    """Return histograms and class counts of at most SAMPLES_MEASURED samples, one of which is in memory at a time."""
    lacking = sorted({sensor for shard in manifest.shards for sensor in shard.sensors} - manifest.statistics.keys())
    if lacking and manifest.num_samples:
        raise ShardError(f"{store.url} has no statistics of {', '.join(lacking)}. Run shard-builder verify.")
    names = [name for name in names if name in manifest.statistics]
    measured = Measured(
        {
            name: SensorHistograms(manifest.sensors[name], manifest.statistics[name])
            for name in names
            if not is_labels(manifest.sensors[name])
        }
    )

    def samples() -> Iterator[ShownSample]:
        for sample in read_chosen(store, manifest, names, SAMPLES_MEASURED, seed=1):
            measured.count += 1
            for name, raster in sample.rasters.items():
                measured.stored.setdefault(name, set()).add(sample.record.sensors[name].codec)
                if name in measured.histograms:
                    measured.histograms[name].add(raster)
            yield sample

    measured.classes = count_classes(samples(), manifest.sensors)
    return measured
