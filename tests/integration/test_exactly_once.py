"""Whatever the mixture, the lanes, the world and the cuts: every sample once, in the order of the uncut run."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gfm_pipeline.data.config import AugmentConfig, DataConfig, MaskConfig, StreamConfig
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.sensors import builtin_sensor
from gfm_pipeline.shards.manifest import load_sidecar
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


@st.composite
def courses(draw):
    """Return (changes of the configuration, seed, steps and world before and after a cut, threads after it)."""
    lanes = draw(st.integers(1, 6))
    pairs = StreamConfig(collections=("pairs",), sub_batch=2 * draw(st.integers(1, 4)), lr=1)
    photos = StreamConfig(collections=("photos",), sub_batch=draw(st.integers(1, 4)), lr=1)
    changes = {
        "lanes": lanes,
        "streams": {"pairs": pairs, "photos": photos} if draw(st.booleans()) else {"photos": photos},
        "chunk_samples": draw(st.integers(1, 9)),
        "window_chunks": draw(st.integers(1, 4)),
        "batches": draw(st.sampled_from(["heterogeneous", "homogeneous"])),
        "prefetch_steps": draw(st.integers(1, 3)),
    }
    worlds = st.sampled_from([world for world in range(1, lanes + 1) if lanes % world == 0])
    parts = [(draw(st.integers(0, 6)), draw(worlds), draw(st.integers(1, 3))) for _ in range(2)]
    return changes, draw(st.integers(0, 2**64 - 1)), parts


def follow(root, course):
    """Run the real loader along a course and compare it with the uncut run and the plan."""
    changes, seed, parts = course
    config = data_config(root, **changes)
    mixture = open_mixture(config)
    total = sum(steps for steps, _, _ in parts)
    with Loader(mixture, config, seed, 0, 1) as loader:
        plan, uncut = loader.plan, [[flat(batch) for batch in next(loader)] for _ in range(total)]
    found: list[list[object]] = [[] for _ in range(total)]
    state, done = None, 0
    for steps, world, threads in parts:
        states = []
        for rank in range(world):
            again = config.model_copy(update={"threads": threads})
            with Loader(mixture, again, seed, rank, world) as loader:
                if state is not None:
                    loader.load_state_dict(json.loads(state))
                for step in range(done, done + steps):
                    found[step] += [flat(batch) for batch in next(loader)]
                states.append(json.dumps(loader.state_dict()))
        assert len(set(states)) == 1
        state, done = states[0], done + steps
    assert found == uncut
    keys = {name: sample_keys(stream) for name, stream in mixture.streams.items()}
    for step, batches in enumerate(found):
        for lane, batch in enumerate(batches):
            assert [name for _, _, name, _, _, _ in batch] == list(plan.streams_at(step))
            for _, _, name, names, _, _ in batch:
                assert list(names) == [keys[name][pick.number] for pick in plan.take(name, lane, step)]


def sample_keys(stream):
    """Return the keys of a stream in the order of its shards, from their sidecars."""
    return [sample.key for ref in stream.shards for sample in load_sidecar(ref.store, ref.entry.name).samples]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(course=courses())
def test_the_loader_follows_the_plan_on_any_course(root, course):
    follow(root, course)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(course=courses())
def test_five_hundred_courses_of_the_loader(root, course):
    follow(root, course)
