"""Rasters from several files: bands over each other, dates after each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors.missing import is_declared
from gfm_pipeline.shards.codec import Raster
from shard_builder.archives import MemberRef
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.band_names import check_band
from shard_builder.rasters.georeference import HALF
from shard_builder.rasters.raster import Decoded, nodata_of_bands


def load_stack(
    planned: PlannedRaster, bands: Sequence[str], one: Callable[[MemberRef], Decoded], published: bool = False
) -> Decoded:
    """Return the raster of files that hold a band each (or all bands, where `bands` is empty), date by date.

    [C,H,W] for the files of one date, [T,C,H,W] for more or where the plan gives a date to each step. `one` decodes
    a file to [C,H,W], `published` is as in `stack_bands`. Raises ItemError for files that do not fit together.
    """
    per_date = len(bands) or 1
    steps = [planned.files[i : i + per_date] for i in range(0, len(planned.files), per_date)]
    loaded = [
        stack_bands([one(ref) for ref in files], bands, files, published) if bands else one(files[0]) for files in steps
    ]
    return stack_dates(loaded, planned) if len(steps) > 1 or planned.dates else loaded[0]


def stack_bands(
    parts: Sequence[Decoded], bands: Sequence[str], files: Sequence[MemberRef], published: bool = False
) -> Decoded:
    """Return rasters [1,h,w] of one place as one [C,H,W], H and W those of the finest.

    Stated rule: a coarser band is repeated, every pixel f x f times, where f is an exact factor; its values stay its
    own. Corners lie together to half a pixel of the coarser. Those of the bands of a `published` patch, which its
    authors brought together, need only have ground in common: some were rounded to grids that start elsewhere. Raises
    ItemError for any other size or place, more than one band in a file, or types that differ.
    """
    height, width = (max(part.raster.shape[axis] for part in parts) for axis in (-2, -1))
    rows: list[Raster] = []
    masks: list[NDArray[np.bool_] | None] = []
    repeated: dict[int, list[str]] = {}
    for part, band, ref in zip(parts, bands, files, strict=True):
        channels, h, w = part.raster.shape
        factor = height // h
        if channels != 1 or (h * factor, w * factor) != (height, width):
            raise ItemError(
                f"{ref.source_file} has {channels} x {h} x {w} pixels beside a band of {height} x {width}; expected a "
                "single band whose size goes into that without remainder."
            )
        check_band(part, band, ref.source_file)
        if factor > 1:
            repeated.setdefault(factor, []).append(band)
        rows.append(part.raster.repeat(factor, axis=1).repeat(factor, axis=2))
        mask = None if part.mask is None else np.broadcast_to(part.mask, part.raster.shape)
        masks.append(None if mask is None else mask.repeat(factor, axis=1).repeat(factor, axis=2))
    _check_one_place(parts, files, max(height, width) if published else HALF)
    finest = next(part for part in parts if part.raster.shape[1:] == (height, width))
    rules = tuple(f"{', '.join(names)} repeated {f} x {f}" for f, names in sorted(repeated.items()))
    told = tuple(value for part in parts for value in nodata_of_bands(part.facts.nodata, 1))
    nodata = told if any(value is not None for value in told) else ()
    facts = replace(finest.facts, nodata=nodata, rules=_rules(parts) + rules, bands=())
    rasters = _same_type(rows, files)
    return Decoded(np.concatenate(rasters), facts, None, _masks(masks, rasters, np.concatenate))


def stack_dates(parts: Sequence[Decoded], planned: PlannedRaster) -> Decoded:
    """Return rasters [C,H,W] of one place as a series [T,C,H,W].

    Stated rule: where the dates lie more than half a pixel apart, the series has no georeference. Raises ItemError for
    sizes or types that differ, and for dates that have no ground in common.
    """
    rasters = [part.raster for part in parts]
    shapes = {raster.shape for raster in rasters}
    if len(shapes) > 1:
        raise ItemError(f"{planned.source_file} has dates of sizes {sorted(shapes)}, expected one size.")
    files = planned.files[:: len(planned.files) // len(parts)]
    facts = replace(parts[0].facts, rules=_rules(parts))
    places, size = [part.facts.georeference for part in parts], rasters[0].shape[-2:]
    _check_one_place(parts, files, max(size))
    place = next((place for place in places if place), None)
    if place and not all(other and other.lies_with(size, place, size) for other in places):
        facts = replace(facts, georeference=None, rules=(*facts.rules, "dates lie apart: no georeference"))
    masks = [part.mask for part in parts]
    if len({repr(part.facts.nodata) for part in parts}) > 1:  # every date by what its own file declares
        masks = [_with_declared(part) for part in parts]
        masked = tuple(dict.fromkeys(value for part in parts for value in part.facts.nodata))
        facts = replace(facts, nodata=(), masked=masked)
    return Decoded(np.stack(_same_type(rasters, files)), facts, None, _masks(masks, rasters, np.stack))


def _check_one_place(parts: Sequence[Decoded], files: Sequence[MemberRef], most: float) -> None:
    """Raise ItemError for files whose corners lie more than so many pixels apart; those without any say nothing."""
    placed = [(part, ref) for part, ref in zip(parts, files, strict=True) if part.facts.georeference]
    for part, ref in placed[1:]:
        (first, first_ref), home, other = placed[0], placed[0][0].facts.georeference, part.facts.georeference
        assert home is not None
        assert other is not None
        if home.apart(first.raster.shape[-2:], other, part.raster.shape[-2:]) > most:
            raise ItemError(
                f"{first_ref.source_file} ({home.described}) and {ref.source_file} ({other.described}) lie apart, "
                "expected one place."
            )


def _same_type(rasters: list[Raster], files: Sequence[MemberRef]) -> list[Raster]:
    types = [str(raster.dtype) for raster in rasters]
    odd = next((i for i, name in enumerate(types) if name != types[0]), None)
    if odd is not None:
        raise ItemError(f"{files[odd].source_file} has {types[odd]} pixels, {files[0].source_file} {types[0]}.")
    return rasters


def _rules(parts: Sequence[Decoded]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(rule for part in parts for rule in part.facts.rules))


def _masks(
    masks: Sequence[NDArray[np.bool_] | None], rasters: Sequence[Raster], join: Callable[[list[NDArray[np.bool_]]], Any]
) -> NDArray[np.bool_] | None:
    """Return the masks joined as their rasters are, all True for one without; None where no file has one."""
    if all(mask is None for mask in masks):
        return None
    shaped = [
        np.broadcast_to(np.True_ if mask is None else mask, raster.shape)
        for mask, raster in zip(masks, rasters, strict=True)
    ]
    found: NDArray[np.bool_] = join(shaped)
    return found


def _with_declared(part: Decoded) -> NDArray[np.bool_]:
    """Return the mask of a raster [C,H,W], without the pixels that hold what its file declares."""
    mask = np.ones(part.raster.shape, np.bool_) if part.mask is None else np.broadcast_to(part.mask, part.raster.shape)
    declared = nodata_of_bands(part.facts.nodata, len(part.raster))
    missing = [
        np.zeros(band.shape, np.bool_) if value is None else is_declared(band, value)
        for band, value in zip(part.raster, declared, strict=True)
    ]
    found: NDArray[np.bool_] = mask & ~np.stack(missing)
    return found
