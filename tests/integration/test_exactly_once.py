"""Whatever the mixture, the lanes, the world and the cuts: every sample once, in the order of the uncut run."""

from __future__ import annotations

import json

import pytest

from gfm_pipeline.data.config import AugmentConfig, DataConfig, MaskConfig, StreamConfig
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.sensors import builtin_sensor
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
    base = {
        "root": str(root),
        "streams": streams,
        "image_px": PX,
        "lanes": 4,
        "chunk_samples": 3,
        "window_chunks": 2,
        "mask": MaskConfig(cell_px=4),
        "augment": AugmentConfig(flip=False),
    }
    return DataConfig(**(base | changes))


def flat(batch):
    """Return all that a batch says, comparable with ==."""
    return [
        (batch.step, batch.lane, name, part.keys, part.passes, [t.numpy().tobytes() for t in part.images.values()])
        for name, part in batch.streams.items()
    ]


@pytest.mark.parametrize(("cut", "world"), [(0, 2), (5, 1), (7, 4), (8, 2)])
def test_homogeneous_steps_hold_one_stream_and_resume_anywhere(root, cut, world):
    config = data_config(root, batches="homogeneous")
    mixture = open_mixture(config)
    assert mixture.steps_per_epoch == 5 + 2  # 37 pairs by 4 lanes of 2, 19 photos by 4 lanes of 3
    with Loader(mixture, config, 0, 0, 1) as loader:
        uncut = [next(loader) for _ in range(14)]
        streams = [{name for batch in step for name in batch.streams} for step in uncut]
        assert all(len(names) == 1 for names in streams)
        assert [names == {"photos"} for names in streams[:7]].count(True) == 2
        assert loader.bytes_read
    with Loader(mixture, config, 0, 0, 1) as loader:
        for _ in range(cut):
            next(loader)
        state = json.loads(json.dumps(loader.state_dict()))
    resumed: list[list[object]] = [[] for _ in range(14)]
    for rank in range(world):
        with Loader(mixture, config, 0, rank, world) as loader:
            loader.load_state_dict(state)
            for step in range(cut, 14):
                resumed[step] += [flat(batch) for batch in next(loader)]
    assert resumed[cut:] == [[flat(batch) for batch in step] for step in uncut[cut:]]
    for name, count in (("pairs", 37), ("photos", 19)):
        parts = [batch.streams[name] for step in uncut for batch in step if name in batch.streams]
        first = [key for part in parts for key, number in zip(part.keys, part.passes, strict=True) if number == 0]
        assert len(set(first)) == len(first) == count
