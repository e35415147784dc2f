"""The loader in the pipelines of others: torch, torchdata and webdataset."""

from __future__ import annotations

import itertools
import json
import pickle
from functools import partial

import pytest
import torch
import webdataset
from torch.utils.data import DataLoader

from gfm_pipeline.data.config import AugmentConfig, DataConfig, MaskConfig, StreamConfig
from gfm_pipeline.data.dataset import BatchDataset
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.data.tar_samples import TarSamples
from gfm_pipeline.errors import ChecksumError, ConfigError, PlanError, ShardError
from gfm_pipeline.sensors import builtin_sensor
from gfm_pipeline.shards.interop import decode_sample
from gfm_pipeline.shards.manifest import load_sidecar, tar_path
from gfm_pipeline.storage import LocalStore
from tests.make_collection import make_collection, random_samples

S1, S2, RGB = (builtin_sensor(name) for name in ("s1", "s2", "rgb"))
PX = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    make_collection(root / "pairs", random_samples([S1, S2], 37, PX), [S1, S2], samples_per_shard=8)
    make_collection(root / "photos", random_samples([RGB], 19, PX, prefix="photo"), [RGB], samples_per_shard=10)
    return root


def data_config(root, **changes):
    streams = {
        "pairs": StreamConfig(collections=("pairs",), sub_batch=4, lr=1),
        "photos": StreamConfig(collections=("photos",), sub_batch=3, lr=1),
    }
    base = {"root": str(root), "streams": streams, "image_px": PX, "lanes": 4, "chunk_samples": 3, "window_chunks": 2}
    return DataConfig(**(base | {"mask": MaskConfig(cell_px=4), "augment": AugmentConfig(flip=False)} | changes))


def flat(batch):
    """Return all that a batch says, comparable with ==."""
    return [
        (batch.step, batch.lane, name, part.keys, part.passes, [t.numpy().tobytes() for t in part.images.values()])
        for name, part in batch.streams.items()
    ]


def uncut(config, steps, rank=0, world=1):
    with Loader(open_mixture(config), config, 0, rank, world) as loader:
        return [flat(batch) for _ in range(steps) for batch in next(loader)]


def workers(count):
    """Return what a DataLoader needs for `count` worker processes."""
    return {"num_workers": count, "multiprocessing_context": "forkserver" if count else None}


@pytest.mark.parametrize("count", [0, 3, pytest.param(2, marks=pytest.mark.slow)])
def test_a_data_loader_delivers_what_the_loader_does_in_the_same_order(root, count):
    config = data_config(root)
    dataset = BatchDataset(config, 0, 0, 1, steps=6)
    loader = DataLoader(dataset, batch_size=None, **workers(count))
    assert [flat(batch) for batch in loader] == uncut(config, 6)  # of 3 workers for 4 lanes one is idle


def test_a_state_of_the_job_goes_on_at_another_world_size_and_worker_count(root):
    config = data_config(root, batches="homogeneous")
    whole = uncut(config, 9)
    state = json.loads(json.dumps(BatchDataset(config, 0, 0, 1).state(5)))
    found = {}
    for rank in range(2):
        dataset = BatchDataset(config, 0, rank, 2, steps=9)
        dataset.load_state_dict(state)
        found |= {(batch.step, batch.lane): flat(batch) for batch in dataset}
    assert [found[place] for place in sorted(found)] == whole[5 * 4 :]


@pytest.mark.parametrize("taken", [0, 1, 4, 6, 24])
def test_an_iterator_goes_on_where_it_was_even_in_mid_step(root, taken):
    config = data_config(root)
    first = iter(BatchDataset(config, 0, 0, 1, steps=6))
    for _ in range(taken):
        next(first)
    again = BatchDataset(config, 0, 0, 1, steps=6)
    again.load_state_dict(first.state_dict())
    assert [flat(batch) for batch in again] == uncut(config, 6)[taken:]
    if taken == 6:
        other = BatchDataset(config, 0, 1, 2)
        other.load_state_dict(first.state_dict())
        with pytest.raises(PlanError, match="in the middle of step 1, after 2 of the lanes"):
            iter(other)


