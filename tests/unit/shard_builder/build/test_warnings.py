"""Settings, patterns and tables that fit nothing of an input are named by plan and build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfm_pipeline.errors import ArchiveError
from shard_builder.build.build import build_collection
from shard_builder.build.forecast import describe_forecast, forecast
from shard_builder.build.report import describe
from shard_builder.config import BuildConfig
from tests.make.archives import MAKERS
from tests.make.folder import npy
from tests.unit.shard_builder.sources.planning import plan_input

S2 = {"files": "{date}/{key}.npy", "bands": ["B2"], "dtype": "uint16", "units": "reflectance"}
DEM = {"files": "dem/{key}.npy", "bands": ["h"], "dtype": "int16", "units": "m", "optional": True}


def images(folder: Path) -> None:
    for number, date in enumerate(("20210105", "20220205", "20230305")):
        (folder / date).mkdir(parents=True)
        (folder / date / f"p{number}.npy").write_bytes(npy(np.full((8, 8), 2000 + number, np.uint16)))


@pytest.mark.parametrize(
    ("override", "warning"),
    [
        ({"offset_files": "2021*"}, None),
        (
            {"offset_files": "2019*"},
            "sensors.s2: offset_files '2019*' fits no image of s2: offset -1000 is added to none",
        ),
        ({"offset_since": "2022-01-25"}, None),
        ({"offset_since": "2024-01-01"}, "sensors.s2: offset_since 2024-01-01 fits no image of s2"),
        ({"offset_files": "2021*", "offset_since": "2022-01-25"}, "offset_files '2021*' and offset_since 2022-01-25"),
    ],
)
def test_an_offset_that_no_image_gets(override: dict[str, str], warning: str | None, tmp_path: Path) -> None:
    images(tmp_path)
    plan = plan_input("folder", tmp_path, options={"sensors": {"s2": S2}}, sensors={"s2": {"offset": -1000} | override})
    assert len(plan.warnings) == (warning is not None)
    assert warning is None or warning in plan.warnings[0]


@pytest.mark.parametrize(
    ("keys", "warning"),
    [
        (("p0", "p1", "p2"), None),
        (("p1",), None),
        (("p0", "P1", "p9"), "labels.csv: 1 of its 3 keys are of no sample, e.g. p9"),
        (("a", "b"), "labels.csv: none of its 2 keys is that of a sample, e.g. a"),
    ],
)
def test_a_table_of_other_keys(keys: tuple[str, ...], warning: str | None, tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / "labels.csv").write_text("key,class\n" + "".join(f"{key},1\n" for key in keys))
    options = {"sensors": {"s2": S2}, "table": {"file": "labels.csv"}}
    expected = () if warning is None else (warning,)
    assert plan_input("folder", tmp_path, options=options).warnings == expected
    if "P1" not in keys:  # places that are cut to tiles are told apart by case
        assert plan_input("folder", tmp_path, options=options, tile_px=4).warnings == expected


def test_published_lists_may_know_more_places_than_the_input(tmp_path: Path) -> None:
    MAKERS["sen12ms"](tmp_path)
    (tmp_path / "test_list.txt").write_text("ROIs1158_spring_s2_9_p9.tif\n")
    with (tmp_path / "train_list.txt").open("a") as file:
        file.write("ROIs1158_spring_s2_8_p8.tif\n")
    warning = "test_list.txt: none of its 1 keys is that of a sample, e.g. ROIs1158_spring_9_p9"
    assert plan_input("sen12ms", tmp_path).warnings == (warning,)


def test_an_optional_sensor_without_files(tmp_path: Path) -> None:
    images(tmp_path)
    options: dict[str, Any] = {"sensors": {"s2": S2, "dem": DEM}}
    warning = "no file fits 'dem/{key}.npy' of options.sensors.dem.files, which is optional"
    assert plan_input("folder", tmp_path, options=options).warnings == (warning,)
    configured = {"dem": {"offset": -1, "offset_files": "dem/*"}}
    assert plan_input("folder", tmp_path, options=options, sensors=configured).warnings == (warning,)  # named once
    options["sensors"]["dem"] = DEM | {"optional": False}
    with pytest.raises(ArchiveError, match=r"no file in .* fits 'dem/\{key\}\.npy'"):
        plan_input("folder", tmp_path, options=options)


def test_a_sensor_that_no_sample_has(tmp_path: Path) -> None:
    MAKERS["sen12ms"](tmp_path)
    for path in tmp_path.glob("*_s1.tar.gz"):
        path.unlink()
    assert plan_input("sen12ms", tmp_path).warnings == ("no sample has s1",)


def test_plan_and_build_print_warnings(tmp_path: Path) -> None:
    images(tmp_path / "raw")
    override = {"offset": -1000, "offset_files": "2019*"}
    config = BuildConfig(
        source="folder",
        input=str(tmp_path / "raw"),
        output=str(tmp_path / "out"),
        options={"sensors": {"s2": S2}},
        sensors={"s2": override},
    )
    planned = list(describe_forecast(forecast(config, False, lambda _: None), config))
    built = list(describe(build_collection(config, "build", lambda _: None), config))
    for lines in (planned, built):
        assert [line for line in lines if line.startswith("  warning: sensors.s2: offset_files '2019*' fits no image")]
