"""Which dates of a series go into a batch, when samples have different numbers of them.

The draw is named like all others by (seed, stream, pass, sample, sensor), so that a sample of a pass shows the same
dates in any rank, thread and batch position, and after any resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.config import TimeConfig
from gfm_pipeline.data.seeding import permutation
from gfm_pipeline.shards.footprint import bounds

NO_DAY = int(np.iinfo(np.int64).min)
"""In place of a day that is not known, and of padding."""
_EPOCH = date(1970, 1, 1).toordinal()


def draw_frames(config: TimeConfig, available: int, *name: int) -> NDArray[np.int64]:
    """Return which of `available` dates to take, in the order of time: `config.frames`, or fewer to be padded.

    `name` are integers, see `seeding`.
    """
    if available > config.frames:
        return np.sort(permutation(available, *name)[: config.frames])
    if config.short == "repeat":
        return np.arange(config.frames) * available // config.frames
    return np.arange(available)


def days_of(dates: Sequence[str], frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the days since 1970-01-01 of the chosen `frames`; NO_DAY of all when the archive tells no dates.

    Raises ValueError for a date that is not ISO 8601.
    """
    if not dates:
        return np.full(len(frames), NO_DAY, dtype=np.int64)
    return np.array([date.fromisoformat(dates[frame][:10]).toordinal() - _EPOCH for frame in frames], dtype=np.int64)


def bounds_of(footprint: Sequence[tuple[float, float]] | None) -> NDArray[np.float64]:
    """Return (west, south, east, north) [4] in degrees of a ring (longitude, latitude); NaN without a footprint.

    The west lies beyond the east where the footprint crosses 180 degrees; one of all longitudes has -180 and 180.
    """
    return np.array(bounds(footprint)) if footprint else np.full(4, np.nan)
