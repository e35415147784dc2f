"""Per-band statistics that merge exactly enough to be the same for any split of the work.

Each shard measures its own moments in float64; the manifest merges them in the order of the shards, which the plan
fixes, so any executor with any number of workers writes the same digits. Merging follows Chan, Golub and LeVeque,
"Updating formulae and a pairwise algorithm for computing sample variances" (1979).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gfm_pipeline.config import StrictModel
from gfm_pipeline.shards.codec import Raster


class BandStats(StrictModel):
    """Moments and range of one band over all of its finite pixels, in the sensor's units."""

    band: str
    count: int
    mean: float
    m2: float
    """Sum of squared differences from the mean."""
    min: float
    max: float

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return float(np.sqrt(self.m2 / self.count)) if self.count else float("nan")


def measure(raster: Raster, bands: tuple[str, ...]) -> list[BandStats]:
    """Return the statistics of each band of a raster [C,H,W] or series [T,C,H,W]; every pixel must be finite."""
    channels_first = np.moveaxis(raster, -3, 0).reshape(len(bands), -1)
    low, high = channels_first.min(axis=1), channels_first.max(axis=1)
    values = channels_first.astype(np.float64)
    means = values.mean(axis=1)
    values -= means[:, None]
    m2 = np.square(values, out=values).sum(axis=1)
    return [
        BandStats(
            band=band,
            count=channels_first.shape[1],
            mean=float(means[i]),
            m2=float(m2[i]),
            min=float(low[i]),
            max=float(high[i]),
        )
        for i, band in enumerate(bands)
    ]


def merge(parts: Iterable[list[BandStats]]) -> list[BandStats]:
    """Return the statistics of the union of `parts`, merged in the order given; an empty iterable gives []."""
    merged: list[BandStats] = []
    for part in parts:
        merged = [_merge_two(a, b) for a, b in zip(merged, part, strict=True)] if merged else list(part)
    return merged


def _merge_two(a: BandStats, b: BandStats) -> BandStats:
    if a.band != b.band:
        raise ValueError(f"statistics of band {a.band} cannot merge with those of band {b.band}.")
    count = a.count + b.count
    if count == 0:
        return a
    delta = b.mean - a.mean
    return BandStats(
        band=a.band,
        count=count,
        mean=a.mean + delta * b.count / count,
        m2=a.m2 + b.m2 + delta * delta * a.count * b.count / count,
        min=min(a.min, b.min),
        max=max(a.max, b.max),
    )
