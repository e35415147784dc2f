"""Per-band statistics that merge exactly enough to be the same for any split of the work.

Each shard measures its own moments in float64; the manifest merges them in the order of the shards, which the plan
fixes, so any executor with any number of workers writes the same digits. Merging follows Chan, Golub and LeVeque,
"Updating formulae and a pairwise algorithm for computing sample variances" (1979).

Integers of up to 16 bits are summed without any rounding: double precision holds every partial sum. Other pixels are
summed by numpy alone, whose order of additions is fixed; that of a BLAS depends on the machine and its threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.config import StrictModel
from gfm_pipeline.shards.codec import Raster


class BandStats(StrictModel):
    """Moments and range of one band over the pixels that were measured, in the sensor's units; zeros for none."""

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


def measure(raster: Raster, bands: tuple[str, ...], measured: NDArray[np.bool_] | None = None) -> list[BandStats]:
    """Return the statistics of each band of a raster [C,H,W] or series [T,C,H,W].

    `measured`, shaped like the raster, tells which pixels count; without it all of them do, and must be finite.
    """
    rows = np.moveaxis(raster, -3, 0).reshape(len(bands), -1)
    if measured is None:
        return [_measure_band(band, row) for band, row in zip(bands, rows, strict=True)]
    counted = np.moveaxis(measured, -3, 0).reshape(len(bands), -1)
    return [_measure_band(band, row[ok]) for band, row, ok in zip(bands, rows, counted, strict=True)]


def _measure_band(band: str, pixels: NDArray[np.generic]) -> BandStats:
    if not pixels.size:
        return BandStats(band=band, count=0, mean=0.0, m2=0.0, min=0.0, max=0.0)
    exact = pixels.dtype.kind in "iu" and pixels.dtype.itemsize <= 2
    mean, m2 = _exact_moments(pixels) if exact else _moments(pixels)
    return BandStats(band=band, count=pixels.size, mean=mean, m2=m2, min=float(pixels.min()), max=float(pixels.max()))


def _exact_moments(pixels: NDArray[np.generic]) -> tuple[float, float]:
    """Return mean and sum of squared differences from it of integers of up to 16 bits, correctly rounded."""
    if pixels.dtype.itemsize == 1:
        return _exact_moments_of_bytes(pixels)
    total = squares = 0
    for start in range(0, pixels.size, _EXACT_PIXELS):
        values = pixels[start : start + _EXACT_PIXELS].astype(np.float64)
        total += int(values.dot(_ones(values.size)))
        squares += int(values.dot(values))
    return total / pixels.size, (pixels.size * squares - total * total) / pixels.size


def _exact_moments_of_bytes(pixels: NDArray[np.generic]) -> tuple[float, float]:
    """As above, of integers of 8 bits: in rows whose sums of squares are exact in 32-bit floats, which is faster."""
    whole = pixels.size // _EXACT_BYTES * _EXACT_BYTES
    rows = pixels[:whole].reshape(-1, _EXACT_BYTES).astype(np.float32)
    rest = pixels[whole:].astype(np.int64)
    ones = np.ones(_EXACT_BYTES, np.float32)
    total = int(np.vecdot(rows, ones).sum(dtype=np.float64)) + int(rest.sum())
    squares = int(np.vecdot(rows, rows).sum(dtype=np.float64)) + int((rest * rest).sum())
    return total / pixels.size, (pixels.size * squares - total * total) / pixels.size


def _moments(pixels: NDArray[np.generic]) -> tuple[float, float]:
    values = pixels.astype(np.float64)
    mean = float(values.mean())
    values -= mean
    values *= values
    return mean, float(values.sum())


_EXACT_BYTES = 2**8
"""The squares of so many 8-bit integers sum to less than 2**24."""
_EXACT_PIXELS = 2**13
"""The squares of so many 16-bit integers sum to less than 2**53, and no BLAS starts threads for so few.

Threads of a BLAS wait for each other in loops: with a process for every core they made a build three times slower.
"""


@lru_cache(maxsize=4)
def _ones(count: int) -> NDArray[np.float64]:
    return np.ones(count)


def merge(parts: Iterable[list[BandStats]]) -> list[BandStats]:
    """Return the statistics of the union of `parts`, merged in the order given; an empty iterable gives []."""
    merged: list[BandStats] = []
    for part in parts:
        merged = [_merge_two(a, b) for a, b in zip(merged, part, strict=True)] if merged else list(part)
    return merged


def _merge_two(a: BandStats, b: BandStats) -> BandStats:
    if a.band != b.band:
        raise ValueError(f"statistics of band {a.band} cannot merge with those of band {b.band}.")
    if not a.count or not b.count:
        return a if a.count else b
    count = a.count + b.count
    delta = b.mean - a.mean
    return BandStats(
        band=a.band,
        count=count,
        mean=a.mean + delta * b.count / count,
        m2=a.m2 + b.m2 + delta * delta * a.count * b.count / count,
        min=min(a.min, b.min),
        max=max(a.max, b.max),
    )
