"""The words of a dataset card: front matter that Hugging Face reads, then plain Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from gfm_pipeline.shards import FORMAT_NAME, FORMAT_VERSION
from gfm_pipeline.shards.manifest import Manifest
from shard_builder.collection.licence import Licence, find_licence
from shard_builder.collection.pixels import is_labels
from shard_builder.collection.statistics import PlaceSummary
from shard_builder.rasters.georeference import crs_name

Section = Literal["samples", "histograms", "map"]
_SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7))
_LICENCE_ID = re.compile(r"(cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-[234]\.0|cdla-permissive-[12]\.0|apache-2\.0|mit|odbl)")
_LISTED = 50
"""Rows of a long table; the catalog has all."""


@dataclass(frozen=True)
class Figure:
    """A picture beside the README."""

    section: Section
    path: str
    caption: str


@dataclass(frozen=True)
class CardFacts:
    """All that a card tells."""

    manifest: Manifest
    places: PlaceSummary
    stored: Mapping[str, set[str]]
    """{sensor: codecs of its members}."""
    licence: str | None
    """Terms that the publisher states; what is known of the source when None."""
    figures: tuple[Figure, ...]


def compose_card(facts: CardFacts) -> str:
    """Return the README of a collection."""
    front = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True, width=120)
    body = [*_opening(facts), *_licence(facts), *_contents(facts), *_statistics(facts), *_where(facts)]
    return "---\n" + front + "---\n\n" + "\n".join([*body, *_account(facts), *_reading(facts)]) + "\n"


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    manifest, known = facts.manifest, _known(facts.manifest)
    licence: dict[str, Any] = {"license": known.licence if known else "unknown"}
    if facts.licence and _LICENCE_ID.fullmatch(facts.licence.lower().replace(" ", "-")):
        licence = {"license": facts.licence.lower().replace(" ", "-")}
    elif facts.licence:
        licence = {"license": "other", "license_name": facts.licence}
    elif known and known.licence == "other":
        licence = {"license": "other", "license_name": f"terms of {known.title}", "license_link": known.link}
    size = next((name for name, most in _SIZES if manifest.num_samples < most), "n>10M")
    kind = ["synthetic"] if manifest.synthetic else []
    return {
        "pretty_name": manifest.name,
        **licence,
        "size_categories": [size],
        "tags": ["remote-sensing", "earth-observation", "geospatial", "webdataset", *kind, *manifest.sensors],
        "configs": [{"config_name": "default", "data_files": "shards/*.tar"}],
    }


def _opening(facts: CardFacts) -> Iterator[str]:
    manifest = facts.manifest
    size = sum(shard.bytes for shard in manifest.shards)
    yield f"# {manifest.name}\n"
    if manifest.synthetic:
        yield (
            "**Synthetic.** The images were made by a program, `shard-builder demo`, in the layout of a published "
            "archive. They show no real place, and nothing of that archive is in them.\n"
        )
    yield (
        f"{manifest.num_samples} places with {', '.join(manifest.sensors)}, made from "
        f"{_origin(manifest)}: {len(manifest.shards)} WebDataset shards, {size / 1e6:.1f} MB. "
        "All sensors of a place are in one sample.\n"
    )
    yield from _pictures(facts, "samples")
    yield "| | |\n|---|---|"
    yield f"| source | {manifest.source} |"
    yield f"| format | {FORMAT_NAME}, version {FORMAT_VERSION} |"
    yield f"| collection digest | `{manifest.digest}` |"
    yield f"| build configuration digest | `{manifest.build_digest}` |\n"


def _known(manifest: Manifest) -> Licence | None:
    """Return the terms of the raw archives; synthetic ones are nobody's."""
    return None if manifest.synthetic else find_licence(manifest.source)


def _origin(manifest: Manifest) -> str:
    if manifest.synthetic:
        return f"synthetic archives in the layout of {manifest.source}"
    known = find_licence(manifest.source)
    return known.title if known else manifest.source


def _licence(facts: CardFacts) -> Iterator[str]:
    known = _known(facts.manifest)
    yield "## Licence\n"
    if facts.licence:
        yield f"Stated by the publisher of this collection: {facts.licence}.\n"
    if facts.manifest.synthetic:
        yield "The images come from a program; no terms of anybody's data hold for them.\n"
        return
    if known is None:
        yield f"Nothing is known here of the terms of the source `{facts.manifest.source}`. Check them before use.\n"
        return
    yield f"Terms of {known.title}, as far as known; check the source: {known.terms}. <{known.link}>\n"
    if known.copernicus:
        yield "Contains modified Copernicus Sentinel data.\n"
    yield f"Please cite: {known.citation}.\n"


