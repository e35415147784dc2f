"""BigEarthNet as published: version 1 in two tar.gz, version 2 with its table and maps."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.make.archives import Raster, Truth, tar_gz, tiff, utm

PATCHES = {
    "S2A_MSIL2A_20170613T101031_61_39": "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39",
    "S2A_MSIL2A_20170613T101031_61_40": "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_40",
    "S2B_MSIL2A_20180204T094160_9_8": "S1B_IW_GRDH_1SDV_20180205T045612_35VPK_9_8",
}
"""Sentinel-2 patches and their partners."""
CLASSES = ["Sea and ocean", "Discontinuous urban fabric", "Airports"]
NINETEEN = ["Urban fabric", "Marine waters"]
FACTORS = {"B1": 6, "B9": 6, **dict.fromkeys(("B5", "B6", "B7", "B8A", "B11", "B12"), 2)}
S2 = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
SIZE = 36


def bigearthnet(folder: Path) -> Truth:
    """Write both archives of version 1 with a list of the training split."""
    rng = np.random.default_rng(8)
    optical: dict[str, bytes] = {}
    radar: dict[str, bytes] = {}
    truth: Truth = {}
    for patch, partner in PATCHES.items():
        truth[patch] = {
            "s2_l2a": _bands(rng, f"BigEarthNet-v1.0/{patch}/{patch}", optical),
            "s1": _bands(rng, f"BigEarthNet-S1-v1.0/{partner}/{partner}", radar),
        }
        about: dict[str, Any] = {"labels": CLASSES, "coordinates": {"ulx": 0}, "projection": ""}
        optical[f"BigEarthNet-v1.0/{patch}/{patch}_labels_metadata.json"] = json.dumps(about).encode()
        about["corresponding_s2_patch"] = patch
        radar[f"BigEarthNet-S1-v1.0/{partner}/{partner}_labels_metadata.json"] = json.dumps(about).encode()
    tar_gz(folder / "BigEarthNet-S2-v1.0.tar.gz", optical)
    tar_gz(folder / "BigEarthNet-S1-v1.0.tar.gz", radar)
    first, second, _ = PATCHES
    (folder / "train.csv").write_text(f"{first}\n")
    (folder / "val.csv").write_text(f"s2,s1\n{second},{PATCHES[second]}\n")
    (folder / "patches_with_seasonal_snow.csv").write_text(f"{second}\n")
    return truth


def version_two(folder: Path) -> Truth:
    """Write version 2, packed anew as tar.gz."""
    rng = np.random.default_rng(9)
    members: dict[str, dict[str, bytes]] = {"BigEarthNet-S2": {}, "BigEarthNet-S1": {}, "Reference_Maps": {}}
    truth: Truth = {}
    rows = []
    for (old, partner), split in zip(PATCHES.items(), ("train", "validation", "test"), strict=True):
        tile = f"{old[:26]}_N9999_R022_T33UUP"
        patch = f"{tile}_{old[27:]}"
        corine = rng.integers(111, 523, (SIZE, SIZE)).astype(np.uint16)
        name = f"Reference_Maps/{tile}/{patch}/{patch}_reference_map.tif"
        members["Reference_Maps"][name] = tiff(corine, **utm(600000, 5400000, 32))
        truth[patch] = {
            "s2_l2a": _bands(rng, f"BigEarthNet-S2/{tile}/{patch}/{patch}", members["BigEarthNet-S2"]),
            "s1": _bands(rng, f"BigEarthNet-S1/{partner[:32]}/{partner}/{partner}", members["BigEarthNet-S1"]),
            "corine": corine[None],
        }
        rows.append(
            {"patch_id": patch, "labels": NINETEEN, "split": split, "country": "Austria", "s1_name": partner}
            | {"s2v1_name": old, "contains_seasonal_snow": False, "contains_cloud_or_shadow": split == "test"}
        )
    for name, files in members.items():
        tar_gz(folder / f"{name}.tar.gz", files)
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    (folder / "metadata.parquet").write_bytes(buffer.getvalue())
    return truth


def broken(folder: Path) -> None:
    """Write a patch that lacks bands, one of damaged bands, one of unknown classes, and a partner of nobody."""
    good, damaged, unknown = PATCHES
    band = tiff(np.ones((SIZE, SIZE), np.uint16))
    top = "BigEarthNet-v1.0"
    members = {f"{top}/{good}/{good}_B02.tif": band}
    files = [f"B{int(name[1:]):02d}" if name[1:].isdigit() else name for name in S2]
    members |= {f"{top}/{damaged}/{damaged}_{name}.tif": band[:-40] for name in files}
    members |= {f"{top}/{unknown}/{unknown}_{name}.tif": band for name in files}
    about = json.dumps({"labels": ["Moon dust"]}).encode()
    members[f"{top}/{unknown}/{unknown}_labels_metadata.json"] = about
    tar_gz(folder / "BigEarthNet-S2-v1.0.tar.gz", members)
    lonely = PATCHES[good]
    radar = {f"BigEarthNet-S1-v1.0/{lonely}/{lonely}_{name}.tif": band for name in ("VV", "VH")}
    tar_gz(folder / "BigEarthNet-S1-v1.0.tar.gz", radar)


def _bands(rng: np.random.Generator, stem: str, members: dict[str, bytes]) -> Raster:
    """Add a file for each band and return them on the finest grid."""
    found = []
    for band in S2 if "S2" in stem.rpartition("/")[2][:3] else ("VV", "VH"):
        factor = FACTORS.get(band, 1)
        shape = (SIZE // factor, SIZE // factor)
        if band.startswith("V"):
            pixels: Raster = rng.normal(-12, 3, shape).astype(np.float32)
        else:
            pixels = rng.integers(0, 9000, shape).astype(np.uint16)
        name = f"B{int(band[1:]):02d}" if band[1:].isdigit() else band
        members[f"{stem}_{name}.tif"] = tiff(pixels, **utm(600000, 5400000, 32, 10.0 * factor))
        found.append(pixels.repeat(factor, 0).repeat(factor, 1))
    return np.stack(found)
