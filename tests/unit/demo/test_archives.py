"""The archives: the published layouts, the same bytes every time, whole or not there."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import tarfile
import zipfile

import imagecodecs
import numpy as np
import pytest
import tifffile

from gfm_pipeline.sensors import builtin_sensor
from shard_builder.demo.archives import ArchiveSet
from shard_builder.demo.families import FAMILIES, SUB_AREA_PX, Family, Request
from shard_builder.demo.materials import COVER_NAMES, LAND_COVER_CODES
from shard_builder.demo.write import RECORD, find_finished, write_archives

from .conftest import SMALL

SEASONS = ("ROIs1158_spring", "ROIs1868_summer", "ROIs1970_fall", "ROIs2017_winter")


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def page(data):
    return tifffile.TiffFile(io.BytesIO(data)).pages[0]


def tar_members(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}


def test_folder_holds_the_published_archives_and_nothing_unfinished(demo_folder):
    sen12ms = {f"{season}_{sensor}.tar.gz" for season in SEASONS for sensor in ("s1", "s2", "lc")}
    assert {path.name for path in demo_folder.iterdir()} == sen12ms | {
        "Augsburg_data_4_publication.zip",
        "GeoPileV0.zip",
        "GeoPileV0_labels.csv",
        "millionaid_test.zip",
        "millionaid_test_labels.csv",
        RECORD,
    }


def test_same_arguments_give_the_same_bytes(demo_folder, tmp_path):
    write_archives(tmp_path / "again", SMALL, lambda *progress: None)
    assert digests(tmp_path / "again") == digests(demo_folder)


def test_sen12ms_patches(demo_folder):
    spring = {sensor: tar_members(demo_folder / f"ROIs1158_spring_{sensor}.tar.gz") for sensor in ("s1", "s2", "lc")}
    for sensor, members in spring.items():
        assert list(members) == [f"ROIs1158_spring/{sensor}_1/ROIs1158_spring_{sensor}_1_p{n}.tif" for n in (1, 2)]
    expected = {"s1": (2, np.float32), "s2": (13, np.uint16), "lc": (4, np.uint16)}
    for sensor, (bands, dtype) in expected.items():
        for data in spring[sensor].values():
            found = page(data)
            assert found.shape == (SMALL.tile_px, SMALL.tile_px, bands)
            assert found.dtype == dtype
    assert len(builtin_sensor("s2").bands) == 13
    codes = page(next(iter(spring["lc"].values()))).asarray()
    known = {tuple(row) for row in LAND_COVER_CODES.tolist()}
    assert {tuple(row) for row in np.unique(codes.reshape(-1, 4), axis=0).tolist()} <= known


def test_sen12ms_patches_lie_side_by_side_in_one_zone(demo_folder):
    where = []
    for sensor in ("s1", "s2", "lc"):
        for data in tar_members(demo_folder / f"ROIs1158_spring_{sensor}.tar.gz").values():
            geo = page(data).geotiff_tags
            assert geo["ModelPixelScale"] == [10.0, 10.0, 0.0]
            where.append((int(geo["ProjectedCSTypeGeoKey"]), *geo["ModelTiepoint"][3:5]))
    first, second = where[:2]
    assert where == [first, second] * 3
    assert 32601 <= first[0] <= 32760
    assert second == (first[0], first[1] + 10 * SMALL.tile_px, first[2])


def test_mdas_sub_area(demo_folder):
    with zipfile.ZipFile(demo_folder / "Augsburg_data_4_publication.zip") as archive:
        folder = "Augsburg_data_4_publication/sub_area_1"
        assert [name.rpartition("/")[0] for name in archive.namelist()] == [folder] * 4
        colour, height, buildings, water = (
            page(archive.read(f"{folder}/{name}_sub_area1.tif"))
            for name in ("3K_RGB", "3K_DSM", "osm_buildings", "osm_water")
        )
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
    assert (colour.shape, colour.dtype) == ((SUB_AREA_PX, SUB_AREA_PX, 3), np.uint8)
    assert (height.shape, height.dtype) == ((SUB_AREA_PX, SUB_AREA_PX), np.float32)
    assert colour.geotiff_tags["ModelTiepoint"] == height.geotiff_tags["ModelTiepoint"]
    assert colour.tags["ImageDescription"].value.startswith("Synthetic")
    roofs, dsm = buildings.asarray() > 0, height.asarray()
    assert roofs.mean() > 0.01
    ring = np.zeros_like(roofs)
    for shift in (-8, 8):
        ring |= np.roll(roofs, shift, 0) | np.roll(roofs, shift, 1)
    assert dsm[roofs].mean() > dsm[ring & ~roofs & (water.asarray() == 0)].mean() + 2


def test_colour_images_and_their_labels(demo_folder):
    decode = {"jpg": imagecodecs.jpeg8_decode, "png": imagecodecs.png_decode, "tif": lambda data: page(data).asarray()}
    for archive, count in (("GeoPileV0", 10), ("millionaid_test", 2)):
        with zipfile.ZipFile(demo_folder / f"{archive}.zip") as file:
            names = file.namelist()
            for name in names:
                image = decode[name.rpartition(".")[2]](file.read(name))
                assert image.shape == (SMALL.tile_px, SMALL.tile_px, 3)
                assert image.dtype == np.uint8
        assert len(names) == count
        rows = list(csv.DictReader((demo_folder / f"{archive}_labels.csv").open()))
        assert [row["member"] for row in rows] == names
        for row in rows:
            shares = [float(row[name]) for name in COVER_NAMES]
            assert sum(shares) == pytest.approx(1, abs=1e-3)
            assert row["label"] == COVER_NAMES[int(np.argmax(shares))]
    with zipfile.ZipFile(demo_folder / "GeoPileV0.zip") as file:
        assert {name.split("/")[0] for name in file.namelist()} == {"GeoPileV0"}
        assert {name.rpartition(".")[2] for name in file.namelist()} == set(decode)


def test_failure_leaves_no_archive_behind(tmp_path):
    def write_some():
        with ArchiveSet(tmp_path) as archives:
            for name in ("a.tar.gz", "b.zip", "c.csv"):
                archives.add(name, "one", b"1")
            assert len(list(tmp_path.iterdir())) == 3
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_some()
    assert list(tmp_path.iterdir()) == []


def test_only_one_item_is_in_memory_at_a_time(tmp_path, monkeypatch):
    """The first archives are on disk before the last item is asked for, and items are asked for one by one."""
    asked, written = [], []

    def item(request, index):
        asked.append(index)
        size = (tmp_path / ".tmp-big.zip").stat().st_size if index else 0
        written.append(size)
        yield "big.zip", f"{index}.bin", bytes(300_000)

    monkeypatch.setattr("shard_builder.demo.write.FAMILIES", (Family("Big", lambda places: places, item),))
    monkeypatch.setattr("shard_builder.demo.write.ALL", ("Big",))
    done = []
    write_archives(tmp_path, Request(6, 32, 0), lambda name, index, count: done.append((index, len(asked))))
    assert done == [(n, n) for n in range(1, 7)]
    assert all(later - earlier >= 250_000 for earlier, later in itertools.pairwise(written[1:]))


def test_interrupted_run_continues_with_the_next_family(tmp_path, demo_folder, monkeypatch):
    def cut(request, index):
        raise RuntimeError("power cut")

    folder = tmp_path / "raw"
    broken = (*FAMILIES[:2], Family("GeoPile", lambda places: 1, cut))
    monkeypatch.setattr("shard_builder.demo.write.FAMILIES", broken)
    with pytest.raises(RuntimeError, match="power cut"):
        write_archives(folder, SMALL, lambda *progress: None)
    assert not (folder / RECORD).exists()
    assert find_finished(folder, SMALL) is None
    monkeypatch.undo()
    finished = folder / "Augsburg_data_4_publication.zip"
    before = finished.stat().st_mtime_ns
    write_archives(folder, SMALL, lambda *progress: None)
    assert finished.stat().st_mtime_ns == before
    assert digests(folder) == digests(demo_folder)


def test_interrupted_run_of_other_arguments_starts_over(tmp_path, demo_folder, monkeypatch):
    folder = tmp_path / "raw"
    monkeypatch.setattr("shard_builder.demo.write.FAMILIES", FAMILIES[:1])
    write_archives(folder, Request(8, 32, 1), lambda *progress: None)
    (folder / RECORD).rename(folder / f".tmp-{RECORD}")
    monkeypatch.undo()
    write_archives(folder, SMALL, lambda *progress: None)
    assert digests(folder) == digests(demo_folder)
