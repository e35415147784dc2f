"""Exactly once, whatever happens: random mixtures, lanes, worlds, workers and cuts against the uncut run.

A run is simulated from the plan and the saved state alone, as its ranks and their DataLoader workers would take it:
after each cut every rank starts from nothing but the state, as JSON, at a world size of its own.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import zip_longest
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gfm_pipeline.data.plan import Plan, PlannedStream, Sizes
from gfm_pipeline.data.state import LoaderState
from gfm_pipeline.data.workers import busy_workers, worker_lanes
from gfm_pipeline.errors import PlanError

Item = tuple[int, int, str, tuple[tuple[int, int], ...]]
"""Step, lane, stream, and (pass, sample) of each sample: a sub-batch."""


class Part(NamedTuple):
    """What a run does until it is cut."""

    steps: int
    world: int
    workers: tuple[int, ...]
    """DataLoader workers of each rank."""


class Job(NamedTuple):
    streams: list[PlannedStream]
    sizes: Sizes
    seed: int
    steps_per_epoch: int | str
    parts: list[Part]

    def plan(self):
        return Plan(self.streams, self.sizes, self.seed, self.steps_per_epoch)


@st.composite
def jobs(draw):
    batches = draw(st.sampled_from(["heterogeneous", "homogeneous"]))
    sizes = Sizes(draw(st.integers(1, 8)), draw(st.integers(1, 7)), draw(st.integers(1, 4)), batches)
    shards = st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(lambda s: sum(s) >= sizes.lanes)
    streams = [
        PlannedStream(name, tuple(draw(shards)), draw(st.integers(1, 5)), name)
        for name in ("a", "b", "c")[: draw(st.integers(1, 3))]
    ]
    epochs = [st.integers(1, 9), st.just("longest")] + ([st.just("shortest")] if batches == "heterogeneous" else [])
    job = Job(streams, sizes, draw(st.integers(0, 2**64 - 1)), draw(st.one_of(epochs)), [])
    whole = sum(stream.pass_steps(sizes.lanes) for stream in streams)
    worlds = st.sampled_from([world for world in range(1, sizes.lanes + 1) if sizes.lanes % world == 0])
    # Cuts before the first batch, somewhere, and where epochs begin.
    cuts = st.one_of(st.just(0), st.integers(1, whole), st.just(job.plan().steps_per_epoch))
    for steps in draw(st.lists(cuts, max_size=3)):
        job.parts.append(draw(parts(steps, worlds)))
    left = max(1, whole - sum(part.steps for part in job.parts))
    job.parts.append(draw(parts(left, worlds)))
    return job


@st.composite
def parts(draw, steps, worlds):
    world = draw(worlds)
    return Part(steps, world, tuple(draw(st.lists(st.integers(0, 5), min_size=world, max_size=world))))


def sub_batches(plan: Plan, lane: int, step: int) -> list[Item]:
    return [
        (step, lane, name, tuple((pick.window.pass_index, pick.number) for pick in plan.take(name, lane, step)))
        for name in plan.streams_at(step)
    ]


def rank_items(job: Job, state: str, part: Part, rank: int) -> list[list[Item]]:
    """Return what a rank delivers, one item for a lane and step: workers in turn, each with a plan of its own."""
    made = []
    for worker in range(max(1, part.workers[rank])):
        plan = job.plan()
        first = LoaderState.from_dict(json.loads(state)).resume_step(plan)
        lanes = worker_lanes(plan.rank_lanes(rank, part.world), worker, part.workers[rank])
        made.append([sub_batches(plan, lane, step) for step in range(first, first + part.steps) for lane in lanes])
    assert len({len(items) for items in made if items}) <= 1
    return [item for items in zip_longest(*made) for item in items if item is not None]


def check(job: Job) -> None:
    plan = job.plan()
    total = sum(part.steps for part in job.parts)
    uncut = [sub_batches(plan, lane, step) for step in range(total) for lane in range(plan.lanes)]
    found: list[list[Item]] = []
    done = 0
    for part in job.parts:
        state = json.dumps(LoaderState.of(job.plan(), done).to_dict())
        ranks = [rank_items(job, state, part, rank) for rank in range(part.world)]
        share = plan.lanes // part.world
        assert {len(items) for items in ranks} == {part.steps * share}
        for step in range(part.steps):
            layouts = set()
            for items in ranks:
                mine = items[step * share : (step + 1) * share]
                layouts |= {tuple((name, len(keys)) for _, _, name, keys in item) for item in mine}
                found += mine
            assert len(layouts) == 1  # the same streams and sizes on every rank and lane
        done += part.steps
    assert found == uncut
    for stream in job.streams:
        taken = [sample for item in found for _, _, name, samples in item if name == stream.name for sample in samples]
        assert len(set(taken)) == len(taken)  # nothing twice in a pass
        first = Counter(number for pass_index, number in taken if pass_index == 0)
        assert first == Counter(range(sum(stream.shard_samples)))  # and nothing left out


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(jobs())
def test_any_course_of_a_run_takes_every_sample_exactly_once_in_the_order_of_the_uncut_run(job):
    check(job)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(jobs())
def test_ten_thousand_courses_of_a_run(job):
    check(job)


@given(st.integers(1, 24), st.integers(1, 30))
def test_a_world_divides_the_lanes_or_is_told_which_do(lanes, world):
    plan = Plan([PlannedStream("a", (30,), 1, "d")], Sizes(lanes, 4, 2), 0)
    if lanes % world == 0:
        served = [lane for rank in range(world) for lane in plan.rank_lanes(rank, world)]
        assert served == list(range(lanes))
        return
    valid = [size for size in range(1, lanes + 1) if lanes % size == 0]
    with pytest.raises(PlanError, match=f"Start one of {', '.join(map(str, valid))} ranks"):
        plan.rank_lanes(0, world)


@given(st.integers(1, 24), st.integers(0, 30))
def test_workers_share_the_lanes_evenly_and_the_rest_is_idle(num_lanes, num_workers):
    busy = busy_workers(num_lanes, num_workers)
    dealt = [worker_lanes(range(num_lanes), worker, num_workers) for worker in range(max(1, num_workers))]
    assert sorted(lane for lanes in dealt for lane in lanes) == list(range(num_lanes))
    assert {len(lanes) for lanes in dealt[:busy]} == {num_lanes // busy}
    assert not any(dealt[busy:])
    assert busy <= max(1, num_workers)
    assert num_workers < num_lanes or busy == num_lanes
