"""ISPRS Vaihingen and Potsdam as published: archives of images, surface models and coloured maps."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from tests.make.archives import Raster, Truth, tiff, zipped

COLOURS = np.array([(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)], np.uint8)
"""Of class 0 to 5, as the benchmark's page has them."""


def vaihingen(folder: Path) -> Truth:
    """Write both archives; the surface model of the second area is a pixel smaller, and nobody has its map."""
    rng = np.random.default_rng(31)
    images: dict[str, bytes] = {}
    maps: dict[str, bytes] = {}
    truth: Truth = {}
    for area, smaller in ((1, 0), (38, 1)):
        irrg = rng.integers(0, 256, (64, 131, 3)).astype(np.uint8)
        dsm = rng.normal(270, 9, (64, 131 - smaller)).astype(np.float32)
        classes = rng.integers(0, 6, (64, 131)).astype(np.uint8)
        images[f"top/top_mosaic_09cm_area{area}.tif"] = tiff(irrg)
        images[f"top/top_mosaic_09cm_area{area}.tfw"] = b"0.09"
        images[f"dsm/dsm_09cm_matching_area{area}.tif"] = tiff(dsm)
        if not smaller:
            maps[f"top_mosaic_09cm_area{area}.tif"] = coloured(classes)
            images[f"gts_for_participants/top_mosaic_09cm_area{area}.tif"] = coloured(classes)
        for column in (0, 64, 131 - smaller - 64):
            cut = np.s_[..., :, column : column + 64]
            tile: dict[str, Raster] = {"irrg": irrg.transpose(2, 0, 1)[cut], "dsm": dsm[None][cut]}
            if not smaller:
                tile["classes"] = classes[None][cut]
            truth[f"area{area}_r0_c{column}"] = tile
    zipped(folder / "ISPRS_semantic_labeling_Vaihingen.zip", images)
    zipped(folder / "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE.zip", maps)
    return truth


def potsdam(folder: Path) -> Truth:
    """Write the archive of archives."""
    rng = np.random.default_rng(32)
    truth: Truth = {}
    inner: dict[str, dict[str, bytes]] = {
        name: {} for name in ("1_DSM", "2_Ortho_RGB", "4_Ortho_RGBIR", "5_Labels_all")
    }
    for row, column in ((2, 10), (7, 9), (7, 10)):
        rgb = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
        dsm = rng.normal(90, 9, (64, 64)).astype(np.float32)
        classes = rng.integers(0, 6, (64, 64)).astype(np.uint8)
        inner["1_DSM"][f"1_DSM/dsm_potsdam_{row:02d}_{column:02d}.tif"] = tiff(dsm)
        inner["2_Ortho_RGB"][f"2_Ortho_RGB/top_potsdam_{row}_{column}_RGB.tif"] = tiff(rgb)
        rgbir = np.concatenate([rgb, rgb[..., :1] // 2], axis=2)
        inner["4_Ortho_RGBIR"][f"4_Ortho_RGBIR/top_potsdam_{row}_{column}_RGBIR.tif"] = tiff(rgbir)
        inner["5_Labels_all"][f"top_potsdam_{row}_{column}_label.tif"] = coloured(classes)
        truth[f"potsdam_{row}_{column}_r0_c0"] = {
            "rgb": rgb.transpose(2, 0, 1),
            "dsm": dsm[None],
            "classes": classes[None],
        }
    zipped(folder / "Potsdam.zip", {f"Potsdam/{name}.zip": _zip_bytes(files) for name, files in inner.items()})
    return truth


def coloured(classes: NDArray[np.uint8]) -> bytes:
    """Return a map as published: an uncompressed RGB TIFF."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, COLOURS[classes], photometric="rgb")
    return buffer.getvalue()


def broken_vaihingen(folder: Path) -> None:
    """Write an area whose model is much smaller than its image, and one whose map has a colour of no class."""
    grey = np.zeros((70, 70), np.float32)
    images = {f"top/top_mosaic_09cm_area{area}.tif": tiff(np.ones((70, 70, 3), np.uint8)) for area in (1, 2)}
    images |= {"dsm/dsm_09cm_matching_area1.tif": tiff(grey[:40]), "dsm/dsm_09cm_matching_area2.tif": tiff(grey)}
    zipped(folder / "ISPRS_semantic_labeling_Vaihingen.zip", images)
    purple = tiff(np.full((70, 70, 3), (255, 0, 255), np.uint8))
    zipped(
        folder / "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE.zip", {"top_mosaic_09cm_area2.tif": purple}
    )


def broken_potsdam(folder: Path) -> None:
    """Write an area whose image is cut short."""
    image, model = tiff(np.ones((64, 64, 3), np.uint8)), tiff(np.ones((64, 64), np.float32))
    inner = {
        "2_Ortho_RGB": {"2_Ortho_RGB/top_potsdam_2_10_RGB.tif": image[:-20]},
        "1_DSM": {"1_DSM/dsm_potsdam_02_10.tif": model},
    }
    zipped(folder / "Potsdam.zip", {f"Potsdam/{name}.zip": _zip_bytes(files) for name, files in inner.items()})


def _zip_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()
