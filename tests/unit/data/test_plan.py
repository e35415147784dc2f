"""The order of samples, stated as invariants and checked over random collections, mixtures and worlds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfm_pipeline.data.plan import Plan, PlannedStream, Sizes
from gfm_pipeline.errors import PlanError


def stream(shards, samples_per_step=3, name="a", digest="d"):
    return PlannedStream(name=name, shard_samples=tuple(shards), samples_per_step=samples_per_step, digest=digest)


@st.composite
def cases(draw):
    """Return (streams, sizes, seed) with at least one sample for each lane."""
    sizes = Sizes(
        lanes=draw(st.integers(1, 8)), chunk_samples=draw(st.integers(1, 9)), window_chunks=draw(st.integers(1, 5))
    )
    shards = st.lists(st.integers(0, 25), min_size=1, max_size=6).filter(lambda s: sum(s) >= sizes.lanes)
    streams = [stream(draw(shards), draw(st.integers(1, 5)), name) for name in ("a", "b")[: draw(st.integers(1, 2))]]
    return streams, sizes, draw(st.integers(0, 2**64 - 1))


def lane_numbers(plan, name, lane, steps):
    """Return (pass, sample) of each position of a lane in `steps`, in order."""
    return [(p.window.pass_index, p.number) for step in steps for p in plan.take(name, lane, step)]


def one_pass(plan, planned, lanes, pass_index):
    """Return the samples that all lanes take of a pass, by asking for every step that can hold some."""
    per_lane = -(-sum(planned.shard_samples) // lanes)
    steps = range((pass_index + 1) * per_lane // planned.samples_per_step + 1)
    return [
        number
        for lane in range(lanes)
        for found, number in lane_numbers(plan, planned.name, lane, steps)
        if found == pass_index
    ]


def homogeneous(streams, sizes, seed):
    return Plan(streams, replace(sizes, batches="homogeneous"), seed)


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(0, 2))
def test_homogeneous_steps_take_one_stream_in_the_order_it_always_has(case, first_round):
    streams, sizes, seed = case
    mixed, single = Plan(streams, sizes, seed), homogeneous(streams, sizes, seed)
    turns = {planned.name: planned.pass_steps(sizes.lanes) for planned in streams}
    length = sum(turns.values())
    assert single.steps_per_epoch == length
    steps = range(first_round * length, (first_round + 1) * length)
    # A round has each stream as often as a pass needs, whatever came before.
    assert Counter(name for step in steps for name in single.streams_at(step)) == turns
    own = {name: first_round * count for name, count in turns.items()}
    for step in steps:
        (turn,) = single.streams_at(step)
        for planned in streams:
            assert single.position(planned.name, step) == own[planned.name] * planned.samples_per_step
            for lane in range(sizes.lanes):
                found = [pick.number for pick in single.take(planned.name, lane, step)]
                expected = [pick.number for pick in mixed.take(planned.name, lane, own[planned.name])]
                assert found == (expected if planned.name == turn else [])
        own[turn] += 1


def test_homogeneous_rounds_are_shuffled_each_in_its_own_way_and_named_in_the_digest():
    streams, sizes = [stream([300], 1, "a"), stream([100], 1, "b")], Sizes(2, 4, 2)
    plan = homogeneous(streams, sizes, 1)
    rounds = [[plan.streams_at(step)[0] for step in range(200 * n, 200 * (n + 1))] for n in range(3)]
    assert all(order.count("b") == 50 for order in rounds)
    assert len({tuple(order) for order in [*rounds, sorted(rounds[0])]}) == 4
    # As often after an a as after a b, but for chance.
    followers = Counter(pairwise(rounds[0]))
    assert 0.1 < followers["b", "b"] / 50 < 0.45
    assert plan.digest != Plan(streams, sizes, 1).digest
    assert plan.described["data.batches"] == "homogeneous"
    other = homogeneous(streams, sizes, 2)
    assert [other.streams_at(step)[0] for step in range(200)] != rounds[0]


@settings(max_examples=200, deadline=None)
@given(cases(), st.integers(0, 2))
def test_every_pass_of_every_stream_takes_each_sample_exactly_once(case, pass_index):
    streams, sizes, seed = case
    plan = Plan(streams, sizes, seed)
    for planned in streams:
        taken = one_pass(plan, planned, sizes.lanes, pass_index)
        assert sorted(taken) == list(range(sum(planned.shard_samples)))


@settings(max_examples=200, deadline=None)
@given(cases(), st.integers(0, 20))
def test_a_pick_agrees_with_its_window_and_shard(case, step):
    streams, sizes, seed = case
    plan = Plan(streams, sizes, seed)
    for planned in streams:
        offsets = np.cumsum([0, *planned.shard_samples])
        for lane in range(sizes.lanes):
            for pick in plan.take(planned.name, lane, step):
                assert pick.number == offsets[pick.shard] + pick.sample
                assert pick.sample < planned.shard_samples[pick.shard]
                assert pick.window.shards[pick.piece] == pick.shard
                assert pick.sample in pick.window.piece_samples(pick.piece)
                assert len(pick.window.counts) <= sizes.window_chunks
                assert pick.window.counts.max() <= sizes.chunk_samples


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(0, 40))
def test_a_piece_has_left_exactly_what_later_positions_take(case, since):
    streams, sizes, seed = case
    plan, planned = Plan(streams, sizes, seed), streams[0]
    first_step = since // planned.samples_per_step
    position = first_step * planned.samples_per_step
    window = plan.take(planned.name, 0, first_step)[0].window
    later = []
    for step in range(first_step, (window.end - 1) // planned.samples_per_step + 1):
        later += [pick for pick in plan.take(planned.name, 0, step) if pick.window.begin == window.begin]
    left = [
        (int(window.shards[piece]), sample)
        for piece in range(len(window.counts))
        for sample in window.piece_samples(piece, position).tolist()
    ]
    assert sorted(left) == sorted((pick.shard, pick.sample) for pick in later)


def test_a_chunk_on_a_lane_boundary_becomes_two_disjoint_pieces():
    # 10 samples in one chunk over 3 lanes: segments [0,3), [3,6), [6,10).
    plan = Plan([stream([10], 1)], Sizes(lanes=3, chunk_samples=32, window_chunks=4), 0)
    lanes = [{number for _, number in lane_numbers(plan, "a", lane, range(n))} for lane, n in enumerate((3, 3, 4))]
    assert lanes == [{0, 1, 2}, {3, 4, 5}, {6, 7, 8, 9}]


def test_passes_lanes_seeds_and_streams_have_orders_of_their_own():
    def order(seed=0, name="a", pass_index=0):
        plan = Plan([stream([64] * 8, 64, name)], Sizes(lanes=1, chunk_samples=8, window_chunks=4), seed)
        return [n for _, n in lane_numbers(plan, name, 0, range(8 * pass_index, 8 * (pass_index + 1)))]

    orders = [order(), order(seed=1), order(seed=2**32), order(name="b"), order(pass_index=1), order(pass_index=2)]
    assert all(sorted(o) == list(range(512)) for o in orders)
    assert len({tuple(o) for o in orders}) == len(orders)
    assert order() == order()


def test_neighbours_of_a_shard_are_spread():
    plan = Plan([stream([100] * 50, 500)], Sizes(lanes=1, chunk_samples=10, window_chunks=16), 3)
    numbers = [n for _, n in lane_numbers(plan, "a", 0, range(10))]
    following = sum(b - a == 1 for a, b in pairwise(numbers))
    assert following < 0.02 * len(numbers)
    assert abs(np.corrcoef(numbers, range(5000))[0, 1]) < 0.1


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(0, 2))
def test_a_whole_pass_of_a_lane_is_what_its_steps_take(case, pass_index):
    streams, sizes, seed = case
    plan = Plan(streams, sizes, seed)
    for planned in streams:
        lanes = [plan.lane_pass(planned.name, lane, pass_index).tolist() for lane in range(sizes.lanes)]
        assert [number for lane in lanes for number in lane] == one_pass(plan, planned, sizes.lanes, pass_index)


def test_an_epoch_is_the_longest_stream_once_and_shorter_ones_wrap():
    streams = [stream([100], 5, "long"), stream([9], 2, "short")]
    plan = Plan(streams, Sizes(lanes=2, chunk_samples=4, window_chunks=2), 0)
    assert plan.steps_per_epoch == 10
    assert [plan.epoch(step) for step in (0, 9, 10, 25)] == [0, 0, 1, 2]
    passes = Counter(p for p, _ in lane_numbers(plan, "short", 0, range(10)))
    assert passes == {0: 4, 1: 4, 2: 4, 3: 4, 4: 4}
    assert Plan(streams, Sizes(2, 4, 2), 0, steps_per_epoch=7).steps_per_epoch == 7


@pytest.mark.parametrize(("short", "steps"), [(9, 2), (8, 2), (7, 1), (3, 1)])
def test_an_epoch_may_end_with_the_shortest_stream(short, steps):
    streams = [stream([100], 5, "long"), stream([short], 2, "short")]
    plan = Plan(streams, Sizes(lanes=2, chunk_samples=4, window_chunks=2), 0, "shortest")
    assert plan.steps_per_epoch == steps
    taken = [number for lane in (0, 1) for _, number in lane_numbers(plan, "short", lane, range(steps))]
    assert len(set(taken)) == len(taken) or short < 4  # nothing twice, unless one step takes more than there is
    later = [number for lane in (0, 1) for _, number in lane_numbers(plan, "long", lane, range(10))]
    assert sorted(later) == list(range(100))  # the next epochs go on where the long stream stopped


def test_the_digest_covers_what_the_order_depends_on_and_nothing_else():
    def digest(shards=(20, 20), b=3, digest="d", name="a", lanes=2, chunk=4, window=2, seed=0, epoch="longest"):
        return Plan([stream(shards, b, name, digest)], Sizes(lanes, chunk, window), seed, epoch).digest

    others = [
        digest(shards=(40,)),
        digest(b=2),
        digest(digest="e"),
        digest(name="b"),
        digest(lanes=1),
        digest(chunk=5),
        digest(window=3),
        digest(seed=1),
    ]
    assert len({digest(), *others}) == 1 + len(others)
    assert digest(epoch=5) == digest()


GOLDEN = """
from gfm_pipeline.data.plan import Plan, PlannedStream, Sizes
import hashlib, sys
streams = [PlannedStream("pairs", (70, 33, 51), 4, "d1"), PlannedStream("rgb", (90, 110), 6, "d2")]
plan = Plan(streams, Sizes(lanes=4, chunk_samples=8, window_chunks=3), seed=7)
order = [[s.name, lane, step, [p.number for p in plan.take(s.name, lane, step)]]
         for s in streams for lane in range(4) for step in range(30)]
