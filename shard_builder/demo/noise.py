"""Random fields on a pixel grid, made of elementwise numpy operations only.

No matrix products and no FFT: those may round differently with another number of threads, and a demo archive must
come out with the same bytes every time. Distances and sizes are in pixels; every field is float32 [H,W].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Shape = tuple[int, int]

_SPLINE_STD = 0.479
"""Standard deviation of a cubic B-spline surface over a lattice of independent unit normals."""


def value_noise(rng: np.random.Generator, shape: Shape, cell_px: float) -> FloatArray:
    """Return smooth noise [H,W] of about zero mean and unit deviation with features of `cell_px` pixels."""
    row, row_weights = _spline(rng, shape[0], cell_px)
    column, column_weights = _spline(rng, shape[1], cell_px)
    lattice = rng.standard_normal((int(row[-1]) + 4, int(column[-1]) + 4), dtype=np.float32)
    rows = np.zeros((shape[0], lattice.shape[1]), np.float32)
    for tap in range(4):
        rows += row_weights[tap][:, None] * lattice[row + tap]
    out = np.zeros(shape, np.float32)
    for tap in range(4):
        out += column_weights[tap] * np.take(rows, column + tap, axis=1)
    out /= np.float32(_SPLINE_STD)
    return out


def fractal(
    rng: np.random.Generator, shape: Shape, cell_px: float, octaves: int = 4, persistence: float = 0.5
) -> FloatArray:
    """Return a sum [H,W] of value noises, each octave at half the size; unit deviation; never finer than 2 px."""
    out = np.zeros(shape, np.float32)
    amplitude, power = 1.0, 0.0
    for _ in range(octaves):
        out += np.float32(amplitude) * value_noise(rng, shape, cell_px)
        power += amplitude**2
        amplitude *= persistence
        cell_px /= 2
        if cell_px < 2:
            break
    out /= np.float32(np.sqrt(power))
    return out


def _spline(rng: np.random.Generator, length: int, cell_px: float) -> tuple[IntArray, FloatArray]:
    """Return the first lattice index [length] and the four cubic B-spline weights [4,length] of each pixel."""
    position = (np.arange(length) / cell_px + rng.random()).astype(np.float64)
    index = np.floor(position).astype(np.int64)
    t = (position - index).astype(np.float32)
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / np.float32(6)
    return index, weights.astype(np.float32)


def axes(shape: Shape) -> tuple[FloatArray, FloatArray]:
    """Return row [H,1] and column [1,W] pixel coordinates, which broadcast to the grid."""
    return np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]


def rotated(shape: Shape, angle: float | FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return pixel coordinates (u, v), each [H,W], in a frame turned by `angle` radians (one or one per pixel)."""
    y, x = axes(shape)
    turn = np.asarray(angle, np.float32)
    cosine, sine = np.cos(turn), np.sin(turn)
    return np.asarray(x * cosine + y * sine), np.asarray(y * cosine - x * sine)


def hash_uniform(salt: int, *values: IntArray) -> FloatArray:
    """Return numbers in [0, 1) that depend on the integers `values` alone: one throw of a die per object."""
    state = np.full(np.broadcast_shapes(*(value.shape for value in values)), salt & 0xFFFFFFFF, np.uint32)
    for value in values:
        state = (state ^ value.astype(np.uint32)) * np.uint32(0x9E3779B1)
        state ^= state >> np.uint32(16)
        state = state * np.uint32(0x7FEB352D)
        state ^= state >> np.uint32(15)
    out: FloatArray = (state >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)
    return out


@dataclass(frozen=True)
class Cells:
    """A jittered grid of points and, for every pixel, its nearest one."""

    ids: IntArray
    """[H,W]: identity of the nearest point."""
    other: IntArray
    """[H,W]: identity of the second nearest point."""
    distance: FloatArray
    """[H,W]: distance to the nearest point, in pixels."""
    border: FloatArray
    """[H,W]: distance to the border with the second nearest point's cell, in pixels."""


def cells(rng: np.random.Generator, shape: Shape, cell_px: float, jitter: float = 0.8) -> Cells:
    """Return the Voronoi cells of one random point per square of `cell_px`."""
    offset = rng.random(2)
    y, x = (axis / np.float32(cell_px) + np.float32(shift) for axis, shift in zip(axes(shape), offset, strict=True))
    row, column = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)  # [H,1], [1,W]
    points = (0.5 + jitter * (rng.random((row[-1, 0] + 3, column[0, -1] + 3, 2)) - 0.5)).astype(np.float32)
    near = np.full(shape, np.inf, np.float32)
    second = near.copy()
    ids, other = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for down in range(3):
        for right in range(3):
            point = points[row + down, column + right]  # [H,W,2]
            dy = point[..., 0] + (row + down - 1) - y
            dx = point[..., 1] + (column + right - 1) - x
            squared = dx * dx + dy * dy
            identity = (row + down) * 4096 + column + right
            nearest, runner_up = squared < near, squared < second
            other = np.where(nearest, ids, np.where(runner_up, identity, other))
            second = np.where(nearest, near, np.where(runner_up, squared, second))
            ids = np.where(nearest, identity, ids)
            near = np.minimum(near, squared)
    distance: FloatArray = np.sqrt(near) * np.float32(cell_px)
    border: FloatArray = (np.sqrt(second) * np.float32(cell_px) - distance) / np.float32(2)
    return Cells(ids, other, distance, border)


def slope(height: FloatArray, gsd_m: float) -> tuple[FloatArray, FloatArray]:
    """Return the rise per metre of `height` [H,W] in metres towards the south and towards the east."""
    south, east = (np.asarray(rise, np.float32) for rise in np.gradient(height, gsd_m))
    return south, east
