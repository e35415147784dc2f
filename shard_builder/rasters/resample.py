"""A raster in the pixels of another grid.

Stated rules, all about pixel centres. `nearest` takes the pixel that the centre of a target pixel falls into.
`bilinear` weighs the four pixels around it. `average` is the mean of all pixels whose centres fall into a target pixel,
with equal weights: on grids that fit, the mean over its area. It is bilinear where the source has less than FINER
pixels to one of the grid, and for a target pixel that none falls into. What was not measured (NaN, the nodata value)
has no weight and the others are weighed up; a target pixel without any weight is nodata, and one whose centre lies
outside the raster is masked. Integers are rounded and clipped to their type; one that would be the nodata value by
chance becomes its neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.codec import Raster
from shard_builder.planned import Grid, PlannedRaster, Resampling, Window
from shard_builder.rasters.georeference import Georeference, to_pixels
from shard_builder.rasters.raster import Decoded, OpenRaster

SOURCE_VALUES = 2**23
"""Numbers of the source that are read at once: where one target pixel covers many, the window is halved."""
MARGIN = 2
"""Pixels that are read around what the target window covers, for the weights at its edge."""
FINER = 2.0
"""Pixels of the source to one of the grid, at the middle of the grid, from which on they are averaged."""
EDGE = 1e-6
"""Pixels by which a centre may lie outside: rounding of coordinates."""
_LITTLE = 1e-9

Floats = NDArray[np.float64]


def resample(source: OpenRaster, planned: PlannedRaster, spec: SensorSpec) -> Decoded:
    """Return a window of the planned grid with the pixels of `source`, [C,h,w] or [T,C,h,w] in the source's type.

    Its mask says which pixels lie in the source. Raises ItemError for a source without a georeference.
    """
    grid, place = planned.grid, source.facts.georeference
    assert grid is not None
    if place is None:
        raise ItemError(f"{planned.source_file} has no georeference: it cannot be brought to the grid of its sample.")
    window = planned.window or (0, 0, grid.height, grid.width)
    how = planned.resampling
    if how == "average" and _finer(grid, place) < FINER:
        how = "bilinear"
    work = _Work(source, place, grid.georeference, how, (spec.nodata, *source.facts.nodata))
    raster, mask = work.window(window)
    facts = source.facts.at(0, 0)
    rules = (*work.rules, f"{spec.name}: resampled to the common grid ({planned.resampling})")
    facts = replace(facts, georeference=grid.georeference.window(*window[:2]), rules=rules)
    return Decoded(raster, facts, None, None if mask.all() else mask)


def _finer(grid: Grid, place: Georeference) -> float:
    """Return how many pixels of the source go into one at the middle of the grid."""
    rows, columns = grid.height / 2 + np.array([0, 1, 0]), grid.width / 2 + np.array([0, 0, 1])
    down, right = to_pixels(rows, columns, grid.georeference, place)
    area = (down[1] - down[0]) * (right[2] - right[0]) - (down[2] - down[0]) * (right[1] - right[0])
    return abs(float(area)) + _LITTLE


class _Cells(NamedTuple):
    """Which target pixels, counted row by row, the pixels of a source window fall into."""

    of: NDArray[np.int64]
    """By pixel of the source; -1: into none."""
    bare: NDArray[np.bool_]
    """[h,w]: target pixels that none falls into."""


class _Work:
    """One window on its way to its grid."""

    def __init__(
        self,
        source: OpenRaster,
        place: Georeference,
        target: Georeference,
        how: Resampling,
        nodata: tuple[float | None, ...],
    ) -> None:
        self.source = source
        self.place = place
        self.target = target
        self.how = how
        self.nodata = list(dict.fromkeys(value for value in nodata if value is not None and not math.isnan(value)))
        self.rules: tuple[str, ...] = ()
        """Those of the source, as its last part was read."""

    def window(self, window: Window) -> tuple[Raster, NDArray[np.bool_]]:
        """Return the raster and the mask [h,w] of a window of the target grid."""
        row, column, height, width = window
        part = self._needed(window)
        if part[2] * part[3] * self.source.shape[0] > SOURCE_VALUES and max(height, width) > 1:
            return self._halves(window)
        rows, columns = np.meshgrid(np.arange(height) + row + 0.5, np.arange(width) + column + 0.5, indexing="ij")
        down, right = to_pixels(rows, columns, self.target, self.place)
        mask = _within(down, self.source.shape[1]) & _within(right, self.source.shape[2])
        decoded = self.source.read(part)
        self.rules = decoded.facts.rules
        pixels = decoded.raster
        bands = pixels.reshape(-1, *pixels.shape[-2:])
        down, right = down - part[0], right - part[1]
        found = np.empty((len(bands), height, width), pixels.dtype)
        cells = self._cells(part, window) if self.how == "average" else None
        for i, band in enumerate(bands):
            found[i] = self._band(band, np.where(mask, down, 0.5), np.where(mask, right, 0.5), cells)
        return found.reshape(*pixels.shape[:-2], height, width), mask

    def _halves(self, window: Window) -> tuple[Raster, NDArray[np.bool_]]:
        row, column, height, width = window
        if height >= width:
            half = height // 2
            parts = [(row, column, half, width), (row + half, column, height - half, width)]
        else:
            half = width // 2
            parts = [(row, column, height, half), (row, column + half, height, width - half)]
        axis = -2 if height >= width else -1
        rasters, masks = zip(*map(self.window, parts), strict=True)
        return np.concatenate(rasters, axis), np.concatenate(masks, axis)

    def _needed(self, window: Window) -> Window:
        """Return the window of the source that a window of the target needs; one pixel where it needs none."""
        row, column, height, width = window
        along = np.linspace(0, 1, 21)  # the edges are curves in another coordinate system
        ends = np.concatenate([np.zeros(21), np.ones(21), along, along])
        across = np.concatenate([along, along, np.zeros(21), np.ones(21)])
        places = to_pixels(row + ends * height, column + across * width, self.target, self.place)
        found = [_reach(at, length) for at, length in zip(places, self.source.shape[1:], strict=True)]
        return found[0][0], found[1][0], found[0][1], found[1][1]

    def _cells(self, part: Window, window: Window) -> _Cells:
        row, column, height, width = part
        rows, columns = np.meshgrid(np.arange(height) + row + 0.5, np.arange(width) + column + 0.5, indexing="ij")
        down, right = to_pixels(rows, columns, self.place, self.target)
        down, right = np.floor(down - window[0] + _LITTLE), np.floor(right - window[1] + _LITTLE)
        inside = (down >= 0) & (down < window[2]) & (right >= 0) & (right < window[3])
        cells = np.full(inside.shape, -1)
        cells[inside] = down[inside] * window[3] + right[inside]
        counts = np.bincount(cells[inside], minlength=window[2] * window[3])
        return _Cells(cells, (counts == 0).reshape(window[2:]))

    def _band(self, band: Raster, down: Floats, right: Floats, cells: _Cells | None) -> Raster:
        """Return one band [h,w] at the given places in pixels of it."""
        if self.how == "nearest":
            rows, columns = (np.floor(at + _LITTLE).astype(np.int64) for at in (down, right))
            found: Raster = band[rows.clip(0, band.shape[0] - 1), columns.clip(0, band.shape[1] - 1)]
            return found
        valid = self._valid(band)
        if cells is None:
            return self._stored(*_bilinear(band, valid, down, right), band.dtype)
        values, weights = _mean(band, valid, cells)
        values[cells.bare], weights[cells.bare] = _bilinear(band, valid, down[cells.bare], right[cells.bare])
        return self._stored(values, weights, band.dtype)

    def _valid(self, band: Raster) -> NDArray[np.bool_]:
        valid = ~np.isnan(band) if band.dtype.kind == "f" else np.ones(band.shape, bool)
        for value in self.nodata:
            valid &= band != value
        return valid

    def _stored(self, values: Floats, weights: Floats, dtype: np.dtype[np.generic]) -> Raster:
        """Return means in the type of the source, with nodata where nothing had a weight."""
        measured = weights > _LITTLE
        if dtype.kind == "f":
            fill = self.nodata[0] if self.nodata else math.nan
            return np.where(measured, values, fill).astype(dtype)
        limits = np.iinfo(str(dtype))
        found = np.rint(values).clip(limits.min, limits.max)
        for value in self.nodata:
            found[measured & (found == value)] += 1 if value < limits.max else -1
        return np.where(measured, found, self.nodata[0] if self.nodata else 0).astype(dtype)


def _within(at: Floats, length: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (at >= -EDGE) & (at <= length + EDGE)
    return found


def _reach(at: Floats, length: int) -> tuple[int, int]:
    """Return (start, length) of the pixels from the first to the last place, with a margin, that are there."""
    at = at[np.isfinite(at)]
    if not at.size:
        return 0, 1
    start = min(max(0, math.floor(at.min()) - MARGIN), length - 1)
    return start, max(1, min(length, math.ceil(at.max()) + MARGIN) - start)


def _bilinear(band: Raster, valid: NDArray[np.bool_], down: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Return weighted means of the measured pixels around each place, and their weight, 1 where all four are."""
    from scipy.ndimage import map_coordinates  # a third of a second that most builds do not need

    places = np.stack([down - 0.5, right - 0.5])
    values, weights = (
        map_coordinates(array, places, np.float64, order=1, mode="grid-constant", prefilter=False)
        for array in _zeroed(band, valid)
    )
    return np.divide(values, weights, out=np.zeros_like(values), where=weights > _LITTLE), weights


def _mean(band: Raster, valid: NDArray[np.bool_], cells: _Cells) -> tuple[Floats, Floats]:
    """Return the means over the measured pixels that fall into each target pixel, and how many they are."""
    taken, shape = valid & (cells.of >= 0), cells.bare.shape
    counts = np.bincount(cells.of[taken], minlength=cells.bare.size).reshape(shape).astype(np.float64)
    sums = np.bincount(cells.of[taken], band[taken].astype(np.float64), minlength=cells.bare.size).reshape(shape)
    return np.divide(sums, counts, out=np.zeros(shape), where=counts > 0), counts


def _zeroed(band: Raster, valid: NDArray[np.bool_]) -> Iterator[Floats]:
    yield np.where(valid, band, 0).astype(np.float64)
    yield valid.astype(np.float64)
