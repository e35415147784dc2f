"""One contract for every store, local or behind a server."""

from __future__ import annotations

import pickle
import uuid
from pathlib import Path

import numpy as np
import pytest

from gfm_pipeline.errors import StorageError
from gfm_pipeline.storage import Store, open_store

DATA = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "root"))
    request.getfixturevalue("s3")
    return open_store(f"s3://bucket/{uuid.uuid4().hex}")


def test_objects_come_back_whole_and_in_ranges(store: Store) -> None:
    store.put("a/b.bin", DATA)
    assert store.get("a/b.bin") == DATA
    assert store.get_range("a/b.bin", 3, 40) == DATA[3:43]
    assert store.get_range("a/b.bin", len(DATA) - 2, 10) == DATA[-2:]
    assert store.get_range("a/b.bin", len(DATA) + 5, 10) == b""
    assert store.get_range("a/b.bin", 7, 0) == b""
    store.put("a/b.bin", b"new")
    assert store.get("a/b.bin") == b"new"
    store.put("a/empty", b"")
    assert store.get("a/empty") == b""


def test_ranges_come_together(store: Store) -> None:
    big = DATA * 60  # 18 MB: more than two parts
    store.put("big", big)
    ranges = [(17_000_000, 1000), (5, 10), (15, 5), (0, 17_500_000), (3, 0), (len(big) - 7, 7), (len(big) - 2, 10)]
    expected = [big[start : start + length] for start, length in ranges]
    assert [bytes(data) for data in store.get_ranges("big", ranges)] == expected
    assert store.get("big") == big
    store.forget("big", 0, 10)
    assert store.get_range("big", 0, 10) == big[:10]


def test_a_folder_is_listed(store: Store) -> None:
    for name in ("b/2.bin", "b/1.bin", "a.bin", "b/c/3.bin", "ü x.bin", "b/.tmp-9"):
        store.put(name, name.encode())
    assert list(store.list("b")) == ["b/1.bin", "b/2.bin", "b/c/3.bin"]
    assert [entry for entry in store.walk("") if entry[0] == "b/c/3.bin"] == [("b/c/3.bin", 9)]
    assert list(store.names("")) == [("a.bin", False), ("b", True), ("ü x.bin", False)]
    assert list(store.names("b")) == [("1.bin", False), ("2.bin", False), ("c", True)]


def test_a_file_is_moved_in(store: Store, tmp_path: Path) -> None:
    for size in (10, 9 * 2**20):
        source = tmp_path / "source"
        source.write_bytes(DATA[:10] * (size // 10))
        store.put_file("deep/file", source)
        assert not source.exists()
        assert store.stat("deep/file").size == size // 10 * 10
    assert store.get_range("deep/file", 2**20 * 8 + 8, 4) == (DATA[:10] * 2)[6:10]


def test_an_object_opens_as_a_file(store: Store) -> None:
    store.put("x", DATA)
    with store.open("x") as file:
        assert file.seek(0, 2) == len(DATA)
        file.seek(1000)
        assert file.read(5) == DATA[1000:1005]
        assert file.read(200_000) == DATA[1005:201_005]
        file.seek(-5, 2)
        assert file.read() == DATA[-5:]
        assert file.read(1) == b""
        file.seek(0)
        assert file.read() == DATA


def test_versions_change_with_the_object(store: Store) -> None:
    store.put("x", b"one")
    before = store.stat("x")
    assert store.stat("x") == before
    store.put("x", b"two")
    assert store.stat("x").version != before.version


def test_what_is_not_there_is_named(store: Store) -> None:
    assert not store.exists("nothing")
    store.delete("nothing")
    for read in (store.get, store.stat, store.open):
        with pytest.raises(StorageError, match=r"cannot read .*/nothing"):
            read("nothing")
    store.put("x", b"x")
    store.delete("x")
    assert not store.exists("x")


def test_a_store_travels_to_another_process(store: Store) -> None:
    store.put("x", b"x")
    data = pickle.dumps(store)
    assert b"not-to-be-told" not in data
    assert "not-to-be-told" not in repr(store)
    assert pickle.loads(data).get("x") == b"x"
