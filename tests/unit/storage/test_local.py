"""A put is all or nothing, and errors name the path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gfm_pipeline.errors import StorageError
from gfm_pipeline.storage import LocalStore, open_store


def test_objects_come_back_whole_and_in_ranges(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    store.put("a/b.bin", b"0123456789")
    assert store.get("a/b.bin") == b"0123456789"
    assert store.get_range("a/b.bin", 3, 4) == b"3456"
    assert store.get_range("a/b.bin", 8, 10) == b"89"
    store.put("a/b.bin", b"new")
    assert store.get("a/b.bin") == b"new"
    assert list(store.list("a")) == ["a/b.bin"]
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    assert not store.exists("a/b.bin")


def test_a_failed_put_leaves_the_old_object_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*a: No space left on device"):
        store.put("a", b"new")
    assert store.get("a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*nothing: No such file"):
        LocalStore(tmp_path).get("nothing")


@pytest.mark.parametrize("url", ["ftp://host/x", "pipe:cat secret", "s4://bucket/x"])
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(StorageError, match="give a local path or a URL of s3://"):
        open_store(url)
