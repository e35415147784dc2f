"""Rasters from several files: bands over each other, dates after each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ItemError
from gfm_pipeline.shards.codec import Raster
from shard_builder.archives import MemberRef
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.raster import Decoded, Facts


def load_stack(planned: PlannedRaster, bands: Sequence[str], one: Callable[[MemberRef], Decoded]) -> Decoded:
    """Return the raster of files that hold a band each (or all bands, where `bands` is empty), date by date.

    [C,H,W] for the files of one date, [T,C,H,W] for more or where the plan gives a date to each step. `one` decodes
    a file to [C,H,W]. Raises ItemError for files that do not fit together.
    """
    per_date = len(bands) or 1
    steps = [planned.files[i : i + per_date] for i in range(0, len(planned.files), per_date)]
    loaded = [stack_bands([one(ref) for ref in files], bands, files) if bands else one(files[0]) for files in steps]
    return stack_dates(loaded, planned) if len(steps) > 1 or planned.dates else loaded[0]


def stack_bands(parts: Sequence[Decoded], bands: Sequence[str], files: Sequence[MemberRef]) -> Decoded:
    """Return rasters [1,h,w] of one place as one [C,H,W], H and W those of the finest.

    Stated rule: a coarser band is repeated, every pixel f x f times, where f is an exact factor; its values stay its
    own. Raises ItemError for any other size, more than one band in a file, or types that differ.
    """
    height, width = (max(part.raster.shape[axis] for part in parts) for axis in (-2, -1))
    rows: list[Raster] = []
    masks: list[NDArray[np.bool_]] = []
    repeated: dict[int, list[str]] = {}
    for part, band, ref in zip(parts, bands, files, strict=True):
        channels, h, w = part.raster.shape
        factor = height // h
        if channels != 1 or (h * factor, w * factor) != (height, width):
            raise ItemError(
                f"{ref.source_file} has {channels} x {h} x {w} pixels beside a band of {height} x {width}; expected a "
                "single band whose size goes into that without remainder."
            )
        if factor > 1:
            repeated.setdefault(factor, []).append(band)
        rows.append(part.raster.repeat(factor, axis=1).repeat(factor, axis=2))
        if part.mask is not None:
            masks.append(part.mask.repeat(factor, axis=0).repeat(factor, axis=1))
    finest = next(part for part in parts if part.raster.shape[1:] == (height, width))
    rules = tuple(f"{', '.join(names)} repeated {f} x {f}" for f, names in sorted(repeated.items()))
    facts = replace(finest.facts, nodata=_one_nodata(parts, files), rules=finest.facts.rules + rules)
    return Decoded(np.concatenate(_same_type(rows, files)), facts, None, _everywhere(masks))


def stack_dates(parts: Sequence[Decoded], planned: PlannedRaster) -> Decoded:
    """Return rasters [C,H,W] of one place as a series [T,C,H,W].

    Stated rule: where the dates lie more than half a pixel apart, the series has no georeference. Raises ItemError for
    sizes or types that differ.
    """
    rasters = [part.raster for part in parts]
    shapes = {raster.shape for raster in rasters}
    if len(shapes) > 1:
        raise ItemError(f"{planned.source_file} has dates of sizes {sorted(shapes)}, expected one size.")
    files = planned.files[:: len(planned.files) // len(parts)]
    facts = replace(parts[0].facts, nodata=_one_nodata(parts, files))
    place, size = facts.georeference, rasters[0].shape[-2:]
    others = [part.facts.georeference for part in parts[1:]]
    if place and not all(other and other.lies_with(size, place, size) for other in others):
        facts = Facts(None, facts.nodata, (*facts.rules, "dates lie apart: no georeference"))
    masks = [part.mask for part in parts if part.mask is not None]
    return Decoded(np.stack(_same_type(rasters, files)), facts, None, _everywhere(masks))


def _same_type(rasters: list[Raster], files: Sequence[MemberRef]) -> list[Raster]:
    types = [str(raster.dtype) for raster in rasters]
    odd = next((i for i, name in enumerate(types) if name != types[0]), None)
    if odd is not None:
        raise ItemError(f"{files[odd].source_file} has {types[odd]} pixels, {files[0].source_file} {types[0]}.")
    return rasters


def _everywhere(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_] | None:
    """Return where every one of the files measured something, or None where no file tells."""
    return np.logical_and.reduce(masks) if masks else None


def _one_nodata(parts: Sequence[Decoded], files: Sequence[MemberRef]) -> float | None:
    """Return the nodata value that the files declare; NaN is one value."""
    told = {repr(part.facts.nodata): part.facts.nodata for part in parts if part.facts.nodata is not None}
    if len(told) > 1:
        raise ItemError(f"{files[0].source_file} and the files it belongs to declare nodata {', '.join(told)}.")
    return next(iter(told.values()), None)
