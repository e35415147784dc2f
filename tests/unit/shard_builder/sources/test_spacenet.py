"""SpaceNet 2: two resolutions of one place, two generations of names, an unpacked part given directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gfm_pipeline.errors import ItemError
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.config import BuildConfig
from tests.contracts.test_sources import read_with_public_libraries, unpack
from tests.make import spacenet as make


def build(raw: Path, out: Path, **more: Any) -> BuildReport:
    config = BuildConfig(source="spacenet", input=str(raw), output=str(out), **more)
    return build_collection(config, "build", lambda _: None)


def test_both_keep_their_own_pixels(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    make.spacenet(tmp_path / "raw")
    report = build(tmp_path / "raw", tmp_path / "out")
    metas = {key: meta for key, _, meta in read_with_public_libraries(tmp_path / "out")}
    assert metas["AOI_2_Vegas_train_img7"]["labels"] == {"split": "train", "city": "Vegas"}
    assert metas["AOI_3_Paris_test_img3"]["labels"] == {"split": "test", "city": "Paris"}
    sensors = metas["AOI_3_Paris_test_img3"]["sensors"]
    assert {name: (about["shape"], about["gsd_m"]) for name, about in sensors.items()} == {
        "pan": ([1, 48, 48], 0.3),
        "ms": ([8, 12, 12], 1.2),
    }
    assert report.manifest is not None
    assert report.manifest.sensors["ms"].nodata == 0
    assert report.plan is not None
    assert {(told.reason, told.files) for told in report.plan.ignored} == {
        ("no panchromatic or multispectral chip of SpaceNet 2 by its name", 4),
        ("no panchromatic or multispectral chip of SpaceNet 2 by its name", 2),
    }


@pytest.mark.parametrize("inner", ["", "AOI_2_Vegas_Train"])
def test_an_unpacked_part_will_do(inner: str, tmp_path: Path) -> None:
    make.spacenet(tmp_path)
    unpack(tmp_path / "SN2_buildings_train_AOI_2_Vegas.tar.gz", tmp_path / "unpacked")
    build(tmp_path / "unpacked" / inner, tmp_path / "out")
    found = sorted(key for key, *_ in read_with_public_libraries(tmp_path / "out"))
    assert found == ["AOI_2_Vegas_train_img1", "AOI_2_Vegas_train_img7"]


def test_halves_of_other_places_and_other_bands_are_named(tmp_path: Path) -> None:
    make.broken(tmp_path)
    with pytest.raises(ItemError, match="lie apart"):
        build(tmp_path, tmp_path / "out")
    report = build(tmp_path, tmp_path / "out", on_error="skip")
    assert [row.item for row in report.rejected] == ["AOI_2_Vegas_train_img1", "AOI_2_Vegas_train_img2"]
    assert "ms has 4 bands" in report.rejected[1].reason
