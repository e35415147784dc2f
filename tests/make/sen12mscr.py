"""SEN12MS-CR as published: three tar.gz for each season, with folders that do not all follow one rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.make.archives import Raster, Truth, tar_gz, tiff, utm

PATCHES = [("ROIs1158_spring", 1, 30), ("ROIs1158_spring", 106, 31), ("ROIs1970_fall", 139, 839)]


def sen12mscr(folder: Path) -> Truth:
    """Write the archives of two seasons; the last place has no cloudy image."""
    rng = np.random.default_rng(21)
    truth: Truth = {}
    archives: dict[str, dict[str, bytes]] = {}
    for season, scene, patch in PATCHES:
        images: dict[str, Raster] = {"s1": rng.normal(-12, 4, (32, 32, 2)).astype(np.float32)}
        for sensor in ("s2", "s2_cloudy"):
            images[sensor] = rng.integers(0, 10000, (32, 32, 13)).astype(np.uint16)
        if (season, scene, patch) == PATCHES[-1]:
            del images["s2_cloudy"]
        for sensor, image in images.items():
            name = f"{season}_{sensor}/{sensor}_{scene}/{season}_{sensor}_{scene}_p{patch}.tif"
            archives.setdefault(f"{season}_{sensor}.tar.gz", {})[name] = tiff(image, **utm(600000, 5400000, 32))
        truth[f"{season}_{scene}_p{patch}"] = {name: image.transpose(2, 0, 1) for name, image in images.items()}
    for name, members in archives.items():
        tar_gz(folder / name, members)
    return truth


def broken(folder: Path) -> None:
    """Write a triplet of which the cloudy image is cut short and the clear one lacks a band."""
    season, scene, patch = PATCHES[0]
    images = {
        "s1": tiff(np.full((8, 8, 2), -10, np.float32)),
        "s2": tiff(np.ones((8, 8, 12), np.uint16)),
        "s2_cloudy": tiff(np.ones((8, 8, 13), np.uint16))[:-30],
    }
    for sensor, image in images.items():
        name = f"{season}_{sensor}/{sensor}_{scene}/{season}_{sensor}_{scene}_p{patch}.tif"
        tar_gz(folder / f"{season}_{sensor}.tar.gz", {name: image})