@pytest.mark.parametrize("count", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_stateful_data_loader_of_torchdata(root, count):
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    config = data_config(root)

    def loader():
        return stateful.StatefulDataLoader(BatchDataset(config, 0, 0, 1, steps=5), batch_size=None, **workers(count))

    first = loader()
    taken = [flat(batch) for batch in itertools.islice(first, 7)]
    state = first.state_dict()
    second = loader()
    second.load_state_dict(state)
    assert taken + [flat(batch) for batch in second] == uncut(config, 5)


def test_a_dataset_pickles_as_its_settings(root):
    dataset = BatchDataset(data_config(root), 0, 0, 1)
    next(iter(dataset))
    assert len(pickle.dumps(dataset)) < 4000
    assert isinstance(pickle.loads(pickle.dumps(dataset)), BatchDataset)


def plain(root, name):
    """Return what webdataset's own reader finds in all shards of a collection, by key."""
    urls = sorted(str(path) for path in (root / name / "shards").glob("*.tar"))
    return {sample["__key__"]: sample for sample in webdataset.WebDataset(urls, shardshuffle=False)}


def comparable(sample):
    return {name: value for name, value in sample.items() if name != "__local_path__"}


def test_members_are_named_and_read_as_by_webdataset_itself(root):
    expected = plain(root, "pairs")
    found = list(TarSamples(data_config(root), "pairs", seed=0))
    assert [set(sample) for sample in found] == [{"__key__", "__url__", "json", "s1.blosc2", "s2.blosc2"}] * 37
    assert {sample["__key__"]: comparable(sample) for sample in found} == {
        key: comparable(sample) for key, sample in expected.items()
    }


def test_passes_ranks_and_the_order_of_the_plan(root):
    config = data_config(root)
    printed = [key for items in uncut(config, 4) for _, _, name, keys, _, _ in items if name == "pairs" for key in keys]
    ranks = [[sample["__key__"] for sample in TarSamples(config, "pairs", 0, rank, 2)] for rank in range(2)]
    assert sorted(ranks[0] + ranks[1]) == sorted(plain(root, "pairs"))
    alone = [sample["__key__"] for sample in TarSamples(config, "pairs", 0)]
    assert alone[: len(printed)] == printed
    second = [sample["__key__"] for sample in TarSamples(config, "pairs", 0, first_pass=1)]
    assert sorted(second) == sorted(alone)
    assert second != alone
    endless = TarSamples(config, "pairs", 0, passes=None)
    assert len(list(itertools.islice(endless, 100))) == 100


@pytest.mark.parametrize("count", [0, 3])
def test_a_pipeline_of_webdataset_takes_every_sample_once(root, count):
    only_s1 = StreamConfig(collections=("pairs",), sensors=("s1",), sub_batch=2, lr=1)
    config = data_config(root, streams={"radar": only_s1})
    pipeline = webdataset.DataPipeline(
        TarSamples(config, "radar", seed=0),
        webdataset.map(partial(decode_sample, sensors=("s1",))),
        webdataset.to_tuple("__key__", "s1"),
        webdataset.batched(4, partial=True),
    )
    loader = webdataset.WebLoader(pipeline, batch_size=None, **workers(count))
    keys = []
    for names, images in loader:
        assert torch.as_tensor(images).shape == (len(names), 2, PX, PX)
        keys += list(names)
    assert sorted(keys) == sorted(plain(root, "pairs"))


def test_decoding_a_sensor_that_is_not_there(root):
    sample = next(iter(TarSamples(data_config(root), "pairs", 0)))
    assert set(decode_sample(sample, ["s2"])) == {"__key__", "__url__", "json", "s2"}
    with pytest.raises(ShardError, match=r"has no sensor 's22'. Did you mean 's2'"):
        decode_sample(sample, ["s22"])


def test_damage_is_named_here_too(tmp_path, monkeypatch):
    monkeypatch.setattr("gfm_pipeline.data.reader.BACKOFF_S", 0.001)
    make_collection(tmp_path / "pairs", random_samples([S1, S2], 12, PX), [S1, S2], samples_per_shard=6)
    entry = load_sidecar(LocalStore(tmp_path / "pairs"), "pairs-000001").samples[3]
    path = tmp_path / "pairs" / tar_path("pairs-000001")
    data = bytearray(path.read_bytes())
    data[entry.meta.offset + 5] ^= 1
    path.write_bytes(bytes(data))
    config = data_config(tmp_path, streams={"a": StreamConfig(collections=("pairs",), sub_batch=2, lr=1)})
    with pytest.raises(ChecksumError, match=f"sample {entry.key}, record at byte {entry.meta.offset}"):
        list(TarSamples(config, "a", 0))


def test_wrong_use(root):
    with pytest.raises(ConfigError, match=r"no stream is called 'pair' in data.streams. Did you mean 'pairs'"):
        TarSamples(data_config(root), "pair", 0)
    with pytest.raises(PlanError, match="3 ranks cannot share 4 lanes"):
        iter(BatchDataset(data_config(root), 0, 0, 3))
