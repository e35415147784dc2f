"""A raster in the pixels of another grid, by GDAL's resampling.

The methods are GDAL's, by its names (`nearest`, `bilinear`, `average` and so on), and so is the way it interpolates
coordinates between the ends of a row of a block. What was not
measured (NaN, a nodata value, a mask) has no weight, band by band; a target pixel that gets nothing from the raster is
masked. Integers are rounded and clipped to their type; one that would be a nodata value by chance becomes its
neighbour. Pixels do not depend on the window that is read: the grid is worked on in blocks of its own.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.sensors.missing import is_declared
from gfm_pipeline.shards.codec import Raster
from shard_builder.planned import Grid, PlannedRaster, Resampling, Window
from shard_builder.rasters.gdal import gdal, gdal_reason
from shard_builder.rasters.georeference import Georeference, to_pixels
from shard_builder.rasters.raster import Decoded, OpenRaster, nodata_of_bands

BLOCK = 128
"""Rows and columns of the grid that are resampled at once."""
SOURCE_VALUES = 2**23
"""Numbers of the source that are read at once: where one target pixel covers many, the block is halved."""
SAMPLED = 17
"""Points along a side of a block that are looked up in the source."""
FINER = 2.0
"""Pixels of the source to one of the grid, at the middle of the grid, from which on a mean is better than bilinear."""
_RADIUS = {"bilinear": 1, "cubic": 2, "lanczos": 3}
ROUNDING = 1e-6
"""Less than a half by so little is rounded up too: what is a half but for rounding does not depend on the block."""
_EXACT_BITS = 53

Floats = NDArray[np.float64]


def resample(source: OpenRaster, planned: PlannedRaster, spec: SensorSpec) -> Decoded:
    """Return a window of the planned grid with the pixels of `source`, [C,h,w] or [T,C,h,w] in the source's type.

    Its mask says, band by band, which pixels the source has measured; they hold a nodata value elsewhere. Raises
    ItemError for a source without a grid of its own, and for types that GDAL does not resample.
    """
    grid, place = planned.grid, source.facts.georeference
    assert grid is not None
    if place is None or place.transform is None:
        raise ItemError(f"{planned.source_file} has no georeference: it cannot be brought to the grid of its sample.")
    if source.dtype.kind not in "uif" or (source.dtype.kind in "ui" and source.dtype.itemsize * 8 > _EXACT_BITS):
        raise ItemError(f"{planned.source_file} has {source.dtype} pixels, which are not resampled. Set align=own.")
    window = planned.window or (0, 0, grid.height, grid.width)
    work = _Work(source, place, grid, planned, spec)
    values = work.window(window)
    raster, mask = _stored(values, source, spec)
    facts = replace(
        work.facts,
        georeference=grid.georeference.window(*window[:2]),
        rules=(*work.facts.rules, f"{spec.name}: resampled to the common grid ({work.how})"),
    )
    return Decoded(raster, facts, None, None if mask.all() else mask)


def mean_or_bilinear(grid: Grid, place: Georeference) -> Resampling:
    """Return how a raster comes to a grid by default: by the mean where it is finer, else `bilinear`."""
    rows, columns = grid.height / 2 + np.array([0, 1, 0]), grid.width / 2 + np.array([0, 0, 1])
    down, right = to_pixels(rows, columns, grid.georeference, place)
    area = (down[1] - down[0]) * (right[2] - right[0]) - (down[2] - down[0]) * (right[1] - right[0])
    return "average" if abs(float(area)) * (1 + 1e-9) >= FINER else "bilinear"


class _Work:
    """One window on its way to its grid."""

    def __init__(
        self, source: OpenRaster, place: Georeference, grid: Grid, planned: PlannedRaster, spec: SensorSpec
    ) -> None:
        self.source = source
        self.place = place
        self.target = grid.georeference
        self.grid = grid
        self.how = planned.resampling
        self.where = planned.source_file
        self.nodata = spec.nodata
        self.facts = source.facts
        """As the last part of the source was read."""
        self.scale = self._scale()
        """Pixels of the grid to one of the source, down and right, at the middle of the grid: GDAL would take those of
        each part that it works on, and kernels would differ between parts."""

    def window(self, window: Window) -> Floats:
        """Return the values [..., h, w] of a window of the grid, NaN where the source has none."""
        row, column, height, width = window
        found: Floats | None = None
        for down in range(row // BLOCK * BLOCK, row + height, BLOCK):
            for right in range(column // BLOCK * BLOCK, column + width, BLOCK):
                block = self._block((down, right, BLOCK, BLOCK))
                if found is None:
                    found = np.full((*block.shape[:-2], height, width), np.nan)
                top, left = max(down, row), max(right, column)
                bottom, end = min(down + BLOCK, row + height), min(right + BLOCK, column + width)
                part = block[..., top - down : bottom - down, left - right : end - right]
                found[..., top - row : bottom - row, left - column : end - column] = part
        assert found is not None
        return found

    def _block(self, window: Window) -> Floats:
        row, column, height, width = window
        part = self._needed(window)
        if part[2] * part[3] * self.source.shape[0] > SOURCE_VALUES and max(height, width) > 1:
            down, right = -(-height // 2), -(-width // 2)
            rows = [(row, down), (row + down, height - down)] if height > 1 else [(row, height)]
            columns = [(column, right), (column + right, width - right)] if width > 1 else [(column, width)]
            parts = [[self._block((r, c, h, w)) for c, w in columns] for r, h in rows]
            return np.concatenate([np.concatenate(across, axis=-1) for across in parts], axis=-2)
        decoded = self.source.read(part)
        self.facts = decoded.facts
        values = _measured(decoded, self.source, self.nodata)
        bands = values.reshape(-1, *values.shape[-2:])
        warped = self._warp(bands, self.place.window(*part[:2]), self.target.window(row, column), (height, width))
        return warped.reshape(*values.shape[:-2], height, width)

    def _warp(self, bands: Floats, place: Georeference, target: Georeference, size: tuple[int, int]) -> Floats:
        from rasterio.crs import CRS
        from rasterio.transform import Affine
        from rasterio.warp import Resampling as Gdal
        from rasterio.warp import reproject

        assert place.transform is not None
        assert target.transform is not None
        one = target.crs or place.crs or "EPSG:3857"  # numbers of one system, whichever it is
        found = np.full((len(bands), *size), np.nan)
        try:
            with gdal():
                reproject(
                    bands,
                    found,
                    src_transform=Affine(*place.transform),
                    src_crs=CRS.from_user_input(place.crs or one),
                    src_nodata=np.nan,
                    dst_transform=Affine(*target.transform),
                    dst_crs=CRS.from_user_input(one),
                    dst_nodata=np.nan,
                    resampling=Gdal[self.how],
                    num_threads=1,
                    XSCALE=self.scale[1],
                    YSCALE=self.scale[0],
                    SAMPLE_GRID="YES",
                    UNIFIED_SRC_NODATA="NO",
                )
        except Exception as error:
            raise ItemError(f"{self.where} cannot be resampled: {gdal_reason(error)}") from error
        return found

    def _scale(self) -> tuple[float, float]:
        rows, columns = self.grid.height / 2 + np.array([0, 1, 0]), self.grid.width / 2 + np.array([0, 0, 1])
        down, right = to_pixels(rows, columns, self.target, self.place)
        sides = np.hypot(down[1] - down[0], down[2] - down[0]), np.hypot(right[1] - right[0], right[2] - right[0])
        return tuple(1 / float(side) if np.isfinite(side) and side > 0 else 1.0 for side in sides)  # type: ignore[return-value]

    def _needed(self, window: Window) -> Window:
        """Return the window of the source that a window of the grid needs; one pixel where it needs none."""
        row, column, height, width = window
        along = np.linspace(0, 1, SAMPLED)
        points = np.meshgrid(row + along * height, column + along * width, indexing="ij")
        places = to_pixels(points[0].ravel(), points[1].ravel(), self.target, self.place)
        margins = (2 + math.ceil(_RADIUS.get(self.how, 1) * max(1.0, 1 / scale)) for scale in self.scale)
        (top, tall), (left, wide) = (
            _reach(at, length, margin)
            for at, length, margin in zip(places, self.source.shape[1:], margins, strict=True)
        )
        return top, left, tall, wide


def _measured(decoded: Decoded, source: OpenRaster, nodata: float | None) -> Floats:
    """Return pixels as float64, NaN where the file or the sensor's nodata value says that nothing was measured."""
    raster = decoded.raster
    values = raster.astype(np.float64)
    for band, value in enumerate(nodata_of_bands(source.facts.nodata, raster.shape[-3])):
        for missing in (value, nodata):
            if missing is None:
                continue
            values[..., band, :, :][is_declared(raster[..., band, :, :], missing)] = np.nan
    if decoded.facts.alpha is not None:
        clear = raster[..., decoded.facts.alpha, :, :] == 0
        for band in set(range(raster.shape[-3])) - {decoded.facts.alpha}:
            values[..., band, :, :][clear] = np.nan
    if decoded.mask is not None:
        values[~np.broadcast_to(decoded.mask, values.shape)] = np.nan
    return values


