"""MDAS with all its rasters on grids that differ, as they are published: a sub-area and the whole scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.make.archives import Raster, tiff, utm, zipped

TOP = "Augsburg_data_4_publication"
CORNER = {"sub_area_1": (640100.0, 5360900.0), "entire_city": (640000.0, 5361000.0)}
GSD = {"3K_RGB": 2.0, "3K_DSM": 3.0, "Sentinel_1": 10.0, "Sentinel_2": 10.0, "HySpex": 4.0}
EXTENT = {"sub_area_1": (240, 300), "entire_city": (480, 600)}
"""In metres, south and east."""


def mdas_grids(folder: Path, packed: bool = True) -> dict[str, dict[str, Raster]]:
    """Write the archive (or what is in it) and return its images [H,W,C] by scene and product.

    The surface model of the whole scene alone has the pixels of its RGB image.
    """
    members: dict[str, bytes] = {f"{TOP}/README.txt": b"MDAS", f"{TOP}/sr_deep_model_data/x.tif": b"not read"}
    truth: dict[str, dict[str, Raster]] = {}
    for scene, corner in CORNER.items():
        for product, gsd in GSD.items():
            if (scene, product) == ("entire_city", "3K_DSM"):
                gsd = 2.0
            image = _image(scene, product, gsd)
            truth.setdefault(scene, {})[product] = image
            members[_name(scene, product)] = tiff(image, **utm(*corner, 32, gsd))
    members[f"{TOP}/sub_area_1/osm_water_sub_area1.tif"] = tiff(np.zeros((8, 8), np.uint8))
    if packed:
        zipped(folder / f"{TOP}.zip", members)
        return truth
    for name, data in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return truth


def ground(scene: str, gsd: float) -> tuple[Raster, Raster]:
    """Return how far south and east of the corner of the whole scene the pixel centres lie, in metres."""
    south, east = CORNER["entire_city"][1] - CORNER[scene][1], CORNER[scene][0] - CORNER["entire_city"][0]
    rows, columns = (int(length / gsd) for length in EXTENT[scene])
    down, right = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    return south + (down + 0.5) * gsd, east + (right + 0.5) * gsd


def _image(scene: str, product: str, gsd: float) -> Raster:
    """Return planes that rise to the south and the east, so that bilinear means are exact, and RGB noise."""
    south, east = ground(scene, gsd)
    if product == "3K_RGB":
        return np.random.default_rng(5).integers(1, 255, (*south.shape, 4)).astype(np.uint8)
    if product == "3K_DSM":
        return (480 + south / 8 + east / 16).astype(np.float32)
    if product == "Sentinel_1":
        return np.stack([-20 + south / 64, -25 + east / 64], axis=-1).astype(np.float32)
    bands = 12 if product == "Sentinel_2" else 368
    plane = 1000 + south + 2 * east
    return (plane[..., None] + 3 * np.arange(bands)).astype(np.uint16 if bands == 12 else np.int16)


def _name(scene: str, product: str) -> str:
    if scene == "entire_city":
        return f"{TOP}/{scene}/{product.replace('Sentinel_', 'Sentinel-')}.tif"
    return f"{TOP}/{scene}/{product.replace('3K_DSM', '3K_dsm')}_{scene.replace('area_', 'area')}.tif"
