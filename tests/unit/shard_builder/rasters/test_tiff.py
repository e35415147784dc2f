"""TIFF by windows: the same pixels as the whole, from any file, within bounds."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from shard_builder.archives import MemberRef
from shard_builder.planned import PlannedRaster
from shard_builder.rasters import images, tiff_page
from shard_builder.rasters.images import load_rgb, load_tiff, read_size
from shard_builder.rasters.tiff import TiffImage, read_header
from tests.make import archives
from tests.make.reading import list_archive, reader

REF = MemberRef("", "folder", "x.tif", 1)
RNG = np.random.default_rng(5)
SMOOTH = (np.add.outer(np.arange(150), np.arange(210))[..., None] * np.array([1, 2, 0.5]) % 256).astype(np.uint8)
WINDOWS = [(0, 0, 150, 210), (0, 0, 1, 1), (149, 209, 1, 1), (31, 47, 70, 90), (64, 0, 64, 64), (86, 146, 64, 64)]


def written(image: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **{"photometric": "minisblack", **options})
    return buffer.getvalue()


KINDS: dict[str, bytes] = {
    "one strip": written(SMOOTH, photometric="rgb"),
    "strips": written(SMOOTH, photometric="rgb", rowsperstrip=17, compression="zlib", predictor=True),
    "one zstd strip": written(SMOOTH, photometric="rgb", rowsperstrip=150, compression="zstd"),
    "tiles": written(SMOOTH, photometric="rgb", tile=(64, 48), compression="lzw"),
    "raw tiles": written(SMOOTH[..., 0], tile=(32, 32)),
    "jpeg tiles": written(SMOOTH, photometric="rgb", tile=(64, 64), compression="jpeg"),
    "jpeg strips": written(SMOOTH, photometric="ycbcr", rowsperstrip=16, compression="jpeg", subsampling=(2, 2)),
    "planes": written(SMOOTH.transpose(2, 0, 1), planarconfig="separate", tile=(32, 32), compression="zlib"),
    "raw planes": written(SMOOTH.transpose(2, 0, 1).astype(np.uint16), planarconfig="separate"),
    "big endian": written(SMOOTH.astype(np.float32) / 7, byteorder=">", planarconfig="contig"),
    "big endian tiles": written(
        SMOOTH.astype(np.int16), byteorder=">", tile=(64, 64), planarconfig="contig", compression="zlib"
    ),
    "floats": written(RNG.normal(0, 9, (150, 210)).astype(np.float32), compression="zlib", predictor=3, rowsperstrip=9),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0, 2**27])
def test_windows_hold_the_pixels_of_the_whole(kind: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_page, "KEPT_BYTES", kept)
    monkeypatch.setattr(tiff_page, "_ROWS_BYTES", 3000)
    data = KINDS[kind]
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        raw = file.asarray()
    image = TiffImage(io.BytesIO(data), len(data), REF)
    whole = image.whole().pixels
    last = raw[..., None] if raw.ndim == 2 else raw.transpose(1, 2, 0) if "planes" in kind else raw
    np.testing.assert_array_equal(whole, last)
    assert image.shape == (whole.shape[2], 150, 210)
    for window in WINDOWS:
        row, column, height, width = window
        found = image.read(window).pixels
        assert found.dtype == whole.dtype
        np.testing.assert_array_equal(found, whole[row : row + height, column : column + width], err_msg=str(window))


def packed(folder: Path, how: str, data: bytes) -> MemberRef:
    if how == "folder":
        (folder / "raw").mkdir()
        (folder / "raw" / "x.tif").write_bytes(data)
        name = "raw"
    elif how == "tar.gz":
        archives.tar_gz(folder / (name := "a.tar.gz"), {"x.tif": data})
    else:
        with zipfile.ZipFile(folder / (name := "a.zip"), "w", getattr(zipfile, how)) as archive:
            archive.writestr("x.tif", data)
    (ref,) = list_archive(folder, name, folder / "work").members
    return ref


@pytest.mark.parametrize("how", ["folder", "ZIP_STORED", "ZIP_DEFLATED", "tar.gz"])
@pytest.mark.parametrize("windows", [False, True])
def test_tiles_are_the_same_from_memory_and_by_windows(
    how: str, windows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = packed(tmp_path, how, archives.tiff(SMOOTH, rowsperstrip=16, **archives.utm(600000, 5400000, 32)))
    if windows:
        monkeypatch.setattr(images, "WHOLE_BYTES", 0)
        monkeypatch.setattr("shard_builder.archives.ArchiveReader.read", None)
    files = reader(tmp_path, tmp_path / "work")
    spec = SensorSpec(name="x", bands=("a", "b", "c"), dtype="uint8", units="1")
    for load in (load_rgb, load_tiff):
        for window in WINDOWS:
            row, column, height, width = window
            decoded = load(PlannedRaster((ref,), window), spec, files)
            expected = SMOOTH.transpose(2, 0, 1)[:, row : row + height, column : column + width]
            np.testing.assert_array_equal(decoded.raster, expected)
            assert decoded.facts.georeference is not None
            assert decoded.facts.georeference.transform[2::3] == (600000 + 10 * column, 5400000 - 10 * row)
    files.close()


def test_the_directory_at_the_end_of_a_large_file_is_found_without_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = written(np.zeros((700, 900), np.uint16))
    data = data[:4] + len(data).to_bytes(4, "little") + data[8:] + moved_directory(data)
    ref = packed(tmp_path, "folder", data)
    monkeypatch.setattr("shard_builder.archives.ArchiveReader.read", None)
    assert read_size(ref, reader(tmp_path, tmp_path / "work")) == (700, 900)


def moved_directory(data: bytes) -> bytes:
    """Return the first directory of a little-endian TIFF, whose values lie where they did."""
    at = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[at : at + 2], "little")
    return data[at : at + 2 + 12 * entries] + bytes(4)


def header(data: bytes, folder: Path) -> None:
    ref = packed(folder, "folder", data)
    read_header(ref, reader(folder, folder / "work"))


def changed(data: bytes, tags: dict[int, int]) -> bytes:
    """Return a little-endian TIFF whose single values in some tags are others."""
    found = bytearray(data)
    at = int.from_bytes(data[4:8], "little")
    for i in range(int.from_bytes(data[at : at + 2], "little")):
        entry = at + 2 + 12 * i
        tag = int.from_bytes(data[entry : entry + 2], "little")
        if tag in tags:
            found[entry + 2 : entry + 12] = b"\x04\0\1\0\0\0" + tags[tag].to_bytes(4, "little")
    return bytes(found)


WIDTH, LENGTH, ROWS, COUNTS, OFFSETS, TILE = 256, 257, 278, 279, 273, 322
STRIP = written(np.zeros((64, 64), np.uint8), compression="zlib", rowsperstrip=64)


def test_claims_are_refused_when_planned(tmp_path: Path) -> None:
    with pytest.raises(ItemError, match=r"claims 1048576 x 1048576 pixels in \d+ bytes: refused as a bomb"):
        header(changed(STRIP, {WIDTH: 2**20, LENGTH: 2**20}), tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (changed(STRIP, {WIDTH: 2**20, LENGTH: 2**20}), "refused as a bomb"),
        (changed(STRIP, {COUNTS: 2**31}), "bytes for a strip or tile of 64 x 64 px"),
        (changed(STRIP, {OFFSETS: 2**31}), "beyond its"),
        (changed(STRIP, {COUNTS: 20}), "cannot be decoded"),
        (changed(STRIP, {COUNTS: 0}), "without data"),
        (changed(STRIP, {LENGTH: 65, ROWS: 64}), "cannot be decoded"),
        (changed(written(np.zeros((64, 64), np.uint8), tile=(64, 64), compression="zlib"), {TILE: 2**30}), "strip"),
        (written(np.zeros((64, 64), np.uint8))[:-2000], "beyond its"),
        (written(np.zeros((4, 64, 64), np.uint8), volumetric=True, tile=(16, 16, 16)), "axes ZYX"),
    ],
)
def test_windows_of_files_that_lie(data: bytes, words: str) -> None:
    with pytest.raises(ItemError, match=words):
        read_all(data)


def read_all(data: bytes) -> None:
    image = TiffImage(io.BytesIO(data), len(data), REF)
    image.read((0, 0, *image.shape[1:]))


def test_one_strip_beyond_the_bound_is_named_and_raw_pixels_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_page, "MAX_SEGMENT_BYTES", 2**14)
    with pytest.raises(ItemError, match=r"strips or tiles of 150 x 210 px, 94500 bytes; .*-co TILED=YES"):
        TiffImage(io.BytesIO(KINDS["one zstd strip"]), 2**20, REF).read((0, 0, 8, 8))
    found = TiffImage(io.BytesIO(KINDS["one strip"]), len(KINDS["one strip"]), REF).read((140, 200, 10, 10)).pixels
    np.testing.assert_array_equal(found, SMOOTH[140:, 200:])
