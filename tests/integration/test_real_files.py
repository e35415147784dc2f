"""Genuine files of several archives build through the sources for one's own data, as configs/build has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from gfm_pipeline.config import load_config
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.config import BuildConfig
from tests.conftest import ROOT
from tests.contracts.test_sources import read_with_public_libraries

REAL = ROOT.parent / "shared" / "real"
Found = dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]]

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="../shared is not there")


def build(config: BuildConfig) -> tuple[BuildReport, Found]:
    report = build_collection(config, "build", lambda _: None)
    assert not report.rejected
    found = {key: (rasters, meta) for key, rasters, meta in read_with_public_libraries(Path(config.output))}
    return report, found


def configured(name: str, raw: str, out: Path) -> BuildConfig:
    path = ROOT / "configs" / "build" / f"{name}.yaml"
    return load_config(path, BuildConfig, [f"input={REAL / raw}", f"output={out}", "workers=1"])


def bands_first(path: Path) -> np.ndarray:
    image = tifffile.imread(path)
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def test_terramesh(tmp_path: Path) -> None:
    report, found = build(configured("terramesh", "terramesh_terramind", tmp_path / "out"))
    folders = {"s1": "S1RTC", "s2": "S2L1C", "s2_l2a": "S2L2A", "dem": "DEM", "ndvi": "NDVI", "lulc": "LULC"}
    shifted = {"s2": ("282D_485L_3_3", "433D_629L_3_1"), "s2_l2a": ("433D_629L_3_1",)}
    assert sorted(found) == ["282D_485L_3_3", "38D_378R_2_3", "433D_629L_3_1"]
    for key, (rasters, meta) in found.items():
        assert rasters.keys() == folders.keys()
        assert meta["crs"].startswith("EPSG:327")
        for sensor, folder in folders.items():
            raw = bands_first(REAL / "terramesh_terramind" / folder / f"{key}.tif")
            offset = -1000 if key in shifted.get(sensor, ()) else 0
            expected = np.maximum(raw.astype(np.float64) + offset, -(2**15)).astype(raw.dtype) if offset else raw
            np.testing.assert_array_equal(rasters[sensor], expected, err_msg=f"{key} {sensor}")
    assert report.manifest is not None
    assert report.manifest.counts["rule: s2: offset -1000 added"] == 2
    assert report.manifest.counts["rule: s2_l2a: offset -1000 added"] == 1
    assert report.manifest.sensors["lulc"].kind == "labels"


def test_spacenet_pairs(tmp_path: Path) -> None:
    report, found = build(configured("spacenet_pairs", "spacenet_solaris", tmp_path / "out"))
    assert sorted(found) == ["1", "2", "3"]
    for key, (rasters, meta) in found.items():
        for sensor in ("pan", "ms"):
            np.testing.assert_array_equal(
                rasters[sensor], bands_first(REAL / "spacenet_solaris" / f"{sensor}{key}.tif")
            )
        share = {sensor: about["nodata_share"] for sensor, about in meta["sensors"].items()}
        assert share["pan"] == pytest.approx({"1": 0, "2": 0.323, "3": 0.391}[key], abs=1e-3)
        assert share["ms"] == pytest.approx({"1": 0, "2": 0.322, "3": 0.390}[key], abs=1e-3)
    assert report.manifest is not None
    assert min(band.min for band in report.manifest.statistics["pan"]) > 0  # what was not measured is in no statistics


def test_treesatai(tmp_path: Path) -> None:
    report, found = build(configured("treesatai", "treesatai_anysat", tmp_path / "out"))
    key = "Abies_alba_1_1005_WEFL_NLF"
    assert found.keys() == {key}
    rasters, meta = found[key]
    assert meta["labels"] == {"species": "Abies_alba", "patch": "1_1005_WEFL_NLF"}
    np.testing.assert_array_equal(rasters["aerial"], bands_first(REAL / "treesatai_anysat" / f"{key}.tif"))
    with h5py.File(REAL / "treesatai_anysat" / f"{key}.h5") as file:
        for sensor, name, steps in (("s2", "sen-2", 146), ("s1_asc", "sen-1-asc", 60), ("s1_des", "sen-1-des", 86)):
            np.testing.assert_array_equal(rasters[sensor], file[f"{name}-data"][()])
            assert len(meta["sensors"][sensor]["dates"]) == steps
    assert meta["sensors"]["s2"]["dates"][0] == "2020-01-02T10:24:21Z"
    assert report.manifest is not None
    assert report.manifest.num_samples == 1


CUBE = {"axes": "THW", "dates": "t", "dtype": "uint16", "units": "digital number"}


def test_cubes_of_two_sensors_with_dates_of_their_own(tmp_path: Path) -> None:
    sensors = {
        "s1": {**CUBE, "files": "cdse_{key:sentinel}1_grd.nc", "dataset": "S1-SIGMA0-{band}"},
        "s2": {**CUBE, "files": "cdse_{key:sentinel}2_l2a.nc", "dataset": "S2-L2A-{band}", "bands": ["B04", "B08"]},
    }
    options = {
        "sensors": {name: sensor | ({"display": {}} if name == "s2" else {}) for name, sensor in sensors.items()}
    }
    _, found = build(
        BuildConfig(source="folder", input=str(REAL / "gfmap_ts"), output=str(tmp_path / "out"), options=options)
    )
    rasters, meta = found["sentinel"]
    assert (rasters["s1"].shape, rasters["s2"].shape) == ((10, 2, 66, 64), (12, 2, 66, 64))
    assert meta["sensors"]["s2"]["dates"][:2] == ["2023-04-02", "2023-04-05"]
    assert meta["transform"] == [10.0, 0.0, 643260.0, 0.0, -10.0, 5676480.0]


def test_dates_without_data_are_counted(tmp_path: Path) -> None:
    sensors = {"s2": {**CUBE, "files": "WORLDCEREAL-{key}.nc", "dataset": "{band}", "nodata": 65535, "display": {}}}
    sensors["s2"]["bands"] = ["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B11", "B12"]
    config = BuildConfig(
        source="folder",
        input=str(REAL / "worldcereal_ts"),
        output=str(tmp_path / "out"),
        options={"sensors": sensors},
    )
    report, found = build(config)
    ((rasters, meta),) = found.values()
    assert rasters["s2"].shape == (20, 9, 50, 48)
    assert [step for step, raster in enumerate(rasters["s2"]) if (raster == 65535).all()] != []
    assert meta["sensors"]["s2"]["nodata_share"] == pytest.approx((rasters["s2"] == 65535).mean())
    assert report.manifest is not None
    assert report.manifest.statistics["s2"][0].max < 65535
