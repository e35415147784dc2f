"""One contract for every source: what goes into its archives comes out of its shards, bit for bit."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import webdataset
from PIL import Image

from gfm_pipeline.errors import ArchiveError, ConfigError, GfmError, ItemError, UsageError
from gfm_pipeline.shards.stats import measure, merge
from shard_builder.archives import ArchiveReader
from shard_builder.build.build import BuildReport, build_collection
from shard_builder.build.forecast import forecast
from shard_builder.config import BuildConfig
from shard_builder.sources.base import SOURCES
from tests.conftest import ROOT
from tests.make import archives
from tests.make.archives import BREAKERS, LONELY, MAKERS, OPTIONS, sen12ms, tar_gz, tiff, utm, zipped


def configured(source: str, raw: Path, out: Path, **more: Any) -> BuildConfig:
    tiles = {"tile_px": 64} if SOURCES.get(source).tiled else {}
    more = {"options": OPTIONS.get(source, {})} | more
    return BuildConfig(source=source, input=str(raw), output=str(out), **tiles, **more)


def build(source: str, raw: Path, out: Path, fresh: bool = False, **more: Any) -> BuildReport:
    return build_collection(configured(source, raw, out, **more), "fresh" if fresh else "build", lambda _: None)


def read_with_public_libraries(out: Path) -> Iterator[tuple[str, dict[str, np.ndarray], dict[str, Any]]]:
    urls = sorted(str(path) for path in (out / "shards").glob("*.tar"))
    for sample in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False):
        meta = json.loads(sample["json"])
        rasters = {}
        for sensor, about in meta["sensors"].items():
            data = sample[f"{sensor}.{about['codec']}"]
            if about["codec"] == "jpg":
                rasters[sensor] = np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1)
            else:
                flat = np.frombuffer(imagecodecs.blosc2_decode(data), about["dtype"])
                rasters[sensor] = flat.reshape(about["shape"])
        yield sample["__key__"], rasters, meta


def digests(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(params=SOURCES.names())
def source(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    assert name in MAKERS, f"source {name} has no archive maker in tests/make/archives.py: write one"
    return name


def test_pixels_come_out_as_they_went_in(source: str, tmp_path: Path) -> None:
    truth = MAKERS[source](tmp_path)
    report = build(source, tmp_path, tmp_path / "out")
    found = {key: rasters for key, rasters, _ in read_with_public_libraries(tmp_path / "out")}
    assert found.keys() == truth.keys()
    for key, rasters in truth.items():
        assert found[key].keys() == rasters.keys(), key
        for sensor, raster in rasters.items():
            np.testing.assert_array_equal(found[key][sensor], raster, err_msg=f"{key} {sensor}")
            assert found[key][sensor].dtype == raster.dtype
    assert report.manifest.num_samples == len(truth)
    assert not report.rejected


def test_every_record_is_true(source: str, tmp_path: Path) -> None:
    truth = MAKERS[source](tmp_path)
    out = tmp_path / "out"
    manifest = build(source, tmp_path, out).manifest
    for entry in manifest.shards:
        tar = (out / "shards" / f"{entry.name}.tar").read_bytes()
        assert (len(tar), hashlib.sha256(tar).hexdigest()) == (entry.bytes, entry.sha256)
        document = (out / "shards" / f"{entry.name}.json").read_bytes()
        assert hashlib.sha256(document).hexdigest() == entry.sidecar_sha256
        sidecar = json.loads(document)
        assert len(sidecar["samples"]) == entry.samples
        for sample in sidecar["samples"]:
            assert sample["sensors"].keys() == set(entry.sensors)
            for member in [sample["meta"], *sample["sensors"].values()]:
                data = tar[member["offset"] : member["offset"] + member["size"]]
                assert zlib.crc32(data) == member["crc32"]
    for sensor, bands in manifest.statistics.items():
        rasters = [rasters[sensor] for rasters in truth.values() if sensor in rasters]
        pixels = np.concatenate([np.moveaxis(r, -3, 0).reshape(len(bands), -1) for r in rasters], axis=1).astype(
            np.float64
        )
        assert [band.count for band in bands] == [pixels.shape[1]] * len(bands)
        np.testing.assert_allclose([band.mean for band in bands], pixels.mean(1), rtol=1e-9)
        np.testing.assert_allclose([band.std for band in bands], pixels.std(1), rtol=1e-9)
        assert [band.min for band in bands] == pixels.min(1).tolist()
        assert [band.max for band in bands] == pixels.max(1).tolist()


ELSEWHERE = """
import sys
from pathlib import Path
from shard_builder.build.build import build_share, merge_collection
from shard_builder.config import BuildConfig
from tests.make.archives import MAKERS