def _contents(facts: CardFacts) -> Iterator[str]:
    manifest = facts.manifest
    yield "## Contents\n"
    yield "| sensor | samples | bands | type | units | ground sampling | members |\n|---|---:|---|---|---|---|---|"
    for name, spec in manifest.sensors.items():
        units = "class numbers" if is_labels(spec) else spec.units
        gsd = f"{spec.gsd_m:g} m" if spec.gsd_m else "not stated"
        nodata = "" if spec.nodata is None else f", nodata {spec.nodata:g}"
        codecs = ", ".join(f"`.{name}.{codec}`" for codec in sorted(facts.stored.get(name, set())))
        bands = ", ".join(spec.bands)
        samples = manifest.samples_with[name]
        yield f"| {name} | {samples} | {bands} | {spec.dtype}{nodata} | {units} | {gsd} | {codecs} |"
    yield ""
    sets: dict[tuple[str, ...], list[int]] = {}
    for shard in manifest.shards:
        sets.setdefault(shard.sensors, []).append(shard.samples)
    yield "| sensors of a sample | samples | shards |\n|---|---:|---:|"
    yield from (f"| {' + '.join(sensors)} | {sum(counts)} | {len(counts)} |" for sensors, counts in sets.items())
    yield ""
    for name, counter in facts.places.labels.items():
        yield f"| {_cell(name)} | samples |\n|---|---:|"
        yield from (f"| {_cell(value)} | {count} |" for value, count in counter.most_common(_LISTED))
        yield f"| and {len(counter) - _LISTED} more | |\n" if len(counter) > _LISTED else ""
    if facts.places.unbounded:
        yield f"Labels with a value per sample, nearly: {', '.join(facts.places.unbounded)}.\n"


def _statistics(facts: CardFacts) -> Iterator[str]:
    yield "## Statistics\n"
    yield 'Over all measured pixels of the collection; values that mean "not measured" are left out.\n'
    yield "| sensor | band | pixels | mean | std | min | max |\n|---|---|---:|---:|---:|---:|---:|"
    for sensor, bands in facts.manifest.statistics.items():
        if is_labels(facts.manifest.sensors[sensor]):
            continue
        for band in bands:
            numbers = " | ".join(f"{value:.6g}" for value in (band.mean, band.std, band.min, band.max))
            yield f"| {sensor} | {band.band} | {band.count} | {numbers} |"
    yield ""
    yield from _pictures(facts, "histograms")


def _where(facts: CardFacts) -> Iterator[str]:
    places = facts.places
    yield "## Where and when\n"
    if facts.manifest.synthetic:
        yield "Places and dates are made up, as the images are.\n"
    if not places.with_footprint:
        yield "The source states no places.\n"
    yield from _pictures(facts, "map")
    if places.first_date:
        undated = f"; {places.undated} samples have no date" if places.undated else ""
        yield f"Dates: {places.first_date} to {places.last_date}{undated}.\n"
    else:
        yield "The source states no dates.\n"
    known = [f"{crs_name(crs)} ({count})" for crs, count in places.crs.most_common(_LISTED) if crs != "none"]
    if known:
        yield f"Coordinate systems (samples): {', '.join(known)}.\n"


def _account(facts: CardFacts) -> Iterator[str]:
    manifest = facts.manifest
    yield "## How it was made\n"
    yield "| | count |\n|---|---:|"
    yield from (f"| {_cell(name.replace('_', ' '))} | {count} |" for name, count in manifest.counts.items())
    yield "\n`failures.jsonl` names every item that was left out, and why.\n"
    yield "| input | bytes | items |\n|---|---:|---:|"
    yield from (f"| `{item.path}` | {item.bytes} | {item.items} |" for item in manifest.inputs[:_LISTED])
    if len(manifest.inputs) > _LISTED:
        yield f"| and {len(manifest.inputs) - _LISTED} more, see `manifest.json` | | |"
    yield ""


def _reading(facts: CardFacts) -> Iterator[str]:
    yield "## Reading it\n"
    yield (
        "The shards are plain WebDataset tars: members `<key>.<sensor>.<extension>` and `<key>.json`, which has bands, "
        "shape, type, dates, footprint and labels. `npy`, `jpg` and `tif` open with any library; `blosc2` with "
        "`imagecodecs.blosc2_decode`, whose bytes are the array of that type and shape in C order. "
        "`catalog.parquet` is GeoParquet: one row per sample. `manifest.json` and the `.json` beside each shard hold "
        "sha256 of every file and crc32 of every member; `shard-builder verify` checks them all."
    )


def _pictures(facts: CardFacts, section: Section) -> Iterator[str]:
    for figure in facts.figures:
        if figure.section == section:
            yield f"![{figure.caption}]({figure.path})\n\n*{figure.caption}*\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
