"""Histograms of bands, counted sample by sample in bins that the manifest's statistics fix beforehand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.codec import Raster
from gfm_pipeline.shards.stats import BandStats
from shard_builder.collection.pixels import valid_pixels

BINS = 128
SPREAD = 4.0
"""Bins reach this many standard deviations from the mean, and no further than the extremes."""


@dataclass
class Histogram:
    """Pixels of one band per bin."""

    band: str
    edges: NDArray[np.floating]
    counts: NDArray[np.int64]


class SensorHistograms:
    """The histograms of all bands of a sensor."""

    def __init__(self, spec: SensorSpec, statistics: list[BandStats]) -> None:
        self.spec = spec
        self.bands = [_empty(spec, band) for band in statistics]

    def add(self, raster: Raster) -> None:
        """Count the measured pixels of a raster [C,H,W] or series [T,C,H,W]."""
        valid = np.moveaxis(valid_pixels(raster, self.spec), -3, 0)
        for histogram, pixels, ok in zip(self.bands, np.moveaxis(raster, -3, 0), valid, strict=True):
            histogram.counts += np.histogram(pixels[ok], histogram.edges)[0]


def _empty(spec: SensorSpec, band: BandStats) -> Histogram:
    std = band.std if band.count else 0.0
    low, high = max(band.min, band.mean - SPREAD * std), min(band.max, band.mean + SPREAD * std)
    if np.dtype(spec.dtype).kind in "iu":  # bins of whole numbers: others would hold one value more, or one less
        first, last = math.floor(low), math.ceil(high)
        step = max(1, math.ceil((last - first + 1) / BINS))
        edges = np.arange(first, last + step + 1, step) - 0.5
    else:
        width = (high - low) / BINS if high > low else 1.0 / BINS
        edges = low + np.arange(BINS + 1) * width
    return Histogram(band.band, edges, np.zeros(len(edges) - 1, np.int64))