for line in sys.stdin:
    config = BuildConfig.model_validate_json(line)
    raw = Path(config.input)
    raw.mkdir()
    MAKERS[config.source](raw)
    for index in (2, 0, 1):
        build_share(config, index, 3, lambda _: None)
    merge_collection(config, lambda _: None)
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw archives and collections of all sources: shares in any order, by a process whose sets have another order."""
    folder = tmp_path_factory.mktemp("elsewhere")
    configs = [configured(name, folder / f"{name}-raw", folder / name, max_samples=2) for name in SOURCES.names()]
    lines = "\n".join(config.model_dump_json(exclude_unset=True) for config in configs)
    seeded = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], input=lines, text=True, cwd=ROOT, env=seeded, check=False)
    assert done.returncode == 0
    return folder


def test_any_order_by_any_process_gives_the_same_bytes(source: str, elsewhere: Path, tmp_path: Path) -> None:
    build(source, elsewhere / f"{source}-raw", tmp_path / "out", max_samples=2)
    one = digests(tmp_path / "out")
    assert one == digests(elsewhere / source)
    assert sum(name.endswith(".tar") for name in one) > 1


UNPACKED_AS = {"millionaid": "MillionAID"}
"""Folders that users have to make themselves, as the archive has none."""


def unpack(path: Path, folder: Path) -> bool:
    """Unpack an archive; return False for a file that is none."""
    folder.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        shutil.unpack_archive(path, folder)
    elif path.suffix == ".gz":
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    return path.suffix in (".zip", ".gz")


def test_an_unpacked_archive_is_the_same_archive(source: str, tmp_path: Path) -> None:
    raw, unpacked = tmp_path / "raw", tmp_path / "unpacked"
    raw.mkdir()
    truth = MAKERS[source](raw)
    for path in raw.iterdir():
        if not unpack(path, unpacked / UNPACKED_AS.get(source, "")):
            shutil.copy(path, unpacked)
    build(source, unpacked, tmp_path / "out")
    assert {key for key, *_ in read_with_public_libraries(tmp_path / "out")} == truth.keys()


def test_a_cut_archive_is_named(source: str, tmp_path: Path) -> None:
    MAKERS[source](tmp_path)
    archives = sorted(path for path in tmp_path.iterdir() if path.suffix in (".zip", ".gz"))
    victim = next(path for path in archives if not path.name.endswith("_s2_cloudy.tar.gz"))
    data = victim.read_bytes()
    for share in (0.0, 0.3, 0.9, 0.999):
        victim.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ArchiveError, match=victim.name):
            build(source, tmp_path, tmp_path / f"out{share}")
        assert not (tmp_path / f"out{share}" / "manifest.json").exists()


def test_a_cut_archive_is_left_out_whole(source: str, tmp_path: Path) -> None:
    """Under on_error=skip a build is one of the other archives, with one failure more."""
    raw = tmp_path / "raw"
    raw.mkdir()
    MAKERS[source](raw)
    archives = sorted(path for path in raw.iterdir() if path.suffix in (".zip", ".gz"))
    victim = next(path for path in archives if not path.name.endswith("_s2_cloudy.tar.gz"))
    victim.write_bytes(victim.read_bytes()[:-30])
    config = configured(source, raw, tmp_path / "out", on_error="skip")
    report = build_collection(config, "build", lambda _: None)
    (row,) = [row for row in report.rejected if row.source_file == victim.name]
    assert row.policy == "on_error=skip"
    assert f"{row.item}: {row.reason}" in forecast(config, False, lambda _: None).problems
    victim.unlink()
    try:
        build(source, raw, tmp_path / "without", on_error="skip")
    except ArchiveError:  # nothing is there but what was cut
        assert report.manifest is not None
        assert report.manifest.num_samples == 0
        return
    shards = [{k: v for k, v in digests(tmp_path / out).items() if k.endswith(".tar")} for out in ("out", "without")]
    assert shards[0] == shards[1]
    assert shards[0]


def test_nothing_there_is_said(source: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        build(source, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArchiveError, match=f"holds nothing that source {source} knows; found nothing, expected"):
        build(source, tmp_path / "empty", tmp_path / "out")


def test_every_bad_item_is_an_error_or_a_row(source: str, tmp_path: Path) -> None:
    _break_one_item(source, tmp_path)
    with pytest.raises(ItemError):
        build(source, tmp_path, tmp_path / "fail")
    report = build(source, tmp_path, tmp_path / "skip", on_error="skip")
    rows = [json.loads(line) for line in (tmp_path / "skip" / "failures.jsonl").read_text().splitlines()]
    assert rows
    assert [row["reason"] for row in rows] == [item.reason for item in report.rejected]
    counts = report.manifest.counts
    assert counts["samples_packed"] + counts["samples_rejected"] == counts["samples_planned"]
    assert counts["samples_rejected"] + counts["items_rejected"] == len(rows)


def _break_one_item(source: str, folder: Path) -> None:
    if source in BREAKERS:
        BREAKERS[source](folder)
    elif source == "sen12ms":
        archives.sen12ms(folder, s2_bands=12)
    elif source == "mdas":
        top = "Augsburg_data_4_publication/sub_area_1"
        grey = archives.tiff(np.zeros((70, 70), np.uint16))
        dsm = archives.tiff(np.full((70, 70), np.nan, np.float32))
        names = {f"{top}/3K_RGB_sub_area1.tif": grey, f"{top}/3K_DSM_sub_area1.tif": dsm}
        archives.zipped(folder / "Augsburg_data_4_publication.zip", names)
    else:
        name, top = ("GeoPileV0.zip", "GeoPileV0/a") if source == "geopile" else ("millionaid_test.zip", "test")
        good = imagecodecs.png_encode(np.zeros((8, 8, 3), np.uint8))
        members = {"good.png": good, "zero.jpg": b"", "torn.png": good[:40], "deep.png": b"no image at all"}
        members["sixteen.png"] = imagecodecs.png_encode(np.zeros((8, 8, 3), np.uint16))
        archives.zipped(folder / name, {f"{top}/{n}": data for n, data in members.items()})


def test_the_numbers_add_up_and_the_faulty_file_is_named(tmp_path: Path) -> None:
    top, lc = "ROIs1158_spring", "ROIs1158_spring_{0}_1_p{1}.tif"
    good = {s: archives.tiff(np.ones((8, 8, n), d)) for s, n, d in (("s1", 2, np.float32), ("s2", 13, np.uint16))}
    for sensor, data in good.items():
        members = {f"{top}/{sensor}_1/{lc.format(sensor, patch)}": data for patch in range(4)}
        if sensor == "s2":
            members[f"{top}/s2_1/{lc.format('s2', 1)}"] = archives.tiff(np.ones((8, 8, 12), np.uint16))
            members[f"{top}/s2_1/{lc.format('s2', 2)}"] = data[: len(data) // 2]
        archives.tar_gz(tmp_path / f"{top}_{sensor}.tar.gz", members | {f"{top}/../{sensor}.tif": data})
    report = build("sen12ms", tmp_path, tmp_path / "out", on_error="skip", max_samples=3)
    assert report.manifest.counts == {
        "items_found": 10,
        "items_rejected": 2,
        "samples_planned": 4,
        "samples_packed": 2,
        "samples_rejected": 2,
        "samples_unpaired": 0,
        "samples_dropped": 0,
        "samples_duplicate": 1,
        "samples_without_data": 0,
        "samples_without_location": 2,
    }
    rows = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    assert [row["source_file"] for row in rows if row["shard"]] == [
        f"{top}_s2.tar.gz!{top}/s2_1/{lc.format('s2', patch)}" for patch in (1, 2)
    ]
    assert {path.name for path in tmp_path.iterdir()} == {f"{top}_s1.tar.gz", f"{top}_s2.tar.gz", "out"}


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_an_archive_beside_its_unpacked_copy_is_not_packed_twice(source: str, policy: str, tmp_path: Path) -> None:
    truth = MAKERS[source](tmp_path)
    for path in list(tmp_path.iterdir()):
        unpack(path, tmp_path / UNPACKED_AS.get(source, ""))
    if policy == "fail":
        with pytest.raises(ItemError, match=r"duplicate of|is that of"):
            build(source, tmp_path, tmp_path / "out")
        return
    report = build(source, tmp_path, tmp_path / "out", on_error="skip")
    assert report.manifest.num_samples == len(truth)
    assert len(report.rejected) >= len(truth) / 4  # tiles of one image may be rejected as one


HOSTILE = {"a b/ok.png": "ok", "../../up.png": "leaves", "/abs.png": "absolute", "a/zero.png": "begins with nothing"}


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_nothing_hostile_gets_out_of_the_output(policy: str, tmp_path: Path) -> None:
    image = imagecodecs.png_encode(np.zeros((8, 8, 3), np.uint8))
    raw = tmp_path / "deep" / "raw"
    raw.mkdir(parents=True)
    members = {name: b"" if "zero" in name else image for name in HOSTILE} | {"a/.hid.png": b"?", "__MACOSX/x.png": b""}
    archives.zipped(raw / "GeoPileV0.zip", members)
    if policy == "fail":
        with pytest.raises(ItemError, match=r"GeoPileV0\.zip!"):
            build("geopile", raw, tmp_path / "out")
    else:
        report = build("geopile", raw, tmp_path / "out", on_error="skip")
        assert {row.source_file.partition("!")[2]: True for row in report.rejected} == {
            name: True for name, why in HOSTILE.items() if why != "ok"
        }
        assert all(HOSTILE[row.source_file.partition("!")[2]] in row.reason for row in report.rejected)
        assert [key for key, *_ in read_with_public_libraries(tmp_path / "out")] == ["a_b_ok"]
    assert {path.name for path in tmp_path.iterdir()} <= {"deep", "out"}
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["raw", "GeoPileV0.zip"]


def test_keys_of_tiles_do_not_clash_with_those_of_images(tmp_path: Path) -> None:
    big = imagecodecs.png_encode(np.zeros((64, 100, 3), np.uint8))
    small = imagecodecs.png_encode(np.ones((8, 8, 3), np.uint8))
    archives.zipped(
        tmp_path / "GeoPileV0.zip", {"a/x.png": big, "a/x_r0_c36.png": small, "a/Y.png": small, "a/y.png": big}
    )
    with pytest.raises(ItemError, match=r"x_r0_c36\.png: its key a_x_r0_c36 is that of GeoPileV0.zip!a/x\.png"):
        build("geopile", tmp_path, tmp_path / "out")
    build("geopile", tmp_path, tmp_path / "out", on_error="skip")
    keys = [key for key, *_ in read_with_public_libraries(tmp_path / "out")]
    assert len({key.lower() for key in keys}) == len(keys) == 5


def test_damaged_geotiff_tags_cost_the_place_not_the_sample(tmp_path: Path) -> None:
    top = "ROIs1158_spring"
    for sensor, bands, dtype in (("s1", 2, np.float32), ("s2", 13, np.uint16)):
        data = archives.tiff(np.ones((8, 8, bands), dtype), **archives.utm(float("inf"), float("nan"), 32))
        archives.tar_gz(tmp_path / f"{top}_{sensor}.tar.gz", {f"{top}/{sensor}_1/{top}_{sensor}_1_p1.tif": data})
    build("sen12ms", tmp_path, tmp_path / "out")
    (row,) = pq.read_table(tmp_path / "out" / "catalog.parquet").to_pylist()
    assert (row["geometry"], row["crs"], row["sensors"]) == (None, None, ["s1", "s2"])


def one_s1(folder: Path, image_HWC: np.ndarray) -> None:
    top = "ROIs1158_spring"
    archives.tar_gz(folder / f"{top}_s1.tar.gz", {f"{top}/s1_1/{top}_s1_1_p1.tif": archives.tiff(image_HWC)})


def test_infinite_pixels_are_refused(tmp_path: Path) -> None:
    image = np.ones((8, 8, 2), np.float32)
    image[3, 4, 1] = np.inf
    one_s1(tmp_path, image)
    with pytest.raises(ItemError, match=r"s1 has 1 infinite pixels in .*_p1\.tif"):
        build("sen12ms", tmp_path, tmp_path / "out")


@pytest.mark.parametrize("nodata", [None, -9999.0])
def test_what_was_not_measured_counts_in_no_statistics(nodata: float | None, tmp_path: Path) -> None:
    image = np.full((8, 8, 2), -3, np.float32)
    image[:4, :, 1] = np.nan if nodata is None else nodata
    one_s1(tmp_path, image)
    manifest = build("sen12ms", tmp_path, tmp_path / "out", sensors={"s1": {"nodata": nodata}}).manifest
    assert manifest is not None
    assert [(band.count, band.mean, band.std) for band in manifest.statistics["s1"]] == [(64, -3, 0), (32, -3, 0)]
    ((_, rasters, meta),) = read_with_public_libraries(tmp_path / "out")
    np.testing.assert_array_equal(rasters["s1"], image.transpose(2, 0, 1))
    assert meta["sensors"]["s1"]["nodata_share"] == 0.25


def test_places_without_data_are_left_out_and_counted(tmp_path: Path) -> None:
    image = np.full((8, 8, 2), np.nan, np.float32)
    one_s1(tmp_path, image)
    report = build("sen12ms", tmp_path, tmp_path / "out")
    assert [(row.reason, row.policy) for row in report.rejected] == [("100% of s1 was not measured", "max_nodata=0.9")]
    assert report.manifest is not None
    assert report.manifest.counts["samples_without_data"] == 1
    assert not report.failed


def test_tiles_lie_where_they_were_cut(tmp_path: Path) -> None:
    image = archives.tiff(np.zeros((64, 100, 3), np.uint8), **archives.utm(600000, 5400000, 32))
    archives.zipped(tmp_path / "GeoPileV0.zip", {"a/x.tif": image})
    build("geopile", tmp_path, tmp_path / "out")
    meta = {key: meta for key, _, meta in read_with_public_libraries(tmp_path / "out")}
    assert meta["a_x_r0_c0"]["transform"] == [10.0, 0.0, 600000.0, 0.0, -10.0, 5400000.0]
    assert meta["a_x_r0_c36"]["transform"] == [10.0, 0.0, 600360.0, 0.0, -10.0, 5400000.0]
    west = [min(x for x, _ in meta[key]["footprint"]) for key in ("a_x_r0_c0", "a_x_r0_c36")]
    assert west[1] > west[0]


def test_a_place_without_tags_is_null_in_the_catalog(tmp_path: Path) -> None:
    truth = MAKERS["geopile"](tmp_path)
    build("geopile", tmp_path, tmp_path / "out", max_samples=3)
    rows = pq.read_table(tmp_path / "out" / "catalog.parquet").to_pylist()
    assert {row["key"] for row in rows} == truth.keys()
    assert {row["geometry"] for row in rows} == {None}
    for row in rows:
        sidecar = json.loads((tmp_path / "out" / "shards" / f"{row['shard']}.json").read_text())
        assert row["key"] in [sample["key"] for sample in sidecar["samples"]]


def test_a_wrong_number_of_bands_names_file_found_expected_and_remedy(tmp_path: Path) -> None:
    sen12ms(tmp_path, s2_bands=12)
    with pytest.raises(ItemError) as caught:
        build("sen12ms", tmp_path, tmp_path / "out")
    for words in ("s2 has 12 bands", "_s2_", ".tif", "declares 13 (B1, B2", "sensors.s2.bands", "on_error=skip"):
        assert words in str(caught.value)


@pytest.mark.parametrize(("policy", "packed"), [("keep", 4), ("drop", 3)])
def test_a_missing_partner_is_data(policy: str, packed: int, tmp_path: Path) -> None:
    sen12ms(tmp_path)
    report = build("sen12ms", tmp_path, tmp_path / "out", unpaired=policy)
    lonely = f"{LONELY[0]}_{LONELY[1]}_p{LONELY[2]}"
    assert report.plan is not None
    assert report.plan.unpaired == (f"{lonely} has no s1",)
    assert report.manifest.num_samples == packed
    assert set(report.manifest.shards[0].sensors) == {"lc", "s1", "s2"}
    assert [item.item for item in report.rejected] == ([lonely] if policy == "drop" else [])


def test_a_missing_partner_can_be_an_error(tmp_path: Path) -> None:
    sen12ms(tmp_path)
    with pytest.raises(ItemError, match="_p5 has no s1"):
        build("sen12ms", tmp_path, tmp_path / "out", unpaired="error")


def test_rules_are_counted_and_originals_kept(tmp_path: Path) -> None:
    MAKERS["geopile"](tmp_path)
    counts = build("geopile", tmp_path, tmp_path / "out").manifest.counts
    assert counts["rule: alpha channel dropped"] == 1
    assert counts["rule: grey repeated to three bands"] == 1
    meta = {key: meta for key, _, meta in read_with_public_libraries(tmp_path / "out")}
    assert meta["NAIP_farm_plain"]["sensors"]["rgb"]["codec"] == "jpg"
    assert meta["NAIP_farm_true"]["labels"] == {"folder": "NAIP/farm", "class": "farm"}
    assert meta["NAIP_farm_gr_er_r0_c36"]["sensors"]["rgb"]["window"] == [0, 36, 64, 64]


def test_the_place_is_that_of_the_tags(tmp_path: Path) -> None:
    import shapely
    from pyproj import Transformer

    sen12ms(tmp_path)
    build("sen12ms", tmp_path, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "catalog.parquet")
    assert json.loads(table.schema.metadata[b"geo"])["primary_column"] == "geometry"
    assert table.num_rows == 4
    to_wgs84 = Transformer.from_crs("EPSG:32632", "OGC:CRS84", always_xy=True)
    west, north = to_wgs84.transform(600000, 5400000)
    for row in table.to_pylist():
        polygon = shapely.from_wkb(row["geometry"])
        assert polygon.exterior.is_ccw
        assert min(abs(x - west) + abs(y - north) for x, y in polygon.exterior.coords) < 1e-9
        assert row["crs"] == "EPSG:32632"
        assert row["gsd_m"] == 10.0


def test_another_configuration_does_not_mix_into_a_collection(tmp_path: Path) -> None:
    MAKERS["geopile"](tmp_path)
    out = tmp_path / "out"
    build("geopile", tmp_path, out)
    (out / "mine.txt").write_text("keep me")
    other = out / "shards" / "sen12ms" / "shards" / "sen12ms-000000.tar"  # a collection of someone's below "shards"
    other.parent.mkdir(parents=True)
    other.write_text("keep me too")
    (other.parent / "sen12ms-000000.json").write_text("{}")
    theirs = out / "shards" / "theirs-000000.tar"  # a WebDataset shard of someone's, by its name
    theirs.write_text("keep me as well")
    with pytest.raises(GfmError, match="--fresh"):
        build("geopile", tmp_path, out, max_samples=3)
    again = build("geopile", tmp_path, out)
    assert again.plan is None
    build("geopile", tmp_path, out, fresh=True, max_samples=3)
    assert (out / "mine.txt").read_text() == "keep me"
    assert other.read_text() == "keep me too"
    assert theirs.read_text() == "keep me as well"


def test_an_unfinished_build_of_another_plan_is_not_mixed_in(tmp_path: Path) -> None:
    MAKERS["geopile"](tmp_path)
    out = tmp_path / "out"
    build("geopile", tmp_path, out, max_samples=2)
    (out / "manifest.json").unlink()  # as a build that was killed leaves it
    (out / "shards" / "geopile-000003.json").unlink()
    with pytest.raises(ConfigError, match=r"shards of another plan.*--fresh"):
        build("geopile", tmp_path, out, max_samples=5)
    with pytest.raises(ConfigError, match=r"shards of another plan"):  # the same shards by name and size
        build("geopile", tmp_path, out, max_samples=2, on_error="skip")
    for path in (out / "shards").glob("*.json"):
        path.unlink()
    build("geopile", tmp_path, out, max_samples=5)  # nothing was committed: tars alone are no shards, and go
    build("geopile", tmp_path, tmp_path / "whole", max_samples=5)
    assert digests(out) == digests(tmp_path / "whole")


@pytest.mark.parametrize("victim", ["geopile-000001.json", "geopile-000001.tar"])
@pytest.mark.parametrize("damage", ["lost", "cut"])
def test_a_shard_with_a_damaged_tar_or_sidecar_is_written_again(victim: str, damage: str, tmp_path: Path) -> None:
    MAKERS["geopile"](tmp_path)
    out = tmp_path / "out"
    whole = build("geopile", tmp_path, out, max_samples=2).manifest
    before = digests(out)
    (out / "manifest.json").unlink()
    path = out / "shards" / victim
    path.write_bytes(path.read_bytes()[:-200])
    if damage == "lost":
        path.unlink()
    report = build("geopile", tmp_path, out, max_samples=2)
    assert report.resumed_shards == len(whole.shards) - 1
    assert report.manifest.digest == whole.digest
    assert digests(out) == before


def test_fresh_with_a_mistyped_input_costs_nothing(tmp_path: Path) -> None:
    MAKERS["geopile"](tmp_path)
    out = tmp_path / "out"
    build("geopile", tmp_path, out)
    before = digests(out)
    with pytest.raises(UsageError):
        build("geopile", tmp_path / "nowhere", out, fresh=True)
    assert digests(out) == before


def test_statistics_do_not_depend_on_how_they_are_split() -> None:
    raster = np.random.default_rng(0).normal(500, 3, (2, 64, 64)).astype(np.float32)
    whole = measure(raster, ("a", "b"))
    parts = merge(measure(raster[:, i : i + 16], ("a", "b")) for i in range(0, 64, 16))
    for one, other in zip(whole, parts, strict=True):
        assert (one.count, one.min, one.max) == (other.count, other.min, other.max)
        assert one.mean == pytest.approx(other.mean, rel=1e-12)
        assert one.std == pytest.approx(other.std, rel=1e-9)


def test_other_pixels_in_members_of_the_same_size_are_not_mixed_in(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for top in (2, 9000):  # what compresses well, then what does not
        rng = np.random.default_rng(top)
        for sensor, bands, dtype in (("s1", 2, "float32"), ("s2", 13, "uint16")):
            images = {
                f"ROIs1158_spring/{sensor}_1/ROIs1158_spring_{sensor}_1_p{i}.tif": _plain_tiff(
                    rng.integers(0, top, (16, 16, bands)).astype(dtype) * (-1 if sensor == "s1" else 1)
                )
                for i in range(3)
            }
            tar_gz(raw / f"ROIs1158_spring_{sensor}.tar.gz", images)
        if top == 2:
            build("sen12ms", raw, out, max_samples=1)
            (out / "manifest.json").unlink()  # as a build that was killed leaves it
            (out / "shards" / "sen12ms-000002.json").unlink()
    with pytest.raises(ConfigError, match="input has changed since"):
        build("sen12ms", raw, out, max_samples=1)


def _plain_tiff(image_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image_HWC, planarconfig="contig", photometric="minisblack")
    return buffer.getvalue()


def test_fresh_keeps_the_old_collection_until_the_new_one_is_planned(tmp_path: Path) -> None:
    MAKERS["geopile"](tmp_path)
    out = tmp_path / "out"
    build("geopile", tmp_path, out)
    before = digests(out)
    (tmp_path / "GeoPileV0.zip").write_bytes(b"damaged")
    for raw, error in ((tmp_path / "mistyped", UsageError), (tmp_path, ArchiveError)):
        with pytest.raises(error):
            build("geopile", raw, out, fresh=True)
        assert digests(out) == before


def test_a_named_codec_replaces_original_bytes(tmp_path: Path) -> None:
    truth = MAKERS["geopile"](tmp_path)
    build("geopile", tmp_path, tmp_path / "out", sensors={"rgb": {"codec": "blosc2"}})
    found = {key: (rasters, meta) for key, rasters, meta in read_with_public_libraries(tmp_path / "out")}
    assert {meta["sensors"]["rgb"]["codec"] for _, meta in found.values()} == {"blosc2"}
    for key, rasters in truth.items():
        np.testing.assert_array_equal(found[key][0]["rgb"], rasters["rgb"])


@pytest.mark.parametrize(("shift", "zone", "apart"), [(0, 32, False), (4, 32, False), (6, 32, True), (0, 33, True)])
def test_sensors_that_lie_apart_are_no_sample(shift: float, zone: int, apart: bool, tmp_path: Path) -> None:
    top = "ROIs1158_spring"
    s1 = tiff(np.full((64, 64, 2), -9, np.float32), **utm(600000, 5400000, 32))
    s2 = tiff(np.zeros((64, 64, 13), np.uint16), **utm(600000 + shift, 5400000, zone))
    for sensor, data in (("s1", s1), ("s2", s2)):
        tar_gz(tmp_path / f"{top}_{sensor}.tar.gz", {f"{top}/{sensor}_1/{top}_{sensor}_1_p1.tif": data})
    if not apart:
        assert build("sen12ms", tmp_path, tmp_path / "out").manifest.num_samples == 1
        return
    with pytest.raises(ItemError, match="s1 and s2 of ROIs1158_spring_1_p1 lie apart"):
        build("sen12ms", tmp_path, tmp_path / "out")
    assert len(build("sen12ms", tmp_path, tmp_path / "skip", on_error="skip").failed) == 1


@pytest.mark.parametrize(("kind", "folder"), [("zip", "MillionAID"), ("folder", "MillionAID"), ("zip", "raw")])
def test_splits_of_a_published_folder_keep_apart(kind: str, folder: str, tmp_path: Path) -> None:
    raw = tmp_path / folder
    raw.mkdir()
    image = imagecodecs.png_encode(np.zeros((8, 8, 3), np.uint8))
    for split in ("train", "test"):
        zipped(raw / f"{split}.zip", {f"{split}/land/meadow/P1.png": image})
        if kind == "folder":
            shutil.unpack_archive(raw / f"{split}.zip", raw)
            (raw / f"{split}.zip").unlink()
    build("millionaid", raw, tmp_path / "out")
    labels = {key: meta["labels"] for key, _, meta in read_with_public_libraries(tmp_path / "out")}
    assert labels == {
        f"{split}_land_meadow_P1": {"folder": f"{split}/land/meadow", "class": "meadow"} for split in ("test", "train")
    }


def test_the_unpacked_folder_itself_gives_the_same_keys(tmp_path: Path) -> None:
    for source, name in (("geopile", "GeoPileV0"), ("mdas", "Augsburg_data_4_publication")):
        truth = MAKERS[source](tmp_path)
        shutil.unpack_archive(tmp_path / f"{name}.zip", tmp_path / "unpacked")
        build(source, tmp_path / "unpacked" / name, tmp_path / source)
        assert {key for key, *_ in read_with_public_libraries(tmp_path / source)} == truth.keys()


def test_a_large_image_is_decoded_once_and_one_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MAKERS["mdas"](tmp_path)
    opened, calls = ArchiveReader.open, []
    monkeypatch.setattr(ArchiveReader, "open", lambda self, ref: calls.append(ref.member[-17:]) or opened(self, ref))
    assert build("mdas", tmp_path, tmp_path / "out").manifest.num_samples == 6
    # Once for its header, once for all tiles; integers once more for the nodata value that they may declare.
    header = tiles = ["RGB_sub_area1.tif", "DSM_sub_area1.tif"]
    assert calls == [*header, "RGB_sub_area1.tif", *tiles]


@pytest.mark.parametrize("policy", ["keep", "drop"])
def test_places_with_the_same_bytes_are_counted_or_dropped(policy: str, tmp_path: Path) -> None:
    top = "ROIs1158_spring"
    for sensor, bands, dtype in (("s1", 2, np.float32), ("s2", 13, np.uint16)):
        image = archives.tiff(np.ones((8, 8, bands), dtype))
        other = archives.tiff(np.full((8, 8, bands), 2, dtype))
        members = {f"{top}/{sensor}_1/{top}_{sensor}_1_p{i}.tif": image for i in (1, 2)}
        members[f"{top}/{sensor}_1/{top}_{sensor}_1_p3.tif"] = other if sensor == "s1" else image
        archives.tar_gz(tmp_path / f"{top}_{sensor}.tar.gz", members)
    report = build("sen12ms", tmp_path, tmp_path / "out", duplicates=policy)
    assert report.manifest is not None
    assert report.manifest.counts["samples_duplicate"] == 1
    assert report.manifest.num_samples == (3 if policy == "keep" else 2)
    rows = [(row.item, row.reason, row.policy) for row in report.rejected]
    keys = [f"{top}_1_p{i}" for i in (1, 2)]
    assert rows == ([] if policy == "keep" else [(keys[1], f"same bytes as {keys[0]}", "duplicates=drop")])


def test_units_and_offsets_are_stated_rules(tmp_path: Path) -> None:
    top = "ROIs1158_spring"
    linear = np.full((8, 8, 2), 0.1, np.float32)
    linear[0, 0] = (1.0, 0.0)
    s2 = np.full((8, 8, 13), 1500, np.uint16)
    s2[0, 0] = 700
    for sensor, image in (("s1", linear), ("s2", s2)):
        data = archives.tiff(image)
        members = {f"{top}/{sensor}_1/{top}_{sensor}_1_p{i}.tif": data for i in (1, 2)}
        archives.tar_gz(tmp_path / f"{top}_{sensor}.tar.gz", members)
    with pytest.raises(ItemError, match=r"seems to be linear power. Set sensors\.s1\.convert=linear_to_db"):
        build("sen12ms", tmp_path, tmp_path / "fail")
    sensors = {"s1": {"convert": "auto"}, "s2": {"offset": -1000, "offset_files": "*_p2.tif"}}
    report = build("sen12ms", tmp_path, tmp_path / "out", sensors=sensors)
    assert report.manifest is not None
    counts = report.manifest.counts
    assert counts["rule: s1: converted from linear to dB"] == 2
    assert counts["rule: s2: offset -1000 added"] == 1
    found = {key[-2:]: rasters for key, rasters, _ in read_with_public_libraries(tmp_path / "out")}
    np.testing.assert_allclose(found["p1"]["s1"][0, 0, :2], [0, -10], atol=1e-5)
    assert np.isnan(found["p1"]["s1"][1, 0, 0])  # no power has no decibel
    assert found["p1"]["s2"][0, 0].tolist() == [700] + [1500] * 7
    assert found["p2"]["s2"][0, 0].tolist() == [0] + [500] * 7  # clipped, not wrapped


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_images_come_in_tars_too(suffix: str, tmp_path: Path) -> None:
    truth = MAKERS["geopile"](tmp_path)
    with zipfile.ZipFile(tmp_path / "GeoPileV0.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()} | {"GeoPileV0/more.zip": b"PK"}
    with tarfile.open(tmp_path / f"GeoPileV0.{suffix}", "w:gz" if suffix.endswith("gz") else "w") as target:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            target.addfile(info, io.BytesIO(data))
    (tmp_path / "GeoPileV0.zip").unlink()
    report = build("geopile", tmp_path, tmp_path / "out")
    found = {key: rasters["rgb"] for key, rasters, _ in read_with_public_libraries(tmp_path / "out")}
    assert found.keys() == truth.keys()
    for key, rasters in truth.items():
        np.testing.assert_array_equal(found[key], rasters["rgb"])
    assert report.plan is not None
    assert any(item.reason.startswith("archives inside an archive") for item in report.plan.ignored)
