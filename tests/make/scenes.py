"""Somebody's own large scenes: a panchromatic GeoTIFF, a coarser zarr that begins elsewhere, and a map of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.make.archives import Truth, tiff, utm, zipped
from tests.make.folder import hdf5_file, zarr_zip

OPTIONS: dict[str, Any] = {
    "archives": True,
    "align": "own",
    "grid": "pan",
    "sensors": {
        "pan": {"files": "scenes/{key}_pan.tif", "bands": ["P"], "dtype": "uint16", "units": "digital number"},
        "ms": {
            "files": "scenes/{key}_{date}_ms.zarr.zip",
            "dataset": "bands",
            "bands": ["B", "G", "R"],
            "dtype": "uint16",
            "units": "digital number",
        },
        "lc": {
            "files": "scenes/{key}.nc",
            "dataset": "lc",
            "bands": ["class"],
            "dtype": "uint8",
            "units": "class",
            "kind": "labels",
        },
    },
}


def scenes(path: Path) -> Truth:
    """Write `scenes.zip` and return the tiles of 64 px of the finest sensor.

    The pan image lies at (0, 0) of its own pixels with 140 x 200; the others begin 6 pan pixels further south and 4
    further east and go on to its end, in pixels of twice the size.
    """
    rng = np.random.default_rng(11)
    pan = rng.integers(1, 2000, (140, 200)).astype(np.uint16)
    ms = rng.integers(1, 2000, (3, 67, 98)).astype(np.uint16)
    lc = rng.integers(1, 9, (67, 98)).astype(np.uint8)
    attributes = {"x": 600000 + 40 + 10 + 20 * np.arange(98.0), "y": 5400000 - 60 - 10 - 20 * np.arange(67.0)}
    members = {
        "scenes/east_pan.tif": tiff(pan, **utm(600000, 5400000, 32)),
        "scenes/east_20200703_ms.zarr.zip": zarr_zip(ms, place=attributes),
        "scenes/east.nc": hdf5_file({"lc": lc}, place=attributes),
    }
    zipped(path / "scenes.zip", members)
    return {
        f"east_r{row}_c{column}": {
            "pan": pan[None, row : row + 64, column : column + 64],
            "ms": ms[:, (row - 6) // 2 : (row - 6) // 2 + 32, (column - 4) // 2 : (column - 4) // 2 + 32],
            "lc": lc[None, (row - 6) // 2 : (row - 6) // 2 + 32, (column - 4) // 2 : (column - 4) // 2 + 32],
        }
        for row in (6, 70, 76)
        for column in (4, 68, 132, 136)
    }


def broken(path: Path) -> None:
    """Write a `scenes.zip` with a place that lacks the reference sensor, and one whose scenes lie apart."""
    image = np.ones((70, 70), np.uint16)
    place = {"x": 10 + 20 * np.arange(70.0), "y": -20 * np.arange(70.0)}
    ms, lc = zarr_zip(np.ones((3, 70, 70), np.uint16), place=place), hdf5_file({"lc": image.astype("u1")}, place=place)
    members: dict[str, bytes] = {}
    for name in ("far", "lonely"):
        members[f"scenes/{name}_20200703_ms.zarr.zip"] = ms
        members[f"scenes/{name}.nc"] = lc
    members["scenes/far_pan.tif"] = tiff(image, **utm(600000, 5400000, 32))
    zipped(path / "scenes.zip", members)
