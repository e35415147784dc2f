"""A cache gives the same bytes, asks for them once, keeps its limit and touches nothing that is not its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gfm_pipeline.errors import ConfigError, StorageError
from gfm_pipeline.storage import CacheConfig, Store, cache_folder, folder_lock, open_store
from gfm_pipeline.storage.cache_folder import ROOT, CacheFolder
from gfm_pipeline.storage.folder_lock import FolderLock
from tests.faulty_proxy import FaultyProxy
from tests.remote_collection import LANES, epoch_batches, loader_config, write_pairs
from tests.servers import web_server

DATA = np.random.default_rng(2).integers(0, 256, 400_000, dtype=np.uint8).tobytes()
CHUNK = 20_000


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[FaultyProxy]:
    (tmp_path / "origin").mkdir()
    for name in "xy":
        (tmp_path / "origin" / name).write_bytes(DATA if name == "x" else DATA[::-1])
    with web_server(tmp_path / "origin") as url, FaultyProxy(url).running() as proxy:
        yield proxy


def cached(origin: FaultyProxy, folder: Path, max_bytes: int = 10**8) -> Store:
    return open_store(origin.url, cache=CacheConfig(folder=str(folder), max_gb=max_bytes / 1e9))


def own_files(folder: Path) -> list[Path]:
    return [path for path in (folder / ROOT).glob("??/*") if path.suffix != ".tar"]


def held(folder: Path) -> int:
    sizes = {}
    for path in own_files(folder):
        try:
            found = path.stat()
        except FileNotFoundError:  # renamed or removed in this moment
            continue
        sizes[found.st_ino] = found.st_size  # an entry may be seen under its temporary name and its own
    return sum(sizes.values())


def test_what_was_fetched_once_is_read_from_the_folder(origin: FaultyProxy, tmp_path: Path) -> None:
    ranges = [(0, 100), (5000, 300), (399_990, 50)]
    expected = [DATA[:100], DATA[5000:5300], DATA[399_990:]]
    for index in range(3):
        store = cached(origin, tmp_path / "cache")  # another process would do the same
        assert list(store.get_ranges("x", ranges)) == expected
        assert list(store.get_ranges("x", ranges)) == expected
        assert store.get("y") == DATA[::-1]
        counts = store.counters.read()
        assert (counts.cache_misses, counts.cache_hits) == ((2, 1) if index == 0 else (0, 3))
    assert origin.body_bytes() == len(DATA) + 410


def test_an_object_that_was_replaced_is_another_entry(origin: FaultyProxy, tmp_path: Path) -> None:
    assert cached(origin, tmp_path / "cache").get_range("x", 0, 10) == DATA[:10]
    (tmp_path / "origin" / "x").write_bytes(b"another one, longer than ten")
    os.utime(tmp_path / "origin" / "x", (1, 1))
    assert cached(origin, tmp_path / "cache").get_range("x", 0, 10) == b"another on"


def test_the_least_recently_used_goes_first_and_nothing_that_is_not_the_caches(
    origin: FaultyProxy, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    (folder / ROOT / "ab").mkdir(parents=True)
    strangers = [folder / "mine.txt", folder / ROOT / "ab" / "mine.tar", folder / ROOT / "notes"]
    for path in strangers:
        path.write_bytes(b"m" * 50_000)
    store = cached(origin, folder, max_bytes=5 * CHUNK + 1000)
    for index in range(5):
        store.get_range("x", index * CHUNK, CHUNK)
        time.sleep(0.01)
    store.get_range("x", 0, CHUNK)
    for index in range(5, 8):
        time.sleep(0.01)
        store.get_range("x", index * CHUNK, CHUNK)
    assert held(folder) <= 5 * CHUNK + 1000
    assert [path.read_bytes() for path in strangers] == [b"m" * 50_000] * 3
    misses = store.counters.read().cache_misses
    store.get_range("x", 0, CHUNK)  # used in between, so still there
    assert store.counters.read().cache_misses == misses
    store.get_range("x", CHUNK, CHUNK)
    assert store.counters.read().cache_misses == misses + 1


def test_a_damaged_entry_is_fetched_again(origin: FaultyProxy, tmp_path: Path) -> None:
    store = cached(origin, tmp_path / "cache")
    for damage in (lambda data: data[:-1], lambda data: data[:-5] + b"wrong", lambda data: b"", lambda data: b"{}\n"):
        assert store.get_range("x", 7, 1000) == DATA[7:1007]
        (entry,) = own_files(tmp_path / "cache")
        entry.write_bytes(damage(entry.read_bytes()))
        assert store.get_range("x", 7, 1000) == DATA[7:1007]
    assert store.counters.read().cache_misses == 5


def test_what_is_forgotten_is_fetched_again(origin: FaultyProxy, tmp_path: Path) -> None:
    store = cached(origin, tmp_path / "cache")
    for start in (0, 1000, 2000):
        store.get_range("x", start, 1000)
    store.forget("x", 1500, 10)
    before = store.counters.read()
    for start in (0, 1000, 2000):
        assert store.get_range("x", start, 1000) == DATA[start : start + 1000]
    after = store.counters.read()
    assert (after.cache_hits - before.cache_hits, after.cache_misses - before.cache_misses) == (2, 1)


def test_bytes_that_were_damaged_on_the_way_do_not_stay(origin: FaultyProxy, tmp_path: Path) -> None:
    write_pairs(tmp_path / "origin")
    expected = epoch_batches(loader_config(tmp_path / "origin"))
    config = loader_config(origin.url, cache=CacheConfig(folder=str(tmp_path / "cache"), max_gb=0.1))
    flips = ["flip"] * 5
    origin.draw = lambda path: flips.pop() if path.endswith(".tar") and flips else ""
    assert epoch_batches(config) == expected
    assert not flips
    assert epoch_batches(config) == expected
    fetched = origin.body_bytes(".tar")
    assert epoch_batches(config) == expected
    assert origin.body_bytes(".tar") == fetched


_WORKER = """
import sys
from gfm_pipeline.storage import CacheConfig, open_store
url, folder, seed, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
import hashlib, random
store = open_store(url, cache=CacheConfig(folder=folder, max_gb=limit))
draw, told = random.Random(seed), hashlib.sha256()
for _ in range(150):
    index = draw.randrange(20)
    told.update(store.get_range("x", index * 20000, 20000))
