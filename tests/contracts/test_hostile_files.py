"""Hundreds of files that lie, in one build beside good ones: each is named, nothing else suffers."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import pytest
import yaml

from gfm_pipeline.errors import GfmError, ItemError
from shard_builder.archives import tar
from shard_builder.sources.shared.packed_size import SAFE_BYTES, compressor_of, unpacks_to_more
from tests.contracts.test_sources import build
from tests.make.hostile import PATCH, S1, TOP
from tests.make.hostile_arrays import BOMB, bombs, files, special_files

MEMORY_BYTES = 4 * 2**30
"""Address space of the build, most of it libraries; the files claim petabytes."""
PEAK_KILOBYTES = 900_000
"""Memory in use at most."""
CPU_SECONDS = 240
"""After so much the kernel ends the build: no file may keep it for ever."""
TWO = {"bands": ["b0", "b1"], "dtype": "uint16", "units": "dn", "optional": True}
SENSORS = {
    "h5": {**TWO, "files": "h5/{key}.h5", "dataset": "a"},
    "dated": {**TWO, "files": "dated/{key}.nc", "dataset": "a", "axes": "TCHW", "dates": "time"},
    "npy": {**TWO, "files": "npy/{key}.npy"},
    "zarr": {**TWO, "files": "zarr/{key}.zarr.zip"},
    "tif": {**TWO, "files": "tif/{key}.tif"},
    "png": {"bands": ["R", "G", "B"], "dtype": "uint8", "units": "dn", "optional": True, "files": "png/{key}.png"},
}
EXTENSIONS = {"h5": "h5", "dated": "nc", "npy": "npy", "zarr": "zarr.zip", "tif": "tif", "png": "png"}
PROGRAM = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
resource.setrlimit(resource.RLIMIT_CPU, ({CPU_SECONDS}, {CPU_SECONDS}))
from shard_builder.cli import main
try:
    main()
finally:
    # Not ru_maxrss, which a process has from the one that started it.
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print("peak", peak.split()[1], file=sys.stderr)
"""


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if "out" not in path.parts}