assert "torch" not in sys.modules
print(plan.digest, hashlib.sha256(repr(order).encode()).hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_digest_and_order_are_the_same_in_every_process(hash_seed):
    # If this fails the order has changed: runs cannot be resumed across the change, and ORDER_VERSION must say so.
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    out = subprocess.run([sys.executable, "-c", GOLDEN], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.split() == [
        "01139b9c65b89ed8cd0f58dd885e65ecf94c47aebe5ed3ecab6b8581d3e69d43",
        "4c9c673a5e8c58b6981e6ef6670340ca5dd75aa27f20ef9047e7e5d65313b25d",
    ]


def test_twenty_million_samples_are_planned_and_sought_in_memory_of_the_chunks():
    import tracemalloc

    planned = stream([1000] * 20_000, 128)
    tracemalloc.start()
    try:
        plan = Plan([planned], Sizes(lanes=64, chunk_samples=32, window_chunks=16), 0)
        for lane in (0, 63):
            for step in (0, 1500, 2440, 100_000):
                assert len(plan.take("a", lane, step)) == 128
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert plan.steps_per_epoch == 2442
    assert peak < 200e6  # one int64 for each sample would be 160 MB, twice that with its permutation


def test_fewer_samples_than_lanes_is_an_error_with_the_numbers():
    with pytest.raises(PlanError, match=r"stream a has 5 samples for 8 lanes.*data.lanes to at most 5"):
        Plan([stream([2, 3])], Sizes(8, 4, 2), 0)


def test_a_world_that_does_not_divide_the_lanes_is_told_the_valid_sizes():
    plan = Plan([stream([50])], Sizes(12, 4, 2), 0)
    with pytest.raises(PlanError, match=r"5 ranks cannot share 12 lanes.*1, 2, 3, 4, 6, 12 ranks"):
        plan.rank_lanes(0, 5)
    with pytest.raises(PlanError, match="no rank 3 in a world of 3"):
        plan.rank_lanes(3, 3)
    assert [list(plan.rank_lanes(rank, 3)) for rank in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_an_error(seed):
    with pytest.raises(PlanError, match="seed"):
        Plan([stream([50])], Sizes(2, 4, 2), seed)
