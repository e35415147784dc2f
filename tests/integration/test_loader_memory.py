"""What the loader holds: batches are the consumer's, nothing grows, every byte comes once, nothing is left behind."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from gfm_pipeline.data import reader as reader_module
from gfm_pipeline.data.config import AugmentConfig, DataConfig, MaskConfig, StreamConfig
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.errors import ConfigError, ShardError
from gfm_pipeline.sensors import builtin_sensor
from gfm_pipeline.shards.manifest import tar_path
from gfm_pipeline.storage import LocalStore
from tests.make_collection import make_collection, random_samples

S1, S2 = (builtin_sensor(name) for name in ("s1", "s2"))
COUNT, PX = 48, 64


class FarStore(LocalStore):
    """A folder that is read as an object store is: by ranges, ahead."""

    def local_path(self, path):
        return None


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    make_collection(root / "pairs", random_samples([S1, S2], COUNT, PX), [S1, S2], samples_per_shard=12)
    return root


def data_config(root, **changes):
    base = {
        "root": str(root),
        "streams": {"pairs": StreamConfig(collections=("pairs",), sub_batch=4, lr=1)},
        "image_px": 32,
        "lanes": 4,
        "chunk_samples": 4,
        "window_chunks": 2,
        "mask": MaskConfig(cell_px=8),
    }
    return DataConfig(**(base | changes))


def far(monkeypatch, store=FarStore):
    monkeypatch.setattr("gfm_pipeline.data.mixture.open_store", lambda url, *_: store(Path(url)))


def data_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("gfm-data")]


def test_stored_pixels_are_those_of_the_shard(root):
    raw = dict(random_samples([S1, S2], COUNT, PX))
    plain = AugmentConfig(kind="crop")
    config = data_config(root, pixels="stored", augment=plain, lanes=1)
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        flips = set()
        for _ in range(6):
            part = next(loader)[0].streams["pairs"]
            assert part.images["s1"].dtype == torch.float32
            assert part.images["s2"].dtype == torch.uint16
            for row, key in enumerate(part.keys):
                found = {}
                for sensor, image in part.images.items():
                    tile = image[row].numpy()
                    found[sensor] = {
                        (top, left, flip)
                        for flip in (False, True)
                        for top in range(PX - 31)
                        for left in range(PX - 31)
                        if raw[key][sensor][0, top, left] == tile[0, 0, -1 if flip else 0]
                        and np.array_equal(
                            raw[key][sensor][:, top : top + 32, left : left + 32], tile[:, :, ::-1] if flip else tile
                        )
                    }
                assert len(found["s1"]) == 1
                assert found["s1"] == found["s2"]  # one crop for all sensors of a place
                flips |= {flip for _, _, flip in found["s1"]}
    assert flips == {True, False}


def test_stored_pixels_cannot_be_resized(root):
    config = data_config(root, pixels="stored")
    with Loader(open_mixture(config), config, 0, 0, 1) as loader, pytest.raises(ShardError, match="pixels is stored"):
        next(loader)


def test_a_batch_that_is_kept_stays_as_it_was_and_the_others_share_memory(root):
    config = data_config(root)
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        kept = next(loader)
        view = kept[0].streams["pairs"].images["s2"][1, 3]
        copies = [[image.clone() for image in batch.streams["pairs"].images.values()] for batch in kept]
        seen = view.clone()
        pool = loader._preparers["pairs"]._buffers
        for _ in range(10):
            next(loader)
        made = pool.num_made
        for _ in range(30):
            next(loader)
        assert pool.num_made == made
        for batch, images in zip(kept, copies, strict=True):
            for image, copy in zip(batch.streams["pairs"].images.values(), images, strict=True):
                assert torch.equal(image, copy)
        del kept, batch, image
        for _ in range(10):
            next(loader)
        assert torch.equal(view, seen)  # a view of one image is enough to keep it


@pytest.mark.parametrize("world", [1, 2, 4])
def test_all_ranks_together_fetch_the_collection_once_in_a_pass(root, monkeypatch, world):
    of_pass: dict[int, int] = {}
    working = threading.local()
    original = reader_module.StreamReader._piece

    def piece_of_pass(reader, window, piece, shard):
        made = original(reader, window, piece, shard)
        load = made.load

        def noted():
            working.pass_index = window.pass_index
            return load()

        made.load = noted
        return made

    class Counting(FarStore):
        def get_ranges(self, path, ranges, stop=None):
            found = super().get_ranges(path, ranges, stop)
            with lock:
                of_pass[working.pass_index] = of_pass.get(working.pass_index, 0) + sum(map(len, found))
            return found

    lock = threading.Lock()
    far(monkeypatch, Counting)
    monkeypatch.setattr(reader_module.StreamReader, "_piece", piece_of_pass)
    config = data_config(root)
    for rank in range(world):
        with Loader(open_mixture(config), config, 0, rank, world) as loader:
            for _ in range(loader.plan.steps_per_epoch):
                next(loader)
    whole = sum((root / "pairs" / tar_path(f"pairs-{i:06d}")).stat().st_size for i in range(4))
    assert of_pass[0] == pytest.approx(whole, rel=0.01)


def test_windows_that_do_not_fit_are_refused_with_the_number_that_would(root, monkeypatch):
    far(monkeypatch)
    config = data_config(root, buffer_mb=1)
    with pytest.raises(
        ConfigError, match=r"pairs \d+ MB\), data.buffer_mb allows 1. Set data.buffer_mb to at least"
    ) as e:
        Loader(open_mixture(config), config, 0, 0, 1)
    enough = int(str(e.value).partition("at least ")[2].partition(",")[0])
    config = data_config(root, buffer_mb=enough)
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        for _ in range(12):
            next(loader)
        assert 0 < loader._fetcher.most_held_bytes <= enough * 2**20
    assert not data_threads()


def test_ctrl_c_ends_reads_that_hang(root, monkeypatch):
    class Hanging(FarStore):
        def get_ranges(self, path, ranges, stop=None):
            assert stop is not None
            stop.wait(60)
            return super().get_ranges(path, ranges)

    far(monkeypatch, Hanging)
    config = data_config(root)
    began = time.monotonic()
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            next(loader)
        assert not data_threads()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("where", ["decode_member", "load_shard_index"])
@pytest.mark.parametrize("remote", [False, True])
def test_a_thread_that_is_ended_ends_the_loader(root, monkeypatch, where, remote):
    if remote:
        far(monkeypatch)

    def ended(*arguments):
        raise SystemExit("a thread is told to go")

    monkeypatch.setattr(reader_module, where, ended)
    config = data_config(root)
    with Loader(open_mixture(config), config, 0, 0, 1) as loader, pytest.raises(SystemExit, match="told to go"):
        next(loader)
    assert not data_threads()


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("remote", [False, True])
def test_files_threads_and_buffers_do_not_grow_over_ten_epochs(root, monkeypatch, remote):
    if remote:
        far(monkeypatch)
    config = data_config(root)
    gc.collect()  # of the tests before
    before = descriptors(), threading.active_count()
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        seen = []
        for _ in range(10):
            for _ in range(loader.plan.steps_per_epoch):
                next(loader)
            gc.collect()
            seen.append((descriptors(), threading.active_count(), loader._preparers["pairs"]._buffers.num_made))
            assert len(loader._fetcher._pieces) <= 4 * 2 * 3
        assert len(set(seen[2:])) == 1
    del loader
    gc.collect()
    assert (descriptors(), threading.active_count()) == before


def anonymous_bytes():
    gc.collect()
    text = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss_Anon"))


@pytest.mark.slow
def test_memory_is_flat_over_ten_epochs(tmp_path):
    make_collection(tmp_path / "pairs", random_samples([S1, S2], 96, 256), [S1, S2], samples_per_shard=24)
    stream = StreamConfig(collections=("pairs",), sub_batch=32, lr=1)
    config = data_config(tmp_path, streams={"pairs": stream}, image_px=192, lanes=1, mask=MaskConfig(cell_px=32))
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        after = []
        for _ in range(12):
            for _ in range(loader.plan.steps_per_epoch):
                next(loader)
            after.append(anonymous_bytes())
    print([round(value / 1e6, 1) for value in after])
    assert max(after[2:]) < 1.01 * after[1]
