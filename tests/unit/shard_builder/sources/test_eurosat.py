"""EuroSAT holds B8A last: its configuration has the true order, and another one is doubted by plan and report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gfm_pipeline.config import load_config
from gfm_pipeline.sensors import builtin_sensor
from shard_builder.build.build import build_collection
from shard_builder.build.forecast import describe_forecast, forecast
from shard_builder.build.report import describe
from shard_builder.config import BuildConfig
from shard_builder.rasters.sentinel2 import doubt_order
from tests.conftest import ROOT
from tests.contracts.test_sources import read_with_public_libraries
from tests.make.archives import tiff, zipped

ORDER = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10", "B11", "B12", "B8A")
TOP = "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
MEANS = {"B1": 1350, "B9": 730, "B10": 12, "B8A": 2600}


def eurosat(folder: Path) -> dict[str, np.ndarray]:
    """Write EuroSATallBands.zip and return the images, bands in the order of the files."""
    rng = np.random.default_rng(5)
    truth = {}
    members = {}
    for name in ("AnnualCrop_1", "AnnualCrop_2", "Forest_1"):
        image = np.stack([rng.normal(MEANS.get(band, 2000), 1, (16, 16)) for band in ORDER]).astype(np.uint16)
        truth[name] = image
        members[f"{TOP}/{name.partition('_')[0]}/{name}.tif"] = tiff(image.transpose(1, 2, 0))
    folder.mkdir()
    zipped(folder / "EuroSATallBands.zip", members)
    return truth


def configured(folder: Path, *more: str) -> BuildConfig:
    places = (f"input={folder / 'raw'}", f"output={folder / 'out'}", "workers=1")
    return load_config(ROOT / "configs/build/eurosat.yaml", BuildConfig, [*places, *more])


def test_the_configuration_has_the_true_order(tmp_path: Path) -> None:
    truth = eurosat(tmp_path / "raw")
    config = configured(tmp_path)
    report = build_collection(config, "build", lambda _: None)
    assert report.manifest is not None
    bands = report.manifest.sensors["s2"].bands
    assert bands == ORDER
    assert set(bands) == set(builtin_sensor("s2").bands)
    found = {
        key: (rasters["s2"], meta["labels"]) for key, rasters, meta in read_with_public_libraries(tmp_path / "out")
    }
    assert {key: labels for key, (_, labels) in found.items()} == {
        "AnnualCrop_1": {"class": "AnnualCrop"},
        "AnnualCrop_2": {"class": "AnnualCrop"},
        "Forest_1": {"class": "Forest"},
    }
    for key, (raster, _) in found.items():
        np.testing.assert_array_equal(raster, truth[key])
        assert raster[bands.index("B10")].mean() < 20
    assert not [line for line in describe(report, config) if "warning" in line]
    assert not forecast(config, False, lambda _: None).doubts


def test_the_usual_order_is_doubted(tmp_path: Path) -> None:
    eurosat(tmp_path / "raw")
    usual = f"options.sensors.s2.bands=[{', '.join(builtin_sensor('s2').bands)}]"
    config = configured(tmp_path, usual)
    planned = list(describe_forecast(forecast(config, False, lambda _: None), config))
    built = list(describe(build_collection(config, "build", lambda _: None), config))
    for lines in (planned, built):
        (warning,) = [line for line in lines if line.startswith("  warning: ")]
        assert "s2: B9 has a mean of 11" in warning
        assert "those of EuroSAT hold B8A last" in warning


@pytest.mark.parametrize(
    ("means", "doubted"),
    [
        ({f"B{n}": 1000.0 + n for n in range(1, 13)}, False),
        ({**{f"B{n}": 1000.0 + n for n in range(1, 13)}, "B10": 10}, False),
        ({**{f"B{n:02d}": 1000.0 + n for n in range(1, 13)}, "B09": 10}, True),
        ({"B2": 10.0, "B3": 1000.0, "B10": 1000.0}, False),  # not Sentinel-2, or not all of it
    ],
)
def test_which_means_are_doubted(means: dict[str, float], doubted: bool) -> None:
    assert (doubt_order("s2", means) is not None) is doubted
