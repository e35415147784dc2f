from __future__ import annotations

import pytest

from gfm_pipeline.data import shard_index
from gfm_pipeline.data.mixture import ShardRef
from gfm_pipeline.data.shard_index import load_shard_index
from gfm_pipeline.errors import ShardError
from gfm_pipeline.sensors import builtin_sensor
from gfm_pipeline.shards.manifest import load_sidecar
from gfm_pipeline.storage import LocalStore
from tests.make_collection import make_collection, random_samples

SENSORS = [builtin_sensor("s1"), builtin_sensor("s2")]


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """One shard of six pairs; in the tar s1 comes before s2."""
    folder = tmp_path_factory.mktemp("root") / "pairs"
    manifest = make_collection(folder, random_samples(SENSORS, 6), SENSORS)
    return ShardRef(LocalStore(folder), manifest.shards[0], manifest.sensors)


def spans(ranges):
    return [[(member.sample, member.sensor) for member in wanted.members] for wanted in ranges]


def test_neighbours_share_a_range_and_others_do_not(shard):
    ranges = load_shard_index(shard, ["s2", "s1"]).ranges([0, 1, 3])
    assert spans(ranges) == [[(0, "s1"), (0, "s2"), (1, "s1"), (1, "s2")], [(3, "s1"), (3, "s2")]]
    members = load_sidecar(shard.store, shard.entry.name).samples
    first, last = members[0].sensors["s1"], members[1].sensors["s2"]
    assert (ranges[0].start, ranges[0].length) == (first.offset, last.offset + last.size - first.offset)


def test_an_unwanted_sensor_between_parts_a_range(shard):
    assert spans(load_shard_index(shard, ["s1"]).ranges([2, 3])) == [[(2, "s1")], [(3, "s1")]]


def test_a_range_is_bounded(shard, monkeypatch):
    index = load_shard_index(shard, ["s1", "s2"])
    monkeypatch.setattr(shard_index, "MAX_RANGE_BYTES", index.ranges([0, 1])[0].length)
    assert [sorted({sample for sample, _ in span}) for span in spans(index.ranges(range(6)))] == [
        [0, 1],
        [2, 3],
        [4, 5],
    ]


def test_a_sidecar_must_agree_with_the_manifest(shard):
    longer = ShardRef(shard.store, shard.entry.model_copy(update={"samples": 7}), shard.specs)
    with pytest.raises(ShardError, match=r"lists 6 samples, the manifest says 7"):
        load_shard_index(longer, ["s1"])
    with pytest.raises(ShardError, match="has no dsm, its sidecar promises one"):
        load_shard_index(shard, ["dsm"])
