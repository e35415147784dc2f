"""SEN12MS and SEN12MS-CR: land cover, splits, one season alone, and triplets from genuine pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfm_pipeline.errors import ArchiveError
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.config import BuildConfig
from shard_builder.sources.sen12mscr import Sen12MSCR
from tests.conftest import ROOT
from tests.contracts.test_sources import read_with_public_libraries, unpack
from tests.make.archives import MAKERS, tar_gz, tiff

RAW = ROOT.parent / "shared" / "raw"
LAYOUT = ROOT.parent / "shared" / "layouts" / "sen12ms"


def build(source: str, raw: Path, out: Path, **more: Any) -> BuildReport:
    config = BuildConfig(source=source, input=str(raw), output=str(out), **more)
    return build_collection(config, "build", lambda _: None)


def test_land_cover_is_a_label_raster_and_lists_are_splits(tmp_path: Path) -> None:
    MAKERS["sen12ms"](tmp_path)
    report = build("sen12ms", tmp_path, tmp_path / "out")
    metas = {key: meta for key, _, meta in read_with_public_libraries(tmp_path / "out")}
    assert {key: meta["labels"].get("split") for key, meta in metas.items()} == {
        "ROIs1158_spring_1_p1": "train",
        "ROIs1158_spring_1_p2": "train",
        "ROIs1868_summer_7_p30": None,
        "ROIs1868_summer_9_p5": None,
    }
    assert report.manifest is not None
    assert report.manifest.sensors["lc"].kind == "labels"
    assert report.manifest.samples_with["lc"] == 1
    (tmp_path / "test_list.txt").write_text("ROIs1158_spring_s2_1_p1.tif\n\nnonsense.tif\n")
    with pytest.raises(ArchiveError, match=r"test_list\.txt, line 3: found 'nonsense\.tif'"):
        build("sen12ms", tmp_path, tmp_path / "again")


@pytest.mark.parametrize("source", ["sen12ms", "sen12mscr"])
def test_the_folder_of_one_season_will_do(source: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    truth = MAKERS[source](raw)
    unpacked = tmp_path / "unpacked"
    for path in raw.glob("ROIs1158_spring_*"):
        unpack(path, unpacked)
    if source == "sen12ms":
        season = unpacked / "ROIs1158_spring"
    else:
        season = tmp_path / "spring"
        season.mkdir()
        for folder in unpacked.iterdir():
            for scene in folder.iterdir():
                scene.rename(season / scene.name)
    build(source, season, tmp_path / "out")
    found = {key for key, *_ in read_with_public_libraries(tmp_path / "out")}
    assert found == {key for key in truth if key.startswith("ROIs1158_spring")}


@pytest.mark.skipif(not RAW.exists(), reason=f"{RAW} is not there")
def test_genuine_triplets(tmp_path: Path) -> None:
    report = build("sen12mscr", RAW, tmp_path / "out", unpaired="drop")
    found = {key: meta["sensors"] for key, _, meta in read_with_public_libraries(tmp_path / "out")}
    assert sorted(found) == ["ROIs1970_fall_139_p839", "ROIs2017_winter_112_p797"]
    assert all(sensors.keys() == {"s1", "s2", "s2_cloudy"} for sensors in found.values())
    assert report.manifest is not None
    assert report.manifest.counts["samples_dropped"] > 0


@pytest.mark.skipif(not LAYOUT.exists(), reason=f"{LAYOUT} is not there")
def test_the_published_layout(tmp_path: Path) -> None:
    # Every patch is there twice, packed and unpacked, with noise between 0 and 1 for decibels.
    linear = {"s1": {"convert": "linear_to_db"}}
    report = build("sen12ms", LAYOUT, tmp_path / "out", on_error="skip", sensors=linear)
    assert report.manifest is not None
    assert report.manifest.num_samples == 8
    assert {entry.sensors for entry in report.manifest.shards} == {("s1", "s2", "lc")}
    assert sum("is that of" in row.reason for row in report.rejected) == 24


def test_scenes_of_sen12ms_cr_have_the_split_of_its_authors(tmp_path: Path) -> None:
    scenes = [scene for by_season in Sen12MSCR.published_splits.values() for s in by_season.items() for scene in s[1]]
    counts = {name: sum(map(len, seasons.values())) for name, seasons in Sen12MSCR.published_splits.items()}
    assert counts == {"train": 155, "val": 10, "test": 10}
    assert len(scenes) == 175
    patches = {
        (season, n): name for name, by in Sen12MSCR.published_splits.items() for season in by for n in by[season]
    }
    assert len(patches) == 175  # no scene is in two of them
    members = {
        f"ROIs1158_spring_s1/s1_{n}/ROIs1158_spring_s1_{n}_p1.tif": tiff(np.full((8, 8, 2), -9, np.float32))
        for n in (1, 17, 106, 999)
    }
    tar_gz(tmp_path / "ROIs1158_spring_s1.tar.gz", members)
    build("sen12mscr", tmp_path, tmp_path / "out")
    metas = {key: meta["labels"] for key, _, meta in read_with_public_libraries(tmp_path / "out")}
    assert metas == {
        "ROIs1158_spring_1_p1": {"split": "train"},
        "ROIs1158_spring_17_p1": {"split": "val"},
        "ROIs1158_spring_106_p1": {"split": "test"},
        "ROIs1158_spring_999_p1": {},
    }
    (tmp_path / "test_list.txt").write_text("ROIs1158_spring_s1_1_p1.tif\n")
    build("sen12mscr", tmp_path, tmp_path / "own")
    own = {key: meta["labels"] for key, _, meta in read_with_public_libraries(tmp_path / "own")}
    assert own == {key: {"split": "test"} if key == "ROIs1158_spring_1_p1" else {} for key in metas}
