"""Whether the numbers of Sentinel-2 products carry an offset, by their metadata and names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gfm_pipeline.config import load_config
from gfm_pipeline.errors import ConfigError
from shard_builder.build.build import build_collection
from shard_builder.config import BuildConfig
from shard_builder.sources.base import make_source
from tests.conftest import ROOT
from tests.contracts.test_sources import read_with_public_libraries
from tests.make.archives import zipped
from tests.make.products import metadata_of, raster_file

ALL = (-1000.0,) * 13
NONE = b""
SAYS_NOTHING = b"<xml/>"


def made(folder: Path, name: str, metadata: bytes, level: str = "L2A", date: str = "20220703T103041") -> None:
    """Write a small product with one band in each resolution that it has."""
    safe = f"S2A_MSI{level}_{date}_N{name}_R108_T32TMT_20220703T163015.SAFE"
    top = f"{safe}/GRANULE/{level}_T32TMT_A036719_20220703T103442/IMG_DATA"
    image = np.array([[[0, 400], [1000, 3000]]], np.uint16)
    members = {f"{safe}/MTD_MSI{level}.xml": metadata} if metadata else {}
    members[f"{top}/R10m/T32TMT_{date}_B02_10m.jp2"] = raster_file(image.repeat(8, 1).repeat(8, 2), 10, "JP2OpenJPEG")
    zipped(folder / f"{safe}.zip", members)


def built(folder: Path) -> tuple[dict[str, list[int]], list[str]]:
    """Return the values of the four quarters of every sample, and the reasons of what was rejected."""
    words = [f"input={folder}/raw", f"output={folder}/out", "workers=1", "tile_px=16", "on_error=skip"]
    config = load_config(ROOT / "configs/build/sentinel2_safe.yaml", BuildConfig, words)
    sensor = config.options["sensors"]["s2_l2a"] | {"bands": ["B2"], "optional": False}
    config = config.model_copy(update={"options": config.options | {"sensors": {"s2_l2a": sensor}}, "max_nodata": 1.0})
    config.sensors.pop("s2")
    report = build_collection(config, "build", lambda _: None)
    found = {
        key: rasters["s2_l2a"][..., ::8, ::8].ravel().tolist()
        for key, rasters, _ in read_with_public_libraries(folder / "out")
    }
    return found, [row.reason for row in report.rejected]


@pytest.mark.parametrize(
    ("name", "metadata", "carries"),
    [
        ("0400", metadata_of("L2A", ALL, "04.00"), True),
        ("0214", metadata_of("L2A", (), "02.14"), False),
        ("9999", metadata_of("L2A", ALL, "99.99"), True),
        ("9999", metadata_of("L2A", (), "99.99"), False),
        ("0509", metadata_of("L2A", (0.0,) * 13, "05.09"), False),  # taken off by somebody who says so
        ("0214", metadata_of("L2A", ALL, "05.00"), True),  # what the metadata say wins over a name
        ("0510", NONE, True),
        ("0300", NONE, False),
        ("1000", NONE, True),
        ("0510", SAYS_NOTHING, True),
    ],
)
def test_products_say_whether_they_carry_the_offset(name: str, metadata: bytes, carries: bool, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    made(tmp_path / "raw", name, metadata)
    found, reasons = built(tmp_path)
    assert not reasons
    assert list(found.values()) == [[0, 1, 1, 2000] if carries else [0, 400, 1000, 3000]]


@pytest.mark.parametrize(
    ("name", "metadata", "reason"),
    [
        ("9999", NONE, "its name has N9999"),
        ("9999", SAYS_NOTHING, "its name has N9999"),
        ("0400", metadata_of("L2A", (), "04.00"), "is of baseline 04.00, which has an offset, and names none"),
        ("0400", metadata_of("L2A", (-1000.0, -500.0), "04.00"), "names offsets -1000, -500, the configuration -1000"),
        ("0400", metadata_of("L2A", ALL, "04.00", 1000), "numbers are reflectance x 1000, expected x 10000"),
        ("0400", b"<a><b></a>", "mismatched tag"),
        ("0400", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "has a document type"),
        ("0400", b"<a><PROCESSING_BASELINE>new</PROCESSING_BASELINE></a>", "could not convert string to float"),
    ],
)
def test_products_that_do_not_say_it_are_refused(name: str, metadata: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    made(tmp_path / "raw", name, metadata)
    made(tmp_path / "raw", "0214", NONE, date="20200101T103041")
    found, reasons = built(tmp_path)
    assert list(found) == ["32TMT_20200101T103041_r0_c0"]
    (said,) = reasons
    assert reason in said


def test_dates_of_a_series_carry_it_or_not_each_by_its_own_product(tmp_path: Path) -> None:
    for date, values, name in (("20200101", 2500, "0214"), ("20220101", 3500, "0400")):
        image = np.full((1, 8, 8), values, np.uint16)
        folder = tmp_path / "raw" / f"S2A_MSIL2A_{date}T000000_N{name}_R108_T32TMT_{date}T000001.SAFE"
        folder.mkdir(parents=True)
        (folder / f"x_{date}.tif").write_bytes(raster_file(image, 10, nodata=0))
    options = {"sensors": {"s2_l2a": {"files": "*.SAFE/{key}_{date}.tif", "bands": ["B2"]}}}
    sensors = {"s2_l2a": {"offset": -1000, "offset_evidence": "product"}}
    where = {"input": f"{tmp_path}/raw", "output": f"{tmp_path}/out", "tile_px": 8}
    config = BuildConfig(source="scenes", options=options, sensors=sensors, **where)
    build_collection(config, "build", lambda _: None)
    ((_, rasters, _),) = read_with_public_libraries(tmp_path / "out")
    assert rasters["s2_l2a"].shape == (2, 1, 8, 8)
    assert rasters["s2_l2a"][:, 0, 0, 0].tolist() == [2500, 2500]


def test_a_source_that_reads_no_metadata_refuses_the_setting() -> None:
    sensors = {"s2": {"offset": -1000, "offset_evidence": "product"}}
    with pytest.raises(ConfigError, match="source sen12ms reads no metadata of products"):
        make_source(BuildConfig(source="sen12ms", input="in", output="out", sensors=sensors))