def _stored(values: Floats, source: OpenRaster, spec: SensorSpec) -> tuple[Raster, NDArray[np.bool_]]:
    """Return values in the type of the source, with a nodata value where there are none, and where there are some."""
    mask = ~np.isnan(values)
    dtype, declared = source.dtype, nodata_of_bands(source.facts.nodata, values.shape[-3])
    if dtype.kind in "ui":
        limits = np.iinfo(str(dtype))
        values = np.floor(values + (0.5 + ROUNDING)).clip(limits.min, limits.max)
    for band, value in enumerate(declared):
        part, there = values[..., band, :, :], mask[..., band, :, :]
        if dtype.kind in "ui":
            for taken in (spec.nodata, value):
                if taken is not None:
                    part[there & (part == taken)] += 1 if taken < limits.max else -1
        fill = spec.nodata if spec.nodata is not None else value
        part[~there] = (math.nan if dtype.kind == "f" else 0) if fill is None or math.isnan(fill) else fill
    with np.errstate(invalid="ignore"):
        return values.astype(dtype), mask


def _reach(at: Floats, length: int, margin: int) -> tuple[int, int]:
    """Return (start, length) of the pixels from the first to the last place, with a margin, that are there."""
    at = at[np.isfinite(at)]
    if not at.size:
        return 0, 1
    start = min(max(0, math.floor(at.min()) - margin), length - 1)
    return start, max(1, min(length, math.ceil(at.max()) + margin) - start)
