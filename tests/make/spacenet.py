"""SpaceNet 2 as published: a tar.gz for each city and part, with chips of two resolutions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.make.archives import Truth, tar_gz, tiff, utm

CITIES = {"AOI_2_Vegas": ("Train", (1, 7)), "AOI_3_Paris": ("Test_public", (3,))}


def spacenet(folder: Path) -> Truth:
    """Write an archive of the newer names and one of the older ones."""
    rng = np.random.default_rng(33)
    truth: Truth = {}
    for city, (part, numbers) in CITIES.items():
        members: dict[str, bytes] = {}
        for number in numbers:
            pan = rng.integers(1, 2000, (48, 48)).astype(np.uint16)
            ms = rng.integers(1, 2000, (12, 12, 8)).astype(np.uint16)
            sharp = rng.integers(1, 2000, (48, 48, 8)).astype(np.uint16)
            for kind, image, gsd in (
                ("PAN", pan, 0.3),
                ("MUL", ms, 1.2),
                ("MUL-PanSharpen", sharp, 0.3),
                ("RGB-PanSharpen", sharp[..., [4, 2, 1]], 0.3),
            ):
                new = f"SN2_buildings_train_{city}_{kind}_img{number}.tif"
                name = new if part == "Train" else f"{kind}_{city}_img{number}.tif"
                members[f"{city}_{part}/{kind}/{name}"] = tiff(image, **utm(600000, 5400000, 32, gsd))
            members[f"{city}_{part}/geojson/buildings/buildings_{city}_img{number}.geojson"] = b"{}"
            key = f"{city}_{part[:5].strip('_').lower()}_img{number}"
            truth[key] = {"pan": pan[None], "ms": ms.transpose(2, 0, 1), "ms_ps": sharp.transpose(2, 0, 1)}
        name = f"SN2_buildings_train_{city}" if part == "Train" else f"{city}_{part}"
        tar_gz(folder / f"{name}.tar.gz", members)
    return truth


def broken(folder: Path) -> None:
    """Write a pair of which one half lies elsewhere, and a multispectral chip of four bands."""
    pan, ms = np.ones((48, 48), np.uint16), np.ones((12, 12, 8), np.uint16)
    members = {}
    for number, image, x in ((1, ms, 700000), (2, ms[..., :4], 600000)):
        top = "AOI_2_Vegas_Train"
        members[f"{top}/PAN/PAN_AOI_2_Vegas_img{number}.tif"] = tiff(pan, **utm(600000, 5400000, 32, 0.3))
        members[f"{top}/MUL/MUL_AOI_2_Vegas_img{number}.tif"] = tiff(image, **utm(x, 5400000, 32, 1.2))
    tar_gz(folder / "AOI_2_Vegas_Train.tar.gz", members)
