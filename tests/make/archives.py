"""Tiny raw archives in the exact published layouts, and what a reader must find in them.

Each maker writes below a folder and returns the truth: key -> sensor -> raster [C,H,W].
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

Raster = NDArray[np.generic]
Truth = dict[str, dict[str, Raster]]

SEN12MS_PATCHES = [("ROIs1158_spring", 1, 1), ("ROIs1158_spring", 1, 2), ("ROIs1868_summer", 7, 30)]
LONELY = ("ROIs1868_summer", 9, 5)
"""A Sentinel-2 patch whose Sentinel-1 partner is missing."""


def tiff(image_HWC: Raster, **tags: object) -> bytes:
    buffer = io.BytesIO()
    planar = None if image_HWC.ndim == 2 else "contig"
    tifffile.imwrite(buffer, image_HWC, planarconfig=planar, compression="zlib", photometric="minisblack", **tags)
    return buffer.getvalue()


def tar_gz(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def zipped(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def utm(x: float, y: float, zone: int, gsd_m: float = 10.0) -> dict[str, object]:
    """Return tifffile arguments that place a raster's upper left corner at (x, y) of a northern UTM zone."""
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32600 + zone)
    return {
        "extratags": [
            (33550, 12, 3, (gsd_m, gsd_m, 0.0), True),
            (33922, 12, 6, (0.0, 0.0, 0.0, x, y, 0.0), True),
            (34735, 3, len(keys), keys, True),
        ]
    }


def sen12ms(folder: Path, s2_bands: int = 13) -> Truth:
    rng = np.random.default_rng(1)
    truth: Truth = {}
    archives: dict[str, dict[str, bytes]] = {}
    for season, scene, patch in [*SEN12MS_PATCHES, LONELY]:
        key = f"{season}_{scene}_p{patch}"
        images: dict[str, Raster] = {
            "s1": rng.normal(-12, 4, (32, 32, 2)).astype(np.float32),
            "s2": rng.integers(0, 9000, (32, 32, s2_bands)).astype(np.uint16),
        }
        if (season, scene, patch) == LONELY:
            del images["s1"]
        for sensor, image in images.items():
            name = f"{season}/{sensor}_{scene}/{season}_{sensor}_{scene}_p{patch}.tif"
            archives.setdefault(f"{season}_{sensor}.tar.gz", {})[name] = tiff(image, **utm(600000, 5400000, 32))
        truth[key] = {sensor: image.transpose(2, 0, 1) for sensor, image in images.items()}
    for name, members in archives.items():
        tar_gz(folder / name, members)
    codes = rng.integers(1, 17, (32, 32, 4)).astype(np.uint16)
    lc = tiff(codes, **utm(600000, 5400000, 32))
    tar_gz(folder / "ROIs1158_spring_lc.tar.gz", {"ROIs1158_spring/lc_1/ROIs1158_spring_lc_1_p1.tif": lc})
    tar_gz(folder / "ROIs1158_spring_s2_cloudy.tar.gz", {"ROIs1158_spring_s2_cloudy/x.tif": lc})
    truth["ROIs1158_spring_1_p1"]["lc"] = codes.transpose(2, 0, 1)
    (folder / "train_list.txt").write_text("ROIs1158_spring_s2_1_p1.tif\nROIs1158_spring_s2_1_p2.tif\n")
    return truth


def mdas(folder: Path) -> Truth:
    rng = np.random.default_rng(2)
    rgb = rng.integers(0, 255, (100, 130, 3)).astype(np.uint8)
    dsm = rng.normal(480, 20, (100, 130)).astype(np.float32)
    top = "Augsburg_data_4_publication/sub_area_1"
    members = {f"{top}/3K_RGB_sub_area1.tif": tiff(rgb), f"{top}/3K_DSM_sub_area1.tif": tiff(dsm)}
    zipped(folder / "Augsburg_data_4_publication.zip", members | {f"{top}/HySpex_sub_area1.tif": tiff(dsm)})
    return {
        f"sub_area_1_r{row}_c{column}": {
            "rgb": rgb.transpose(2, 0, 1)[:, row : row + 64, column : column + 64],
            "dsm": dsm[None, row : row + 64, column : column + 64],
        }
        for row in (0, 36)
        for column in (0, 64, 66)
    }


