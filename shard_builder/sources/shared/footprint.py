"""Where scenes overlap, in the pixels of one of them, and what a window of one is in another."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ItemError
from shard_builder.archives import MemberRef
from shard_builder.planned import Grid, PlannedRaster, Resampling, Window
from shard_builder.rasters.georeference import Affine, Georeference, same_crs, to_pixels
from shard_builder.rasters.resample import mean_or_bilinear

Align = Literal["grid", "own"]

EDGE_POINTS = 21
"""The edges of a scene are curves in another coordinate system."""
SLACK = 0.5
"""Pixels by which a scene may end before the edge of a tile: footprints that agree to half a pixel are equal."""


@dataclass(frozen=True)
class Scene:
    """A raster that is too large for one sample."""

    refs: tuple[MemberRef, ...]
    height: int
    width: int
    georeference: Georeference | None
    dates: tuple[str, ...] = ()
    parts: tuple[Scene, ...] = ()
    """The files of bands or dates that it is put together from, a scene each; empty for a single file."""

    @property
    def grid(self) -> Georeference | None:
        """Its georeference, where that is a grid."""
        return self.georeference if self.georeference and self.georeference.transform is not None else None

    @property
    def source_file(self) -> str:
        """How messages name it."""
        return self.refs[0].source_file

    @property
    def place(self) -> Georeference:
        """Its georeference; without a grid, all scenes of a key are taken to cover the same square."""
        if self.georeference is not None and self.georeference.transform is not None:
            return self.georeference
        return Georeference(None, (1 / self.width, 0, 0, 0, 1 / self.height, 0))

    @property
    def axes(self) -> Affine:
        """The transform of its place."""
        assert self.place.transform is not None
        return self.place.transform

    @property
    def described(self) -> str:
        """How messages say what its place is known by."""
        return self.georeference.described if self.georeference else "no georeference"


def overlap(home: Scene, others: Iterable[Scene]) -> Window:
    """Return the part of `home`, in its pixels, that all other scenes cover.

    Raises ItemError when there is none, and for scenes of which some have a georeference and some have not.
    """
    others = tuple(others)
    _check_comparable((home, *others))
    top, left, bottom, right = 0.0, 0.0, float(home.height), float(home.width)
    for other in others:
        rows, columns = _inner(other, home)
        top, bottom = max(top, rows[0]), min(bottom, rows[1])
        left, right = max(left, columns[0]), min(right, columns[1])
    row, column = math.ceil(top - SLACK), math.ceil(left - SLACK)
    height, width = math.floor(bottom + SLACK) - row, math.floor(right + SLACK) - column
    if height < 1 or width < 1:
        names = ", ".join(dict.fromkeys(scene.source_file for scene in (home, *others)))
        raise ItemError(f"{names} have no part in common, or are rotated against each other; expected one place")
    return row, column, height, width


def _check_comparable(scenes: tuple[Scene, ...]) -> None:
    """Raise ItemError for scenes of which it is not known whether they lie over each other, or only that of some.

    Without any georeference scenes of a key are taken to cover the same ground; without a coordinate reference system
    their numbers are compared; ground control points are compared with themselves only.
    """
    home = scenes[0]
    for scene in scenes[1:]:
        first, second = home.georeference, scene.georeference
        if (first is None) != (second is None):
            odd = home if first is None else scene
            raise ItemError(f"{odd.source_file} has no georeference, and other scenes of its place have one")
        if first is None or second is None:
            continue
        if first.transform is None or second.transform is None:
            if first != second or (home.height, home.width) != (scene.height, scene.width):
                raise ItemError(
                    f"{home.source_file} ({home.described}) and {scene.source_file} ({scene.described}) have no grids "
                    "to compare. Bring them to one, e.g. gdalwarp -tps -t_srs EPSG:32633"
                )
        elif (first.crs is None) != (second.crs is None):
            odd = home if first.crs is None else scene
            raise ItemError(
                f"{odd.source_file} has a transform and no usable coordinate reference system, and other scenes of its "
                "place have one. Give it one, e.g. gdal_edit.py -a_srs EPSG:32633"
            )


def aligned(
    window: Window, home: Scene, scene: Scene, align: Align, how: Resampling | Literal["mean"]
) -> PlannedRaster:
    """Return what a sample gets of `scene` for a window of `home`.

    "grid": in the pixels of `home`, resampled where those of `scene` are not the same up to whole steps; by "mean" is
    average where `scene` is finer and bilinear where it is not. "own": its own pixels. Raises ItemError where the two
    cannot be brought together.
    """
    if scene.parts:
        return _in_parts(window, home, scene, align, how)
    if scene is home:
        return PlannedRaster(scene.refs, window, scene.dates)
    if align == "own":
        return PlannedRaster(scene.refs, scaled(window, home, scene), scene.dates)
    same = shifted(window, home, scene)
    if same is not None:
        return PlannedRaster(scene.refs, same, scene.dates)
    if home.georeference is None:
        raise ItemError(
            f"{scene.source_file} is {scene.height} x {scene.width} px and {home.source_file} {home.height} x "
            f"{home.width}; without georeferences they cannot be brought to one grid. Set align=own"
        )
    grid = Grid(home.georeference, home.height, home.width)
    if how == "mean":
        how = mean_or_bilinear(grid, scene.place)
    return PlannedRaster(scene.refs, window, scene.dates, grid, how)


def _in_parts(
    window: Window, home: Scene, scene: Scene, align: Align, how: Resampling | Literal["mean"]
) -> PlannedRaster:
    """Return what a sample gets of a scene of several files: always by a grid, as each may have pixels of its own."""
    if align == "own" and scene is not home:
        window, home = scaled(window, home, scene), scene
    if home.grid is None:
        if (scene.height, scene.width) != (home.height, home.width):
            raise ItemError(
                f"{scene.source_file} is {scene.height} x {scene.width} px and {home.source_file} {home.height} x "
                f"{home.width}; without georeferences they cannot be brought to one grid. Set align=own"
            )
        return PlannedRaster(scene.refs, window, scene.dates)
    grid = Grid(home.grid, home.height, home.width)
    return PlannedRaster(
        scene.refs, window, scene.dates, grid, mean_or_bilinear(grid, scene.place) if how == "mean" else how
    )


def shifted(window: Window, home: Scene, other: Scene) -> Window | None:
    """Return the window of `other` whose pixels are those of a window of `home`, or None where the grids differ."""
    a, b = home.axes, other.axes
    pixel = math.hypot(a[0], a[3])
    same_axes = all(math.isclose(a[i], b[i], rel_tol=0, abs_tol=1e-6 * pixel) for i in (0, 1, 3, 4))
    if not same_crs(home.place.crs, other.place.crs) or not same_axes:
        return None
    row, column, height, width = window
    rows, columns = _to_pixels(np.array([row], float), np.array([column], float), home, other)
    near = round(float(rows[0])), round(float(columns[0]))
    if abs(rows[0] - near[0]) > 1e-3 or abs(columns[0] - near[1]) > 1e-3:
        return None
    found = (*near, height, width)
    return found if _inside(found, other) else None


def scaled(window: Window, home: Scene, other: Scene) -> Window:
    """Return the window of `other`, in its own pixels, that covers what a window of `home` does, to half a pixel.

    Every window of one size has one size there. Raises ItemError when the two do not have parallel axes, or when no
    window of that size lies so.
    """
    row, column, height, width = window
    rows, columns = _to_pixels(
        np.array([row, row + height, row], float), np.array([column, column, column + width], float), home, other
    )
    size = round(float(rows[1] - rows[0])), round(float(columns[2] - columns[0]))
    tilt = max(abs(rows[2] - rows[0]), abs(columns[1] - columns[0]))
    if not same_crs(home.place.crs, other.place.crs) or min(size) < 1 or tilt > SLACK:
        raise ItemError(
            f"{home.source_file} ({home.described}) and {other.source_file} ({other.described}) have axes "
            "that are not parallel: align=own cannot cut them, align=grid can"
        )
    start = [
        min(max(0, round(float(begin))), length - extent)
        for begin, extent, length in zip((rows[0], columns[0]), size, (other.height, other.width), strict=True)
    ]
    if min(start) < 0:
        raise ItemError(f"{other.source_file} is smaller than a tile of {home.source_file}")
    ends = (start[0], rows[0]), (start[1], columns[0]), (start[0] + size[0], rows[1]), (start[1] + size[1], columns[2])
    if max(abs(float(there) - own) for own, there in ends) > SLACK + 1e-3:
        raise ItemError(
            f"a tile of {home.source_file} at row {row}, column {column} is {rows[1] - rows[0]:.2f} x "
            f"{columns[2] - columns[0]:.2f} px of {other.source_file} and does not fit its pixels. Choose tile_px and "
            "stride_px that are whole pixels of both, or align=grid"
        )
    return start[0], start[1], size[0], size[1]


def _inside(window: Window, scene: Scene) -> bool:
    row, column, height, width = window
    return row >= 0 and column >= 0 and row + height <= scene.height and column + width <= scene.width


def _inner(other: Scene, home: Scene) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the rows and the columns of `home` between which `other` covers all of it."""
    along = np.linspace(0, 1, EDGE_POINTS)
    start, end = np.zeros(EDGE_POINTS), np.ones(EDGE_POINTS)
    first, last = (_to_pixels(side * other.height, along * other.width, other, home)[0] for side in (start, end))
    rows = _between(first, last)
    first, last = (_to_pixels(along * other.height, side * other.width, other, home)[1] for side in (start, end))
    return rows, _between(first, last)


def _between(first: NDArray[np.float64], last: NDArray[np.float64]) -> tuple[float, float]:
    low, high = (first, last) if first.mean() < last.mean() else (last, first)
    found = float(low.max()), float(high.min())
    return found if all(map(math.isfinite, found)) else (0.0, 0.0)


def _to_pixels(
    rows: NDArray[np.float64], columns: NDArray[np.float64], scene: Scene, home: Scene
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return to_pixels(rows, columns, scene.place, home.place)
