"""Footprints: rings of longitude and latitude on a sphere, as samples record them.

A ring is a list of corners (longitude, latitude) in degrees, the first not repeated. Between two corners it takes the
shorter way round the Earth, so that longitudes jump by 360 degrees where it crosses the antimeridian. A ring that goes
round the Earth encloses a pole; whoever records one leads it over the pole, and it is closed on a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ring = Sequence[tuple[float, float]]


def unwrapped(ring: Ring) -> NDArray[np.float64]:
    """Return the corners [N,2] of a ring with longitudes that do not jump: they may lie beyond 180 degrees.

    One that goes round the Earth is led over the pole of its own hemisphere, [N+3,2].
    """
    corners = np.array(ring, dtype=np.float64)
    steps = np.diff(corners[:, 0], append=corners[0, 0])
    steps -= 360 * np.round(steps / 360)  # a step of 180 degrees stays as it is
    corners[1:, 0] = corners[0, 0] + np.cumsum(steps[:-1])
    round_trip = float(steps.sum())
    if abs(round_trip) < 180:
        return corners
    start, pole = corners[0], np.copysign(90.0, corners[:, 1].mean())
    end = start[0] + round_trip
    return np.vstack([corners, [end, start[1]], [end, pole], [start[0], pole]])


def bounds(ring: Ring) -> tuple[float, float, float, float]:
    """Return (west, south, east, north) in degrees; the west lies beyond the east where a ring crosses 180 degrees.

    -180 and 180 for a ring that has all longitudes.
    """
    corners = unwrapped(ring)
    (west, south), (east, north) = corners.min(axis=0), corners.max(axis=0)
    if east - west >= 360:
        return -180.0, float(south), 180.0, float(north)
    if not (west >= -180 and east <= 180):
        west, east = (west + 180) % 360 - 180, (east + 180) % 360 - 180
        east = east if east != -180 else 180.0
    return float(west), float(south), float(east), float(north)


def middle(ring: Ring) -> tuple[float, float]:
    """Return the mean (longitude, latitude) of a ring's corners, in degrees; near 180, not near 0, for one there."""
    longitude, latitude = unwrapped(ring).mean(axis=0)
    return float((longitude + 180) % 360 - 180), float(latitude)