def _rgb_images(seed: int) -> tuple[dict[str, bytes], dict[str, Raster]]:
    """Return encoded images by base name and what they must become, [3,H,W]."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (5, 40, 48, 4)).astype(np.uint8)
    jpg = imagecodecs.jpeg8_encode(np.ascontiguousarray(image[0, ..., :3]), level=90)
    big = rng.integers(0, 255, (64, 100, 3)).astype(np.uint8)
    encoded = {
        "plain.jpg": jpg,
        "lies about itself.png": jpg,  # a JPEG by its bytes
        "true.png": imagecodecs.png_encode(np.ascontiguousarray(image[1, ..., :3])),
        "alpha.png": imagecodecs.png_encode(image[2]),
        "grey.png": imagecodecs.png_encode(np.ascontiguousarray(image[3, ..., 0])),
        "sat.tif": tiff(np.ascontiguousarray(image[4, ..., :3])),
        "größer.tif": tiff(big),
    }
    chw = {name: image[i, ..., :3].transpose(2, 0, 1) for name, i in (("true", 1), ("alpha", 2), ("sat", 4))}
    truth: dict[str, Raster] = {name: raster for name, raster in chw.items()}
    truth["plain"] = truth["lies_about_itself"] = imagecodecs.jpeg8_decode(jpg).transpose(2, 0, 1)
    truth["grey"] = np.repeat(image[3, None, ..., 0], 3, axis=0)
    for column in (0, 36):
        truth[f"gr_er_r0_c{column}"] = big.transpose(2, 0, 1)[:, :, column : column + 64]
    return encoded, truth


def geopile(folder: Path) -> Truth:
    encoded, truth = _rgb_images(3)
    zipped(
        folder / "GeoPileV0.zip",
        {f"GeoPileV0/NAIP/farm/{name}": data for name, data in encoded.items()} | {"GeoPileV0/README.txt": b"x"},
    )
    return {f"NAIP_farm_{name}": {"rgb": raster} for name, raster in truth.items()}


def millionaid(folder: Path) -> Truth:
    encoded, truth = _rgb_images(4)
    zipped(folder / "millionaid_test.zip", {f"test/{name}": data for name, data in encoded.items()})
    return {f"test_{name}": {"rgb": raster} for name, raster in truth.items()}


from tests.make import bigearthnet as bigearthnet_archives  # noqa: E402  they use what is above
from tests.make import folder as own_folder  # noqa: E402
from tests.make import isprs  # noqa: E402
from tests.make import pastis as pastis_archive  # noqa: E402
from tests.make import scenes as own_scenes  # noqa: E402
from tests.make import sen12mscr as sen12mscr_archives  # noqa: E402
from tests.make import spacenet as spacenet_archives  # noqa: E402
from tests.make import ssl4eo_s12 as ssl4eo_archives  # noqa: E402

MAKERS: dict[str, Callable[[Path], Truth]] = {
    "bigearthnet": bigearthnet_archives.bigearthnet,
    "folder": own_folder.folder,
    "scenes": own_scenes.scenes,
    "pastis": pastis_archive.pastis,
    "potsdam": isprs.potsdam,
    "spacenet": spacenet_archives.spacenet,
    "vaihingen": isprs.vaihingen,
    "ssl4eo_s12": ssl4eo_archives.ssl4eo_s12,
    "sen12ms": sen12ms,
    "sen12mscr": sen12mscr_archives.sen12mscr,
    "mdas": mdas,
    "geopile": geopile,
    "millionaid": millionaid,
}

OPTIONS: dict[str, dict[str, Any]] = {"folder": own_folder.OPTIONS, "scenes": own_scenes.OPTIONS}
"""Of the sources that know nothing without them."""

BREAKERS: dict[str, Callable[[Path], None]] = {
    "bigearthnet": bigearthnet_archives.broken,
    "folder": own_folder.broken,
    "scenes": own_scenes.broken,
    "pastis": pastis_archive.broken,
    "potsdam": isprs.broken_potsdam,
    "spacenet": spacenet_archives.broken,
    "vaihingen": isprs.broken_vaihingen,
    "sen12mscr": sen12mscr_archives.broken,
    "ssl4eo_s12": ssl4eo_archives.broken,
}
"""Makers of archives with items that cannot be packed."""
