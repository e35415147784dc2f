"""A picture of samples of a collection: a row per sample, all its sensors side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import UsageError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.sensors.render import MISSING, Limits, Picture, display_bands, limits_of, render, render_classes
from gfm_pipeline.shards.codec import Raster
from gfm_pipeline.shards.footprint import middle
from gfm_pipeline.shards.manifest import Manifest, load_manifest
from gfm_pipeline.shards.sample import SampleRecord, SensorRecord
from gfm_pipeline.storage import LocalStore, Store, open_store
from shard_builder.collection.pixels import (
    ShownSample,
    is_labels,
    read_chosen,
    read_keys,
    valid_pixels,
    wanted_sensors,
)
from shard_builder.collection.sheet import Column, Row, Tile, draw_sheet
from shard_builder.rasters.georeference import crs_name

MAX_DATES = 4
"""A longer series shows its first, middle and last date."""
_PIXELS_FOR_STRETCH = 20_000
"""Of every image, evenly over its rows: each image counts the same, whatever its size."""
_CLASSES_NAMED = 6


def show_collection(
    url: str, out: Path, count: int, seed: int, keys: Sequence[str] = (), sensors: Sequence[str] = ()
) -> Path:
    """Write a PNG of `count` samples, or of those with `keys`, and return its path.

    Without keys they are chosen evenly over the collection; the same seed chooses the same ones. Raises UsageError
    for a key or sensor that is not there.
    """
    store = open_store(url)
    manifest = load_manifest(store)
    names = wanted_sensors(manifest, sensors)
    if keys:
        samples = list(read_keys(store, manifest, names, keys))
    else:
        samples = list(read_chosen(store, manifest, names, count, seed))
    LocalStore(out.parent).put(out.name, draw_samples(store, manifest, names, samples))
    return out


def draw_samples(store: Store, manifest: Manifest, names: Sequence[str], samples: Sequence[ShownSample]) -> bytes:
    """Return the PNG of `samples`; raise UsageError when there are none."""
    if not samples:
        raise UsageError(f"{store.url} holds no sample with {' or '.join(names)}: nothing to draw.")
    specs = [manifest.sensors[name] for name in names]
    stretches = [stretch_of(spec, [s.rasters[spec.name] for s in samples if spec.name in s.rasters]) for spec in specs]
    rows = [
        Row(
            sample.record.key,
            _describe_place(sample.record),
            [
                _tiles(sample.rasters[spec.name], sample.record.sensors[spec.name], spec, limits)
                if spec.name in sample.rasters
                else []
                for spec, limits in zip(specs, stretches, strict=True)
            ],
        )
        for sample in samples
    ]
    title = f"{manifest.name}: {len(samples)} of {manifest.num_samples} samples"
    shaded = ", heights each its own" if any(spec.display.mode == "shaded" for spec in specs) else ""
    note = f"source {manifest.source}, {len(manifest.shards)} shards; one stretch per sensor for all samples{shaded}"
    return draw_sheet(title, note, [Column(spec.name, _describe_sensor(spec)) for spec in specs], rows)


def stretch_of(spec: SensorSpec, rasters: Sequence[Raster]) -> Limits | None:
    """Return one stretch for all of `rasters`; None where each has its own: class maps have none, relief wants all."""
    if is_labels(spec) or spec.display.mode == "shaded" or not rasters:
        return None
    parts = []
    for raster in rasters:
        for _, image in _frames(raster):
            flat = _measured(image, spec).reshape(len(spec.bands), -1)
            parts.append(flat[:, :: max(1, flat.shape[1] // _PIXELS_FOR_STRETCH)])
    return limits_of(np.concatenate(parts, axis=1)[:, None], spec)


def draw_image(image: Raster, spec: SensorSpec, limits: Limits | None) -> Picture:
    """Return one image [C,H,W], as stored, as a picture; pixels that were not measured have a colour of their own."""
    if not is_labels(spec):
        return render(_measured(image, spec), spec, limits)
    valid = valid_pixels(image, spec)[0]
    picture = render_classes(np.where(valid, image[0], 0).astype(np.int64))
    picture[~valid] = MISSING
    return picture


def _tiles(raster: Raster, record: SensorRecord, spec: SensorSpec, limits: Limits | None) -> list[Tile]:
    tiles = []
    for step, image in _frames(raster):
        size = f"{image.shape[2]} x {image.shape[1]} px"
        parts = [f"{record.gsd_m:.3g} m, {size}" if record.gsd_m else size]
        if raster.ndim == 4:
            date = record.dates[step] if step < len(record.dates) else f"step {step + 1}"
            parts = [f"{date}, {step + 1} of {len(raster)}", size]
        elif record.dates:
            parts.insert(0, record.dates[0])
        if detail := _describe_values(image, spec):
            parts.append(detail)
        tiles.append(Tile(draw_image(image, spec, limits), ", ".join(parts), is_labels(spec)))
    return tiles


def _frames(raster: Raster) -> list[tuple[int, Raster]]:
    """Return (time step, image [C,H,W]) of those that are shown of a raster."""
    if raster.ndim == 3:
        return [(0, raster)]
    steps = len(raster)
    chosen = range(steps) if steps <= MAX_DATES else (0, steps // 2, steps - 1)
    return [(step, raster[step]) for step in chosen]


def _measured(image: Raster, spec: SensorSpec) -> NDArray[np.float32]:
    """Return the image with NaN where nothing was measured."""
    out = image.astype(np.float32)
    out[~valid_pixels(image, spec)] = np.nan
    return out


def _describe_values(image: Raster, spec: SensorSpec) -> str:
    valid = image[valid_pixels(image, spec)]
    if is_labels(spec) and valid.size:
        values, times = np.unique(valid, return_counts=True)
        often = sorted(values[np.argsort(-times)][:_CLASSES_NAMED].tolist())
        more = " ..." if len(values) > _CLASSES_NAMED else ""
        return f"class {' '.join(f'{value:g}' for value in often)}{more}"
    if spec.display.mode == "shaded" and valid.size:
        return f"{valid.min():.0f} to {valid.max():.0f} {spec.units}"
    return ""


def _describe_sensor(spec: SensorSpec) -> str:
    if is_labels(spec):
        return f"{', '.join(spec.bands)}: a colour per class"
    shown = dict.fromkeys(spec.bands[index] for index in display_bands(spec))
    return (
        f"{' '.join(shown)} of {len(spec.bands)}: {spec.units}"
        if len(spec.bands) > len(shown)
        else (f"{' '.join(shown)}: {spec.units}")
    )


def _describe_place(record: SampleRecord) -> str:
    parts = []
    if record.footprint:
        east, north = middle(record.footprint)
        parts.append(f"{abs(north):.3f} {'N' if north >= 0 else 'S'} {abs(east):.3f} {'E' if east >= 0 else 'W'}")
    if record.crs:
        parts.append(crs_name(record.crs))
    parts += [f"{name}: {_short(value)}" for name, value in record.labels.items()]
    return "   ".join(parts)


def _short(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
