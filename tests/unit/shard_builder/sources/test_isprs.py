"""ISPRS Vaihingen and Potsdam: classes from colours, choices of images and maps, archives in archives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfm_pipeline.errors import ConfigError, ItemError
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.config import BuildConfig
from shard_builder.sources.potsdam import Potsdam
from shard_builder.sources.shared.isprs import IsprsBenchmark
from shard_builder.sources.vaihingen import Vaihingen
from tests.conftest import ROOT
from tests.contracts.test_sources import read_with_public_libraries
from tests.make import isprs
from tests.make.archives import tiff, zipped

LAYOUTS = ROOT.parent / "shared" / "layouts"


def build(source: str, raw: Path, out: Path, **more: Any) -> BuildReport:
    config = BuildConfig(source=source, input=str(raw), output=str(out), tile_px=64, **more)
    return build_collection(config, "build", lambda _: None)


def found(out: Path) -> dict[str, dict[str, np.ndarray]]:
    return {key: rasters for key, rasters, _ in read_with_public_libraries(out)}


def test_boundaries_are_of_no_class(tmp_path: Path) -> None:
    classes = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64) % 6
    image = isprs.COLOURS[classes]
    image[10:12] = 0  # the boundary
    image[image == 255] = 252  # as in a few published maps
    irrg = tiff(np.ones((64, 64, 3), np.uint8))
    zipped(tmp_path / "ISPRS_semantic_labeling_Vaihingen.zip", {"top/top_mosaic_09cm_area1.tif": irrg})
    name = "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE.zip"
    zipped(tmp_path / name, {"top_mosaic_09cm_area1_noBoundary.tif": tiff(image)})
    report = build("vaihingen", tmp_path, tmp_path / "out", options={"labels": "no_boundary"})
    expected = classes.copy()
    expected[10:12] = 255
    np.testing.assert_array_equal(found(tmp_path / "out")["area1_r0_c0"]["classes"], expected[None])
    assert report.manifest is not None
    assert report.manifest.counts["rule: classes: colours that are off set to the nearest"] == 1
    assert report.manifest.sensors["classes"].nodata == 255


@pytest.mark.parametrize(("image", "bands"), [("rgb", 3), ("rgbir", 4)])
def test_one_of_the_orthophotos_is_chosen(image: str, bands: int, tmp_path: Path) -> None:
    isprs.potsdam(tmp_path)
    build("potsdam", tmp_path, tmp_path / "out", options={"image": image, "labels": "none"})
    samples = found(tmp_path / "out")
    assert len(samples) == 3
    assert all(rasters.keys() == {image, "dsm"} for rasters in samples.values())
    assert all(len(rasters[image]) == bands for rasters in samples.values())


def test_what_is_no_area_of_one_grid_is_named(tmp_path: Path) -> None:
    isprs.broken_vaihingen(tmp_path)
    with pytest.raises(
        ItemError, match=r"area1 have different sizes \(.*70 x 70.*40 x 70 px\), expected one pixel grid"
    ):
        build("vaihingen", tmp_path, tmp_path / "out")
    report = build("vaihingen", tmp_path, tmp_path / "out", on_error="skip")
    assert "has the colour [255, 0, 255] at row 0, column 0" in report.rejected[-1].reason


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="image"):
        build("vaihingen", tmp_path, tmp_path / "out", options={"image": "rgb"})
    with pytest.raises(ConfigError, match="cir"):
        build("potsdam", tmp_path, tmp_path / "out", options={"image": "cir"})


@pytest.mark.skipif(not LAYOUTS.exists(), reason=f"{LAYOUTS} is not there")
@pytest.mark.parametrize(("source", "options"), [("vaihingen", {}), ("potsdam", {"image": "rgbir"})])
def test_the_published_layouts_are_recognised(source: str, options: dict[str, str], tmp_path: Path) -> None:
    config = BuildConfig(
        source=source,
        input=str(LAYOUTS / source),
        output=str(tmp_path / "out"),
        tile_px=1,
        options=options,
        on_error="skip",  # every file is there twice, packed and unpacked
    )
    report = build_collection(config, "build", lambda _: None)
    assert report.manifest is not None
    assert report.manifest.counts["items_found"] == 16
    assert report.manifest.counts["samples_duplicate"] >= 8
    assert report.manifest.num_samples == report.manifest.counts["samples_planned"] > 0
    assert {entry.sensors for entry in report.manifest.shards} == {(options.get("image", "irrg"), "classes")}


@pytest.mark.parametrize(("source", "train", "test"), [(Vaihingen, 16, 17), (Potsdam, 24, 14)])
def test_published_splits_are_of_all_areas(source: type[IsprsBenchmark], train: int, test: int) -> None:
    assert {name: len(areas) for name, areas in source.splits.items()} == {"train": train, "test": test}
    assert not source.splits["train"] & source.splits["test"]


def test_areas_have_their_split(tmp_path: Path) -> None:
    areas = {"area1": "train", "area2": "test", "area99": None}
    image = tiff(np.ones((64, 64, 3), np.uint8))
    members = {f"top/top_mosaic_09cm_{area}.tif": image for area in areas}
    zipped(tmp_path / "ISPRS_semantic_labeling_Vaihingen.zip", members)
    build("vaihingen", tmp_path, tmp_path / "out")
    metas = {meta["labels"]["area"]: meta["labels"] for _, _, meta in read_with_public_libraries(tmp_path / "out")}
    assert {area: labels.get("split") for area, labels in metas.items()} == areas


def test_areas_of_potsdam_have_their_split(tmp_path: Path) -> None:
    areas = {"potsdam_2_10": "train", "potsdam_7_13": "test", "potsdam_6_13": "test", "potsdam_6_7": "train"}
    image = tiff(np.ones((64, 64, 3), np.uint8))
    zipped(tmp_path / "2_Ortho_RGB.zip", {f"2_Ortho_RGB/top_{area}_RGB.tif": image for area in areas})
    build("potsdam", tmp_path, tmp_path / "out")
    metas = {meta["labels"]["area"]: meta["labels"] for _, _, meta in read_with_public_libraries(tmp_path / "out")}
    assert {area: labels.get("split") for area, labels in metas.items()} == areas
