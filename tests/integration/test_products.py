"""The products people have build as configs/build has them: every pixel, its place, what was not measured, the plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfm_pipeline.config import load_config
from gfm_pipeline.storage import LocalStore
from shard_builder.build.build import BuildReport, build_collection, plan_collection
from shard_builder.config import BuildConfig
from tests.conftest import ROOT
from tests.contracts.test_sources import read_with_public_libraries
from tests.make import products
from tests.make.products import PX, Product

TILE = 24
PRODUCTS: dict[str, tuple[str, Callable[[Path], Product]]] = {
    "landsat_c2": ("landsat_c2", products.landsat_c2),
    "landsat_c2 tm": ("landsat_c2", lambda folder: products.landsat_c2(folder, "LT05", "19990703")),
    "sentinel2_safe": ("sentinel2_safe", products.sentinel2_safe),
    "sentinel2_safe unpacked": ("sentinel2_safe", lambda folder: products.sentinel2_safe(folder, packed=False)),
    "sentinel2_safe old": ("sentinel2_safe", lambda folder: products.sentinel2_safe(folder, baseline="0214")),
    "sentinel2_safe l1c": ("sentinel2_safe", lambda folder: products.sentinel2_safe(folder, "L1C", "0510")),
    "sentinel1_grd rtc": ("sentinel1_grd", products.sentinel1_rtc),
    "sentinel1_grd safe": ("sentinel1_grd", products.sentinel1_safe),
    "hls s30": ("hls", products.hls),
    "hls l30": ("hls", lambda folder: products.hls(folder, "L30")),
    "naip": ("naip", products.naip),
    "planetscope 8": ("planetscope", products.planetscope),
    "planetscope 8 reflectance": ("planetscope", lambda folder: products.planetscope(folder, level="_SR")),
    "planetscope 4": ("planetscope", lambda folder: products.planetscope(folder, 4)),
}
"""By what is tested: the configuration, and who writes the product."""


def configured(name: str, raw: Path, out: Path, **more: Any) -> BuildConfig:
    words = [f"input={raw}", f"output={out}", "workers=1", f"tile_px={TILE}", *(f"{k}={v}" for k, v in more.items())]
    return load_config(ROOT / "configs" / "build" / f"{name}.yaml", BuildConfig, words)


def build(config: BuildConfig) -> BuildReport:
    return build_collection(config, "build", lambda _: None)


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_builds_to_the_pixel(name: str, tmp_path: Path) -> None:
    config_name, make = PRODUCTS[name]
    (tmp_path / "raw").mkdir()
    product = make(tmp_path / "raw")
    config = configured(config_name, tmp_path / "raw", tmp_path / "out")
    plan = plan_collection(config, LocalStore(tmp_path / "plan"), lambda _: None)
    report = build(config)
    assert not report.rejected
    assert report.manifest is not None
    found = {key: (rasters, meta) for key, rasters, meta in read_with_public_libraries(tmp_path / "out")}
    assert plan.num_samples == report.manifest.num_samples == len(found)
    starts = [(row, column) for row in range(0, PX, TILE) for column in range(0, PX, TILE)]
    assert sorted(found) == sorted(f"{product.key}_r{row}_c{column}" for row, column in starts)
    for row, column in starts:
        rasters, meta = found[f"{product.key}_r{row}_c{column}"]
        assert rasters.keys() == product.rasters.keys()
        assert meta["footprint"] is not None
        for sensor, whole in product.rasters.items():
            tile = whole[:, row : row + TILE, column : column + TILE]
            spec = report.manifest.sensors[sensor]
            if config_name == "sentinel2_safe" and name != "sentinel2_safe old" and spec.kind == "image":
                # Baseline 04.00 and later; what was measured stays measured.
                tile = np.where(tile == 0, 0, np.maximum(tile.astype(int) - 1000, 1))
            np.testing.assert_array_equal(rasters[sensor], tile, err_msg=f"{sensor} {row} {column}")
            share = np.isnan(tile).mean() if spec.nodata is None else (tile == spec.nodata).mean()
            assert meta["sensors"][sensor]["nodata_share"] == pytest.approx(share, abs=1e-6)


def test_the_other_pattern_of_sentinel1_reads_what_the_planetary_computer_has(tmp_path: Path) -> None:
    text = (ROOT / "configs" / "build" / "sentinel1_grd.yaml").read_text()
    (pattern,) = (line.partition("# files: ")[2].strip('"') for line in text.splitlines() if "# files: " in line)
    power = np.random.default_rng(8).uniform(0.01, 1, (2, PX, PX)).astype(np.float32)
    power[:, :5] = -32768
    name = "S1A_IW_GRDH_1SDV_20240322T004029_20240322T004054_053087_066E0A"
    for folder in ("GRD/2024/3/22/IW/DV/" + name + "_9C2C", name.replace("2024", "2025") + "_rtc"):
        (tmp_path / "raw" / folder / "measurement").mkdir(parents=True)
        for band, pixels in zip(("vv", "vh"), power, strict=True):
            data = products.raster_file(pixels[None], 10, "COG", nodata=-32768)
            (tmp_path / "raw" / folder / "measurement" / f"iw-{band}.rtc.tiff").write_bytes(data)
    config = configured("sentinel1_grd", tmp_path / "raw", tmp_path / "out")
    config.options["sensors"]["s1"]["files"] = pattern
    build(config)
    found = {key: rasters["s1"] for key, rasters, _ in read_with_public_libraries(tmp_path / "out")}
    assert len(found) == 2 * (PX // TILE) ** 2
    whole = np.where(power < 0, np.nan, 10 * np.log10(np.abs(power).astype(np.float64))).astype(np.float32)
    np.testing.assert_array_equal(found["S1A_GRDH_20240322T004029_r0_c24"], whole[:, :24, 24:])
