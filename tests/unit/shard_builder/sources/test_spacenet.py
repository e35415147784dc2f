"""SpaceNet 2: two resolutions of one place, two generations of names, an unpacked part given directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfm_pipeline.errors import ItemError
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.config import BuildConfig
from tests.contracts.test_sources import read_with_public_libraries, unpack
from tests.make import spacenet as make
from tests.make.archives import tiff


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
        "ms_ps": ([8, 48, 48], 0.3),
    }
    assert report.manifest is not None
    assert report.manifest.sensors["ms"].nodata == 0
    assert report.plan is not None
    assert {(told.reason, told.files) for told in report.plan.ignored} == {
        ("chips that options.sensors does not ask for", 1),
        ("chips that options.sensors does not ask for", 1),
        ("no chip of SpaceNet 2 by its name", 1),
    }


def test_pan_sharpened_copies_are_chosen(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    truth = make.spacenet(tmp_path / "raw")
    for number, sensors in enumerate([("pan", "ms"), ("ms", "rgb_ps"), ("ms", "ms_ps")]):
        out = tmp_path / f"out{number}"
        build(tmp_path / "raw", out, options={"sensors": sensors})
        found = {key: rasters for key, rasters, _ in read_with_public_libraries(out)}
        assert all(set(rasters) == set(sensors) for rasters in found.values())
        for key, rasters in found.items():
            if "rgb_ps" in rasters:
                np.testing.assert_array_equal(rasters["rgb_ps"], truth[key]["ms_ps"][[4, 2, 1]])


@pytest.mark.parametrize("kind", ["MUL-PanSharpen", "mul-pansharpen"])
def test_an_unpacked_city_keeps_its_kinds_apart(kind: str, tmp_path: Path) -> None:
    chip = tiff(np.ones((8, 8, 8), np.uint16))
    for folder in ("MUL", kind):
        (tmp_path / "AOI_2_Vegas_Train" / folder).mkdir(parents=True)
        (tmp_path / f"AOI_2_Vegas_Train/{folder}/{folder}_AOI_2_Vegas_img1.tif").write_bytes(chip)
    build(tmp_path / "AOI_2_Vegas_Train", tmp_path / "out")
    ((key, rasters, _),) = read_with_public_libraries(tmp_path / "out")
    assert (key, set(rasters)) == ("AOI_2_Vegas_train_img1", {"ms", "ms_ps"})


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
