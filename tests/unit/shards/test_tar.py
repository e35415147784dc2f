"""A shard is a plain tar with the same bytes every time, and its records point at the members."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib

import pytest

from gfm_pipeline.errors import ShardError
from gfm_pipeline.shards.tar import ShardTar

SAMPLES = [("b", {"json": b"{}", "s2.npy": b"x" * 512}), ("a", {"s1.npy": b"", "json": b"[]"})]


def write() -> tuple[bytes, list[dict], tuple[int, str]]:
    buffer = io.BytesIO()
    tar = ShardTar(buffer)
    records = [tar.add(key, members) for key, members in SAMPLES]
    return buffer.getvalue(), records, tar.close()


def test_records_point_at_the_members() -> None:
    buffer = io.BytesIO()
    tar = ShardTar(buffer)
    records = {key: tar.add(key, members) for key, members in SAMPLES}
    size, sha256 = tar.close()
    data = buffer.getvalue()
    assert (size, sha256) == (len(data), hashlib.sha256(data).hexdigest())
    for key, members in SAMPLES:
        for name, content in members.items():
            record = records[key][name]
            assert data[record.offset : record.offset + record.size] == content
            assert record.crc32 == zlib.crc32(content)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        infos = archive.getmembers()
    assert [info.name for info in infos] == ["b.json", "b.s2.npy", "a.json", "a.s1.npy"]
    assert {(info.mtime, info.uname, info.uid, info.mode) for info in infos} == {(0, "gfm", 0, 0o444)}


def test_samples_of_any_size_are_written_as_they_come() -> None:
    buffer = io.BytesIO()
    tar = ShardTar(buffer)
    for number in range(200):
        tar.add(f"k{number}", {"json": b"{}", "s1.npy": b"x" * 3000})
        assert buffer.tell() >= number * 4000 - 2**15  # no shard gathers in memory
    size, sha256 = tar.close()
    assert (size, sha256) == (len(buffer.getvalue()), hashlib.sha256(buffer.getvalue()).hexdigest())


def test_the_same_samples_give_the_same_bytes() -> None:
    assert write()[2] == write()[2]


@pytest.mark.parametrize("key", ["", "a.b", "../a", "a/b", "ü", "-a", "x" * 73])
def test_keys_that_readers_would_cut_are_refused(key: str) -> None:
    with pytest.raises(ShardError, match="cannot be a sample key"):
        ShardTar(io.BytesIO()).add(key, {"json": b""})


@pytest.mark.parametrize("name", ["S1.npy", "__key__", "ü.npy", "x" * 99])
def test_member_names_that_readers_would_lose_are_refused(name: str) -> None:
    with pytest.raises(ShardError, match="cannot be a member"):
        ShardTar(io.BytesIO()).add("key", {name: b""})


def test_bytes_are_those_of_the_writer_that_webdataset_ships() -> None:
    from webdataset.writer import TarWriter

    theirs = io.BytesIO()
    writer = TarWriter(theirs, user="gfm", group="gfm", mode=0o444, mtime=0, encoder=False, compress=False)
    for key, members in SAMPLES:
        writer.write({"__key__": key, **members})
    writer.close()
    assert hashlib.sha256(theirs.getvalue()).hexdigest() == write()[2][1]


def test_a_key_is_taken_once() -> None:
    tar = ShardTar(io.BytesIO())
    tar.add("a", {"json": b""})
    with pytest.raises(ShardError, match="key a is in the shard already"):
        tar.add("a", {"json": b""})


def test_a_refused_sample_leaves_nothing_in_the_tar() -> None:
    buffer = io.BytesIO()
    tar = ShardTar(buffer)
    with pytest.raises(ShardError):
        tar.add("a", {"json": b"{}", "zz.NPY": b""})
    tar.close()
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as archive:
        assert archive.getnames() == []
