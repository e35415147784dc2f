"""The loader on real shards: exact pixels, exact order, honest about damage, gone when closed."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest
import torch

from gfm_pipeline.data import reader as reader_module
from gfm_pipeline.data.config import AugmentConfig, DataConfig, MaskConfig, StreamConfig
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.data.state import LoaderState
from gfm_pipeline.errors import ChecksumError, PlanError, ShardError
from gfm_pipeline.sensors import builtin_sensor
from gfm_pipeline.shards.manifest import load_sidecar, tar_path
from gfm_pipeline.storage import LocalStore
from tests.make_collection import make_collection, random_samples

S1, S2, RGB = (builtin_sensor(name) for name in ("s1", "s2", "rgb"))
PX = 16
NEUTRAL = AugmentConfig(scale=(1, 1), ratio=(1, 1), flip=False)
PAIRS = StreamConfig(collections=("pairs",), sub_batch=4, lr=1e-4)
PHOTOS = StreamConfig(collections=("photos",), sub_batch=3, lr=1e-4)


def write_pairs(root, count=37, extension="blosc2"):
    samples = random_samples([S1, S2], count, PX)
    make_collection(root / "pairs", samples, [S1, S2], samples_per_shard=8, extension=extension)
    return dict(samples)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    write_pairs(root)
    photos = random_samples([RGB], 29, 24, seed=3, prefix="photo")
    make_collection(root / "photos", photos, [RGB], samples_per_shard=10)
    return root


def data_config(root, **changes):
    base = {
        "root": str(root),
        "streams": {"pairs": PAIRS, "photos": PHOTOS},
        "image_px": PX,
        "lanes": 4,
        "chunk_samples": 3,
        "window_chunks": 2,
        "mask": MaskConfig(cell_px=4),
    }
    return DataConfig(**(base | changes))


def batches(config, steps, *, seed=0, rank=0, world=1, start_step=0):
    """Return the first `steps` items of a loader."""
    with Loader(open_mixture(config), config, seed, rank, world, start_step) as loader:
        return [next(loader) for _ in range(steps)]


def tensors(part):
    return [*part.images.values(), *part.masks.values()]


def flat(batch):
    """Return all that a batch says, comparable with ==."""
    return [
        (batch.step, batch.lane, name, part.keys, part.passes, [t.numpy().tobytes() for t in tensors(part)])
        for name, part in batch.streams.items()
    ]


def test_without_augmentation_a_batch_holds_the_raw_pixels_normalised(root):
    config = data_config(root, augment=NEUTRAL)
    raw, statistics = dict(random_samples([S1, S2], 37, PX)), open_mixture(config).normalisation
    seen = set()
    for lanes in batches(config, 10):
        assert [batch.lane for batch in lanes] == [0, 1, 2, 3]
        for batch in lanes:
            part = batch.streams["pairs"]
            for row, key in enumerate(part.keys):
                for sensor, image in part.images.items():
                    mean, std = statistics[sensor].columns()
                    expected = (raw[key][sensor].astype(np.float32) - mean) / std
                    assert np.array_equal(image[row].numpy(), expected)
            seen |= set(part.keys)
    assert seen == set(raw)


def test_normalised_images_have_mean_0_and_std_1(root):
    images = {sensor: [] for sensor in ("s1", "s2", "rgb")}
    for lanes in batches(data_config(root, augment=NEUTRAL, image_px=24, mask=MaskConfig(cell_px=8)), 6):
        for batch in lanes:
            for part in batch.streams.values():
                for sensor, image in part.images.items():
                    images[sensor].append(image)
    for tensors in images.values():
        mean = torch.cat(tensors).mean(dim=(0, 2, 3))
        assert mean.abs().max() < 0.05
    std = torch.cat(images["rgb"]).std(dim=(0, 2, 3))
    assert (std - 1).abs().max() < 0.05


def test_sensors_of_a_sample_are_cropped_and_flipped_together(tmp_path):
    # Two sensors with the same field in their first band: equal pixels before normalisation must stay equal.
    left = S1.model_copy(update={"name": "left", "bands": ("a",)})
    right = S1.model_copy(update={"name": "right", "bands": ("a", "b")})
    samples = [
        (key, {"left": rasters["left"], "right": np.concatenate([rasters["left"], -rasters["left"]])})
        for key, rasters in random_samples([left], 16, 40)
    ]
    make_collection(tmp_path / "twins", samples, [left, right])
    stream = StreamConfig(collections=("twins",), sub_batch=8, lr=1)
    config = data_config(tmp_path, streams={"twins": stream})
    statistics = open_mixture(config).normalisation
    images = [batch.streams["twins"].images for lanes in batches(config, 4) for batch in lanes]

    def raw(sensor):
        mean, std = statistics[sensor].columns()
        return torch.cat([image[sensor] for image in images]) * torch.from_numpy(std) + torch.from_numpy(mean)

    assert torch.allclose(raw("left")[:, 0], raw("right")[:, 0], atol=1e-3)
    assert torch.allclose(raw("left")[:, 0], -raw("right")[:, 1], atol=1e-3)
    plain = {key: rasters["left"] for key, rasters in samples}
    assert not any(np.allclose(image[0], pixels[0, :PX, :PX]) for image in raw("left") for pixels in plain.values())


def test_masks_hide_an_exact_number_of_cells_of_their_own_for_every_sensor(root):
    parts = [batch.streams["pairs"] for lanes in batches(data_config(root), 6) for batch in lanes]
    masks = {sensor: torch.cat([part.masks[sensor] for part in parts]) for sensor in ("s1", "s2")}
    for mask in masks.values():
        assert mask.dtype == torch.bool
        assert mask.shape[1:] == (4, 4)
        assert (mask.sum(dim=(1, 2)) == 10).all()  # ceil(0.6 * 16)
        assert len({row.numpy().tobytes() for row in mask}) > 0.9 * len(mask)
    assert not torch.equal(masks["s1"], masks["s2"])


def test_layout_is_that_of_the_configuration(root):
    (lanes,) = batches(data_config(root), 1)
    assert {batch.layout() for batch in lanes} == {
        (("pairs", "s1", (2, 2, 16, 16)), ("pairs", "s2", (2, 13, 16, 16)), ("photos", "rgb", (3, 3, 16, 16)))
    }
    moved = lanes[0].to("meta")
    assert moved.streams["pairs"].images["s1"].device.type == "meta"
    assert (moved.layout(), moved.step, moved.lane) == (lanes[0].layout(), 0, 0)


def test_a_pass_and_seed_give_a_sample_another_crop_and_mask_and_nothing_else_does(root):
    def views(seed, **changes):
        config = data_config(root, **changes)
        return {
            (part.passes[row], key): (part.images["s1"][row].numpy().tobytes(), part.masks["s1"][row].numpy().tobytes())
            for lanes in batches(config, 12, seed=seed)
            for part in (batch.streams["pairs"] for batch in lanes)
            for row, key in enumerate(part.keys)
        }

    first = views(0)
    keys = {key for _, key in first}
    changed = sum(first[0, key] != first[1, key] for key in keys)
    assert changed == len(keys) == 37
    other_seed = views(1)
    assert sum(first[0, key][0] == other_seed[0, key][0] for key in keys) < 3
    # Other threads, lanes and windows: another order of the same views.
    other_order = views(0, threads=3, lanes=2, window_chunks=4)
    assert all(first[0, key] == other_order[0, key] for key in keys)


@pytest.mark.parametrize("cut", [1, 5, 10])
def test_a_resumed_loader_goes_on_as_if_never_stopped(root, cut):
    config = data_config(root)
    uncut = [flat(batch) for lanes in batches(config, 13) for batch in lanes]
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        for _ in range(cut):
            next(loader)
        state = LoaderState.from_dict(loader.state(cut).to_dict())
    with Loader(open_mixture(config), config, 0, 0, 1, start_step=state.step) as resumed:
        assert state.resume_step(resumed.plan) == cut
        rest = [flat(batch) for _ in range(13 - cut) for batch in next(resumed)]
    assert rest == uncut[cut * config.lanes :]


@pytest.mark.parametrize("world", [2, 4])
def test_any_valid_world_sees_what_one_rank_sees(root, world):
    config = data_config(root)
    alone = [flat(batch) for lanes in batches(config, 7) for batch in lanes]
    ranks = [batches(config, 7, rank=rank, world=world) for rank in range(world)]
    together = [flat(batch) for step in range(7) for rank in ranks for batch in rank[step]]
    assert together == alone


def test_a_world_that_does_not_divide_the_lanes_is_refused(root):
    with pytest.raises(PlanError, match="3 ranks cannot share 4 lanes"):
        batches(data_config(root), 1, world=3)


@pytest.mark.parametrize("cut", [0, 1, 5])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_loaded_state_goes_on_at_any_world_size(root, cut, world):
    config = data_config(root)
    uncut = batches(config, 8)
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        for _ in range(cut):
            next(loader)
        state = json.loads(json.dumps(loader.state_dict()))
    assert state["step"] == cut
    resumed: list[list[object]] = [[] for _ in range(8)]
    for rank in range(world):
        with Loader(open_mixture(config), config, 0, rank, world) as loader:
            loader.load_state_dict(state)
            assert loader.state_dict() == state
            assert loader.bytes_read == 0
            for step in range(cut, 8):
                resumed[step] += [flat(batch) for batch in next(loader)]
    assert resumed[cut:] == [[flat(batch) for batch in step] for step in uncut[cut:]]


def test_a_state_that_does_not_fit_is_refused(root):
    config = data_config(root)
    mixture = open_mixture(config)
    with Loader(mixture, config, 0, 0, 1) as loader:
        next(loader)
        state = loader.state_dict()
        with pytest.raises(RuntimeError, match="load the state into a new one"):
            loader.load_state_dict(state)
    with Loader(mixture, config, 1, 0, 1) as other, pytest.raises(PlanError, match="seed was 0, is 1"):
        other.load_state_dict(state)


def test_threads_and_prefetch_change_nothing(root):
    calm = [flat(b) for lanes in batches(data_config(root, threads=1, prefetch_steps=1), 8) for b in lanes]
    busy = [flat(b) for lanes in batches(data_config(root, threads=6, prefetch_steps=5), 8) for b in lanes]
    assert calm == busy


class FarStore(LocalStore):
    """A folder that is read as an object store is: by ranges, ahead."""

    def local_path(self, path):
        return None


class CountingStore(FarStore):
    """Notes every range read as (path, start, end)."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[tuple[str, int, int]] = []

    def get_range(self, path, start, length):
        self.reads.append((path, start, start + length))
        return super().get_range(path, start, length)