print(told.hexdigest(), store.counters.read().cache_hits)
"""


def test_processes_share_a_folder(origin: FaultyProxy, tmp_path: Path) -> None:
    import random

    folder, limit = tmp_path / "cache", 8 * CHUNK
    command = [sys.executable, "-c", _WORKER, origin.url, str(folder)]
    running = [
        subprocess.Popen([*command, str(seed), str(limit / 1e9)], stdout=subprocess.PIPE, text=True)
        for seed in range(3)
    ]
    most = 0
    lock = FolderLock(folder / ROOT / "lock")
    while any(process.poll() is None for process in running):
        if (folder / ROOT).exists():
            with lock.hold():  # else an entry that goes and the one that comes for it may both be seen
                most = max(most, held(folder))
        time.sleep(0.01)
    hits = 0
    for seed, process in enumerate(running):
        digest, own_hits = process.communicate()[0].split()
        draw, expected = random.Random(seed), hashlib.sha256()
        for _ in range(150):
            index = draw.randrange(20)
            expected.update(DATA[index * CHUNK : (index + 1) * CHUNK])
        assert digest == expected.hexdigest()
        hits += int(own_hits)
    assert hits > 20
    assert 0 < most <= limit
    assert not [path for path in own_files(folder) if ".tmp-" in path.name]


def test_what_dead_processes_left_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "STALE_S", 0.2)
    monkeypatch.setattr(cache_folder, "ABANDONED_S", -1.0)
    cache = CacheFolder(tmp_path, 1000)
    (tmp_path / ROOT / "lock").write_text("another-host 1 0")
    left = tmp_path / ROOT / "00" / f"{'0' * 40}.{'0' * 40}.tmp-{'0' * 32}"
    left.parent.mkdir()
    left.write_bytes(b"0" * 900)
    cache.keep("1" * 40, [(0, 500)], [b"1" * 500])
    assert cache.load("1" * 40, [(0, 500)]) == [b"1" * 500]
    assert not left.exists()
    assert not (tmp_path / ROOT / "lock").exists()


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        lock = FolderLock(tmp_path / "lock")  # one of its own, as in another process
        for _ in range(20):
            with lock.hold():
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_what_cannot_be_kept_is_fetched_again(
    origin: FaultyProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = cached(origin, tmp_path / "cache", max_bytes=1000)
    for _ in range(2):
        assert store.get_range("x", 0, CHUNK) == DATA[:CHUNK]
    assert store.counters.read().cache_misses == 2
    assert caplog.text.count("are more than the cache's limit of 1000") == 1


def test_a_limit_that_cannot_work_is_refused_with_the_one_that_would(origin: FaultyProxy, tmp_path: Path) -> None:
    manifest = write_pairs(tmp_path / "origin")
    largest = max(-(-shard.bytes * 4 // shard.samples) for shard in manifest.shards)
    needed = LANES * largest
    small = loader_config(origin.url, cache=CacheConfig(folder=str(tmp_path / "cache"), max_gb=(needed - 1) / 1e9))
    with pytest.raises(ConfigError, match=r"data\.cache\.max_gb is .* Set it to ([0-9.e-]+) at least") as told:
        epoch_batches(small)
    enough = float(str(told.value).partition("Set it to ")[2].split()[0])
    assert needed <= enough * 1e9 < needed + 1e5 + 1
    large = loader_config(origin.url, cache=CacheConfig(folder=str(tmp_path / "cache"), max_gb=enough))
    assert epoch_batches(large) == epoch_batches(loader_config(tmp_path / "origin"))


def test_a_folder_that_cannot_be_written_to_is_told(origin: FaultyProxy, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot write to the cache .*Set data\.cache\.folder"):
        cached(origin, tmp_path / "file")