@pytest.mark.timeout(600)
def test_every_file_that_lies_is_named_and_the_others_are_packed(tmp_path: Path) -> None:
    raw, keys = tmp_path / "deep" / "raw", []
    for folder, key, data in files():
        (raw / folder).mkdir(parents=True, exist_ok=True)
        (raw / folder / f"{folder}-{key}.{EXTENSIONS[folder]}").write_bytes(data)
        keys.append(f"{folder}-{key}")
    keys += special_files(raw / "npy")
    assert len(keys) >= 200
    assert len(set(keys)) == len(keys)
    config = {"source": "folder", "input": str(raw), "output": str(tmp_path / "out"), "on_error": "skip"}
    config |= {"options": {"sensors": SENSORS}}
    (tmp_path / "build.yaml").write_text(yaml.safe_dump(config))
    before = tree(tmp_path)
    words = [sys.executable, "-c", PROGRAM, "build", "--config", str(tmp_path / "build.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 3, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    peak = int(next(line for line in done.stderr.splitlines() if line.startswith("peak")).split()[1])
    assert peak < PEAK_KILOBYTES
    assert tree(tmp_path) == before

    rows = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    named = {key for key in keys for row in rows if key in (row["item"], Path(row["source_file"]).name.split(".")[0])}
    packed = {
        sample["key"]
        for path in (tmp_path / "out" / "shards").glob("*.json")
        for sample in json.loads(path.read_text())["samples"]
    }
    assert [key for key in keys if "-good" in key and key not in packed] == []
    assert [key for key in keys if "-bad" in f"-{key}" and key not in named] == []
    assert sorted({*named, *packed}) == sorted(keys)
    assert all(row["reason"].strip() and row["policy"] == "on_error=skip" for row in rows)
    shards = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"root:" not in shards


def padded(folder: Path, size: int) -> None:
    """Write a tar that ends as it should, and then goes on as zeros that take no room on a disk."""
    with tarfile.open(folder / f"{TOP}_s1.tar", "w") as archive:
        info = tarfile.TarInfo(PATCH.format(1))
        info.size = len(S1)
        archive.addfile(info, io.BytesIO(S1))
    with (folder / f"{TOP}_s1.tar").open("r+b") as file:
        file.truncate(size)


def header(kind: bytes, size: int, content: bytes = b"", count: int = 1) -> Callable[[Path], None]:
    """Return what writes a tar that begins with extension headers of a claimed size."""

    def write(folder: Path) -> None:
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, size
        block = info.tobuf(tarfile.GNU_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")
        (folder / f"{TOP}_s1.tar").write_bytes(block * count + bytes(1024))

    return write


def pipe(folder: Path) -> None:
    import os

    os.mkfifo(folder / f"{TOP}_s1.tar.gz")


ARCHIVES: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (pipe, "no regular file"),
    "device": (lambda f: (f / f"{TOP}_s1.tar.gz").symlink_to("/dev/zero"), "no regular file"),
    "terabyte of zeros": (lambda f: padded(f, 2**40), "of zeros follow"),
    "pax of 3 GB": (header(tarfile.XHDTYPE, 3 * 2**30), "claims an extension of 3221225472 bytes"),
    "pax of 8 EB": (header(tarfile.XGLTYPE, 2**63), "claims an extension"),
    "long name of 3 GB": (header(tarfile.GNUTYPE_LONGNAME, 3 * 2**30), "claims an extension"),
    "long link of 3 GB": (header(tarfile.GNUTYPE_LONGLINK, 3 * 2**30), "claims an extension"),
    "pax in pax": (header(tarfile.XHDTYPE, 12, b"12 path=abc\n", 3000), "damaged or cut short"),
    "pax of nonsense": (header(tarfile.XHDTYPE, 512, b"\xff" * 512), "damaged or cut short"),
    "pax size": (header(tarfile.XHDTYPE, 14, b"14 size=-9999\n"), "damaged or cut short"),
    "pax sparse": (header(tarfile.XHDTYPE, 26, b"26 GNU.sparse.map=1,x,y,z\n"), "damaged or cut short"),
    "pax number": (header(tarfile.XHDTYPE, 20, b"99999999999 a=b\n\0\0\0\0"), "damaged or cut short"),
}


@pytest.mark.parametrize(("name", "on_error"), [("pipe", "fail"), *((name, "skip") for name in ARCHIVES)])
def test_an_archive_that_has_no_end_is_refused(
    name: str, on_error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, words = ARCHIVES[name]
    monkeypatch.setattr(tar, "MAX_PADDING_BYTES", 2**24)
    make(tmp_path)
    try:
        (row,) = build("sen12ms", tmp_path, tmp_path / "out", on_error=on_error).rejected
        told = f"{row.source_file}: {row.reason}"
    except GfmError as error:
        told = str(error)
    assert words in told
    assert f"{TOP}_s1.tar" in told


@pytest.mark.parametrize("name", ["zlib", "gzip", "bz2", "lzma", "zstd", "blosc"])
def test_what_a_chunk_unpacks_to_is_known_before_it_is_unpacked(name: str) -> None:
    data = bombs()[name]
    assert unpacks_to_more(data, 128)
    assert unpacks_to_more(data, BOMB - 1)
    assert not unpacks_to_more(data, BOMB)
    assert not unpacks_to_more(data[: len(data) // 2], 2**40)
    assert not unpacks_to_more(bytes(data)[:3], 128)
    assert SAFE_BYTES < BOMB


@pytest.mark.parametrize("declared", [True, False])
def test_all_frames_of_a_zstd_chunk_count(declared: bool) -> None:
    frame = bombs()["zstd"]
    if not declared:  # a stream, whose length nobody knew when it began
        assert frame[4] >> 6 == 2
        start = 9 if frame[4] >> 5 & 1 else 10  # behind the declared size, after a window where it is not one piece
        frame = frame[:4] + b"\0" + b"\x70" + frame[start:]
    small = imagecodecs.zstd_encode(b"small", level=1)
    skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    for data in (frame, small + frame, skipped + frame, frame + small, small + skipped + frame):
        assert unpacks_to_more(data, BOMB - 1, "zstd")
        assert not unpacks_to_more(data, BOMB + 2**20, "zstd")
    assert not unpacks_to_more((small + skipped) * 1000, 128)


def test_a_compressor_is_known_by_the_metadata_where_its_bytes_say_nothing() -> None:
    engine = zlib.compressobj(1, zlib.DEFLATED, 13)  # begins with 58, not with 78
    data = b"".join([*(engine.compress(bytes(2**24)) for _ in range(BOMB >> 24)), engine.flush()])
    assert unpacks_to_more(data, 128, "zlib")
    assert not unpacks_to_more(data, BOMB, "zlib")
    blosc = bytearray(bombs()["blosc"])
    blosc[12] ^= 1  # its own length is wrong
    assert unpacks_to_more(bytes(blosc), 128, "blosc")
    sharding = {"name": "sharding_indexed", "configuration": {"codecs": [{"name": "gzip"}]}}
    assert compressor_of([{"name": "bytes"}, {"name": "numcodecs.zlib"}, {"name": "crc32c"}], "x") == "zlib"
    assert compressor_of([None, {"id": "shuffle"}], "x") is None
    assert compressor_of([sharding], "x") == "gzip"
    with pytest.raises(ItemError, match="compressed by zstd and gzip"):
        compressor_of([{"name": "zstd"}, sharding], "x")


def test_loose_files_that_cannot_be_opened_are_their_own_errors(tmp_path: Path) -> None:
    """A link that leads nowhere and a pipe, under the names of patches, beside good ones."""
    import os

    raw = tmp_path / "raw"
    (raw / "h5").mkdir(parents=True)
    for folder, key, data in files():
        if (folder, key) == ("h5", "good"):
            (raw / "h5" / "good.h5").write_bytes(data)
            (raw / "good.h5").write_bytes(data)
    (raw / "lost.h5").symlink_to(tmp_path / "nowhere")
    os.mkfifo(raw / "pipe.h5")
    sensors = {"a": {**TWO, "files": "{key}.h5", "dataset": "a"}}
    report = build("folder", raw, tmp_path / "out", on_error="skip", options={"sensors": sensors})
    assert report.manifest is not None
    assert report.manifest.num_samples == 1
    assert {row.source_file for row in report.rejected} == {"lost.h5", "pipe.h5"}