@pytest.fixture
def counted(monkeypatch):
    """Every store that a mixture opens, counting its reads."""
    stores: list[CountingStore] = []

    def open_counting(url, *_):
        stores.append(CountingStore(Path(url)))
        return stores[-1]

    monkeypatch.setattr("gfm_pipeline.data.mixture.open_store", open_counting)
    return stores


def test_each_byte_is_read_once_in_a_pass_with_neighbours_in_one_read(root, counted):
    # One lane, one window: the whole pass is 37 samples in 5 shards, read in pieces of 8 = whole shards.
    pairs = {"pairs": PAIRS.model_copy(update={"sub_batch": 74})}
    sizes = {"lanes": 1, "chunk_samples": 8, "window_chunks": 5}
    config = data_config(root, streams=pairs, prefetch_steps=1, requests=1, **sizes)
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        next(loader)
        deadline = time.monotonic() + 5
        while len(counted[0].reads) < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
    first_pass = counted[0].reads[:5]
    assert sorted(path for path, _, _ in first_pass) == [tar_path(f"pairs-{i:06d}") for i in range(5)]
    assert len(counted[0].reads) == 10  # the prefetched second pass


def test_one_sensor_of_pairs_reads_no_byte_of_the_other(root, counted):
    only_s1 = {"pairs": PAIRS.model_copy(update={"sensors": ("s1",)})}
    config = data_config(root, streams=only_s1)
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        for _ in range(8):
            next(loader)
    store = counted[0]
    assert loader.bytes_read == sum(end - start for _, start, end in store.reads) > 0
    for number in range(5):
        name = f"pairs-{number:06d}"
        foreign = [s.sensors["s2"] for s in load_sidecar(store, name).samples]
        reads = [(start, end) for path, start, end in store.reads if path == tar_path(name)]
        assert reads
        assert not any(start < m.offset + m.size and m.offset < end for start, end in reads for m in foreign)


