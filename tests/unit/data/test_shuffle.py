"""The figures of a shuffle, against references computed sample by sample, and against shuffles that are known."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from gfm_pipeline.data.mixture import ShardRef, Stream
from gfm_pipeline.data.plan import Plan, PlannedStream, Sizes
from gfm_pipeline.data.shuffle import shuffle_quality
from gfm_pipeline.shards.manifest import ShardEntry
from gfm_pipeline.storage import LocalStore


def plan_of(shards, tmp_path, *, samples_per_step=8, lanes=2, chunk=8, window=4):
    planned = PlannedStream("a", tuple(shards), samples_per_step, "d")
    empty = "0" * 64
    entries = [
        ShardEntry.model_construct(name=f"a-{i:06d}", samples=n, bytes=0, sha256=empty, sensors=("rgb",))
        for i, n in enumerate(shards)
    ]
    refs = tuple(ShardRef(LocalStore(tmp_path), entry, {}) for entry in entries)
    return Plan([planned], Sizes(lanes, chunk, window), 3), Stream("a", ("rgb",), samples_per_step, refs, (), "d")


def test_the_figures_are_what_counting_gives(tmp_path):
    shards = [13, 40, 7, 25]
    plan, stream = plan_of(shards, tmp_path)
    found = shuffle_quality(plan, stream, pass_index=1)
    shard_of = [index for index, count in enumerate(shards) for _ in range(count)]
    lanes = [plan.lane_pass("a", lane, 1).tolist() for lane in (0, 1)]
    pairs = [pair for lane in lanes for pair in pairwise(lane)]
    steps = [lane[i : i + 8] for lane in lanes for i in range(0, len(lane) - 7, 8)]
    assert (found.samples, found.repeated, found.missing) == (85, 0, 0)
    assert found.correlation == pytest.approx(np.corrcoef(np.array(pairs).T)[0, 1])
    assert found.same_shard == pytest.approx(np.mean([shard_of[a] == shard_of[b] for a, b in pairs]))
    assert found.shards_in_batch == pytest.approx(np.mean([len({shard_of[n] for n in step}) for step in steps]))


def test_a_perfect_shuffle_is_called_one(tmp_path):
    whole = {"lanes": 1, "chunk": 1, "window": 10_000}
    found = shuffle_quality(*plan_of([100] * 50, tmp_path, **whole))
    assert abs(found.correlation) < 4 * found.correlation_noise
    assert found.same_shard == pytest.approx(found.same_shard_perfect, abs=0.01)
    assert found.shards_in_batch == pytest.approx(found.shards_in_batch_perfect, abs=0.1)


def test_large_chunks_in_small_windows_are_told_apart(tmp_path):
    coarse = shuffle_quality(*plan_of([100] * 50, tmp_path, chunk=100, window=1))
    assert coarse.correlation > 0.9
    assert coarse.same_shard > 0.95
    assert coarse.shards_in_batch < 2
    fine = shuffle_quality(*plan_of([100] * 50, tmp_path, chunk=10, window=20))
    assert fine.correlation < coarse.correlation / 3
    assert fine.shards_in_batch > 3 * coarse.shards_in_batch


def test_a_plan_that_repeats_is_found_out(tmp_path, monkeypatch):
    plan, stream = plan_of([20, 20], tmp_path)
    broken = np.array([0, 1, 1, 5])
    monkeypatch.setattr(plan, "lane_pass", lambda name, lane, pass_index: broken)
    found = shuffle_quality(plan, stream)
    assert (found.repeated, found.missing) == (5, 37)


def test_too_few_samples_have_no_figures(tmp_path):
    found = shuffle_quality(*plan_of([1, 1], tmp_path))
    assert math.isnan(found.correlation)
    assert math.isnan(found.same_shard)
    assert math.isnan(found.shards_in_batch)
