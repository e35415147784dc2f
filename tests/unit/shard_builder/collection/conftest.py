from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from gfm_pipeline.sensors import Display, SensorSpec
from tests.make_collection import make_collection

S1 = SensorSpec(name="s1", bands=("VV", "VH"), dtype="float32", units="dB", gsd_m=10)
SERIES = SensorSpec(
    name="ms",
    bands=("B", "G", "R", "N"),
    dtype="uint16",
    units="reflectance x 1e4",
    nodata=0,
    gsd_m=10,
    display=Display(mode="colour", bands=("R", "G", "B")),
)
COVER = SensorSpec(name="cover", bands=("class",), dtype="uint8", units="class", kind="labels", nodata=255)


def make_samples() -> list[tuple[str, dict[str, np.ndarray]]]:
    """Ten places: radar with NaN (two places have none), 2 to 9 dates of a series with nodata, a class map."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(10):
        series = rng.integers(200, 3000, ((2, 4, 9)[i % 3], 4, 24, 24)).astype(np.uint16)
        series[0, :, :5] = 0
        radar = rng.normal(-12, 3, (2, 24, 24)).astype(np.float32)
        radar[:, :, :3] = np.nan
        cover = np.where(rng.random((1, 24, 24)) < 0.25, 7, i % 3).astype(np.uint8)
        cover[0, 0] = 255
        rasters = {"ms": series, "cover": cover} | ({"s1": radar} if i % 5 != 4 else {})
        samples.append((f"place-{i:04d}", rasters))
    return samples


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collections") / "mixed"
    make_collection(folder, make_samples(), [S1, SERIES, COVER], samples_per_shard=3)
    return folder


@pytest.fixture
def collection(pristine: Path, tmp_path: Path) -> Path:
    """A copy to be damaged: mixed-000000 to -000002 with radar, -000003 without."""
    return Path(shutil.copytree(pristine, tmp_path / "mixed"))