def test_resuming_inside_a_window_does_not_fetch_what_was_taken(root, counted):
    pairs = {"pairs": PAIRS.model_copy(update={"sub_batch": 2})}
    sizes = {"lanes": 1, "chunk_samples": 8, "window_chunks": 5}
    config = data_config(root, streams=pairs, prefetch_steps=1, requests=1, **sizes)
    with Loader(open_mixture(config), config, 0, 0, 1, start_step=35) as loader:
        next(loader)
        next(loader)
        loader.close()
    last_two = [end - start for _, start, end in counted[0].reads[:2]]
    whole = sum(path.stat().st_size for path in (root / "pairs/shards").glob("*.tar"))
    assert sum(last_two) < whole / 10


def damage(root, change):
    """Apply `change(bytes, sidecar)` to the second shard; return (shard, entry of its fourth sample)."""
    store = LocalStore(root / "pairs")
    sidecar = load_sidecar(store, "pairs-000001")
    path = root / "pairs" / tar_path("pairs-000001")
    data = bytearray(path.read_bytes())
    path.write_bytes(bytes(change(data, sidecar)))
    return sidecar.samples[3]


def flip_s2_byte(data, sidecar):
    member = sidecar.samples[3].sensors["s2"]
    data[member.offset + member.size // 2] ^= 1
    return data


@pytest.fixture
def no_backoff(monkeypatch):
    monkeypatch.setattr(reader_module, "BACKOFF_S", 0.001)


def run_until_error(config, steps=20):
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        for _ in range(steps):
            next(loader)


@pytest.mark.parametrize("extension", ["blosc2", "npy"])
def test_a_flipped_byte_is_named_and_never_trained_on(tmp_path, no_backoff, extension):
    write_pairs(tmp_path, extension=extension)
    entry = damage(tmp_path, flip_s2_byte)
    with pytest.raises(ChecksumError) as caught:
        run_until_error(data_config(tmp_path, streams={"pairs": PAIRS}))
    message = str(caught.value)
    for part in (str(tmp_path), "pairs-000001.tar", entry.key, "sensor s2", f"byte {entry.sensors['s2'].offset}"):
        assert part in message
    assert f"{entry.sensors['s2'].crc32:08x}" in message


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("damage_done", ["flip", "cut"])
def test_skipping_leaves_out_exactly_what_is_damaged(tmp_path, no_backoff, damage_done, mapped):
    write_pairs(tmp_path)
    config = data_config(tmp_path, streams={"pairs": PAIRS}, on_error="skip", map_local=mapped)
    whole = [batch for step in batches(config, 6) for batch in step]
    if damage_done == "flip":
        lost = {damage(tmp_path, flip_s2_byte).key}
    else:
        damage(tmp_path, lambda data, _: data[: len(data) // 2])
        sidecar = load_sidecar(LocalStore(tmp_path / "pairs"), "pairs-000001")
        size = (tmp_path / "pairs" / tar_path("pairs-000001")).stat().st_size
        lost = {s.key for s in sidecar.samples if any(m.offset + m.size > size for m in s.sensors.values())}
        assert 0 < len(lost) < len(sidecar.samples)
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        found = [batch for _ in range(6) for batch in next(loader)]
        skipped = list(loader.skipped)
    blank = 0
    for ours, theirs in zip(found, whole, strict=True):
        a, b = ours.streams["pairs"], theirs.streams["pairs"]
        assert (a.keys, a.passes) == (b.keys, b.passes)
        assert a.skipped == tuple(row for row, key in enumerate(a.keys) if key in lost)
        blank += len(a.skipped)
        for row in range(len(a.keys)):
            for mine, right in zip(tensors(a), tensors(b), strict=True):
                assert torch.equal(mine[row], right[row]) != (row in a.skipped)
                assert row not in a.skipped or not mine[row].any()
    assert blank
    taken = [item for item in skipped if item.step < 6]
    assert {item.key for item in taken} == {key for b in found for key in b.streams["pairs"].keys if key in lost}
    assert len(taken) == blank
    for item in taken:
        assert (item.stream, item.shard) == ("pairs", "pairs-000001")
        assert item.key in item.reason


def test_what_cannot_be_used_at_all_is_not_skipped(tmp_path, no_backoff):
    wrong = S1.model_copy(update={"bands": ("VV", "VH", "HH")})
    samples = [(key, {"s1": rasters["s1"]}) for key, rasters in random_samples([wrong], 8)]
    make_collection(tmp_path / "series", samples, [wrong], sensors={"s1": S1}, statistics={})
    stream = StreamConfig(collections=("series",), sub_batch=1, lr=1)
    statistics = {"s1": {"mean": (0.0, 0.0), "std": (1.0, 1.0)}}
    with pytest.raises(ShardError, match="Leave sensor s1 out"):
        run_until_error(data_config(tmp_path, streams={"series": stream}, statistics=statistics, on_error="skip"))


def test_damage_of_a_sensor_that_is_not_used_does_not_matter(tmp_path, no_backoff):
    write_pairs(tmp_path)
    damage(tmp_path, flip_s2_byte)
    run_until_error(data_config(tmp_path, streams={"pairs": PAIRS.model_copy(update={"sensors": ("s1",)})}))


def test_a_truncated_shard_is_named(tmp_path, no_backoff):
    write_pairs(tmp_path)
    damage(tmp_path, lambda data, _: data[: len(data) // 2])
    with pytest.raises(ShardError, match=r"pairs-000001.tar: sample place-\d+, sensor s.* is cut short") as caught:
        run_until_error(data_config(tmp_path, streams={"pairs": PAIRS}))
    assert not isinstance(caught.value, ChecksumError)


def test_a_fault_on_the_way_heals_by_reading_again(root, no_backoff, monkeypatch):
    config = data_config(root)
    expected = [flat(batch) for lanes in batches(config, 6) for batch in lanes]
    asked: dict[tuple[str, int], int] = {}

    class FlakyStore(FarStore):
        def get_range(self, path, start, length):
            data = super().get_range(path, start, length)
            if (path, start) in asked:
                return data
            asked[path, start] = len(asked)
            if asked[path, start] % 5 == 0:
                return data[:-1]
            if asked[path, start] % 5 == 2:
                return data[:-1] + bytes([data[-1] ^ 255])
            return data

    monkeypatch.setattr("gfm_pipeline.data.mixture.open_store", lambda url, *_: FlakyStore(Path(url)))
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        found = [flat(batch) for _ in range(6) for batch in next(loader)]
        assert loader.refetches > 0
    assert found == expected


def test_a_sidecar_of_another_build_is_refused(tmp_path):
    write_pairs(tmp_path)
    path = tmp_path / "pairs/shards/pairs-000002.json"
    path.write_text(path.read_text().replace('"task_digest":"0', '"task_digest":"1'))
    with pytest.raises(ShardError, match=r"pairs-000002.json has sha256 .* the manifest recorded"):
        run_until_error(data_config(tmp_path, streams={"pairs": PAIRS}))


def test_a_series_is_refused_by_name(tmp_path):
    wrong = S1.model_copy(update={"bands": ("VV", "VH", "HH")})
    samples = [(key, {"s1": rasters["s1"]}) for key, rasters in random_samples([wrong], 8)]
    make_collection(tmp_path / "series", samples, [wrong], sensors={"s1": S1}, statistics={})
    statistics = {"s1": {"mean": (0.0, 0.0), "std": (1.0, 1.0)}}
    stream = StreamConfig(collections=("series",), sub_batch=1, lr=1)
    with pytest.raises(ShardError, match=r"sample place-\d+, sensor s1.*float32\[3, 16, 16\], expected float32 with 2"):
        run_until_error(data_config(tmp_path, streams={"series": stream}, statistics=statistics))


def test_an_exception_in_a_thread_surfaces_at_the_next_step_and_ends_the_threads(root, monkeypatch):
    original = reader_module.decode_member
    count = []

    def failing(*arguments):
        count.append(1)
        if len(count) == 60:
            raise MemoryError("no more")
        return original(*arguments)

    monkeypatch.setattr(reader_module, "decode_member", failing)
    config = data_config(root)
    loader = Loader(open_mixture(config), config, 0, 0, 1)
    began = time.monotonic()
    with pytest.raises(MemoryError, match="no more"):
        deque(loader, maxlen=0)
    assert time.monotonic() - began < 20
    assert not data_threads()
    with pytest.raises(RuntimeError, match="closed"):
        next(loader)


def test_a_failure_of_a_later_step_is_not_kept_back(root, monkeypatch):
    may_fail = threading.Event()
    config = data_config(root, prefetch_steps=3)
    original = reader_module.StreamReader.read

    def failing(reader, pick, scratch):
        if (reader._stream.name, pick.window.pass_index, pick.number) == doomed:
            may_fail.wait(10)
            raise MemoryError("in step 3")
        return original(reader, pick, scratch)

    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        pick = loader.plan.take("pairs", 0, 3)[0]
        doomed = ("pairs", pick.window.pass_index, pick.number)
        monkeypatch.setattr(reader_module.StreamReader, "read", failing)
        assert next(loader)[0].step == 0
        may_fail.set()
        futures.wait([run for step in loader._under_way for batch in step for run in batch.runs], timeout=10)
        with pytest.raises(MemoryError, match="in step 3"):
            next(loader)


def data_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("gfm-data")]


def test_no_thread_is_left_after_close_even_in_mid_step(root):
    config = data_config(root, threads=4)
    loader = Loader(open_mixture(config), config, 0, 0, 1)
    next(loader)
    assert data_threads()
    loader.close()
    loader.close()
    assert not data_threads()


def test_no_thread_is_left_after_ctrl_c(root):
    def consume():
        config = data_config(root)
        with Loader(open_mixture(config), config, 0, 0, 1) as loader:
            next(loader)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert not data_threads()


def test_far_shards_are_held_by_windows_and_freed(root, counted):
    config = data_config(root, prefetch_steps=1)
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        for _ in range(60):
            next(loader)
        whole = sum(path.stat().st_size for path in root.glob("*/shards/*.tar"))
        # A window of each lane, what the steps ahead have begun of the next, and whatever is being fetched.
        assert 0 < loader._fetcher.held_bytes < loader._fetcher.most_held_bytes < 3 * whole
        assert loader.wait_seconds > 0


def test_local_shards_hold_nothing(root):
    config = data_config(root)
    with Loader(open_mixture(config), config, 0, 0, 1) as loader:
        for _ in range(6):
            next(loader)
        assert loader._fetcher.most_held_bytes == 0
        assert loader.bytes_read > 0
