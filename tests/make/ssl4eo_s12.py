"""SSL4EO-S12 as published: three split tar.gz with a folder for each sensor, place and acquisition."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gfm_pipeline.sensors import S2_BANDS
from tests.make.archives import Raster, Truth, tar_gz, tiff, utm

SEASONS = ("20200323T162931", "20200621T162901", "20200924T162929", "20201228T163711")
PLACES = {"0000000": (4, 4, 4), "0000001": (2, 4, 3), "0250000": (1, 0, 2)}
"""Acquisitions of s1, s2c and s2a. The last place has no L1C."""
FACTORS = {"B1": 6, "B9": 6, "B10": 6, **dict.fromkeys(("B5", "B6", "B7", "B8A", "B11", "B12"), 2)}
SIZE = 36


def ssl4eo_s12(folder: Path) -> Truth:
    """Write the archives, the L1C one in parts, and return the series."""
    members: dict[str, dict[str, bytes]] = {"s1": {}, "s2c": {}, "s2a": {}}
    truth: Truth = {place: {} for place in PLACES}
    rng = np.random.default_rng(5)
    for place, counts in PLACES.items():
        for (short, files), count in zip(members.items(), counts, strict=True):
            series = [_acquisition(rng, short, place, season, files) for season in SEASONS[:count]]
            if series:
                truth[place][{"s1": "s1", "s2c": "s2", "s2a": "s2_l2a"}[short]] = np.stack(series)
    for short, name in (("s1", "s1_grd"), ("s2c", "s2_l1c"), ("s2a", "s2_l2a")):
        tar_gz(folder / f"{name}.tar.gz", dict(sorted(members[short].items())))
    return truth


def split(path: Path, parts: int) -> None:
    """Replace a file by parts, as `split` names them."""
    data = path.read_bytes()
    size = -(-len(data) // parts)
    for i in range(parts):
        path.with_name(f"{path.name}.parta{'abcdefgh'[i]}").write_bytes(data[i * size : (i + 1) * size])
    path.unlink()


def broken(folder: Path) -> None:
    """Write an archive that lacks a band, and has a folder without a date."""
    band = tiff(np.ones((SIZE, SIZE), np.float32))
    day = "S1A_IW_GRDH_1SDV_20200329T001515"
    members = {f"s1/0000000/{day}/VV.tif": band, "s1/0000001/spring/VV.tif": band, "s1/0000001/spring/VH.tif": band}
    tar_gz(folder / "s1_grd.tar.gz", members | {f"s1/0000002/{day}/{name}.tif": band[:-9] for name in ("VV", "VH")})


def _acquisition(rng: np.random.Generator, short: str, place: str, season: str, files: dict[str, bytes]) -> Raster:
    if short == "s1":
        # The names begin with the satellite: they do not sort by date.
        satellite = "S1A" if season.startswith("202009") else "S1B"
        name = f"{satellite}_IW_GRDH_1SDV_{season}_{season}_031883_03AE27_9BAF"
        bands = {band: rng.normal(-12, 3, (SIZE, SIZE)).astype(np.float32) for band in ("VV", "VH")}
    else:
        name = f"{season}_{season}_T15QXA"
        left_out = {"B10"} if short == "s2a" else set()
        bands = {
            band: rng.integers(0, 9000, (SIZE // FACTORS.get(band, 1),) * 2).astype(np.uint16)
            for band in S2_BANDS
            if band not in left_out
        }
    for band, image in bands.items():
        files[f"{short}/{place}/{name}/{band}.tif"] = tiff(image, **utm(600000, 5400000, 32))
    full = [image.repeat(SIZE // len(image), 0).repeat(SIZE // len(image), 1) for image in bands.values()]
    return np.stack(full)
