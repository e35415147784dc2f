from __future__ import annotations

import json

import pytest

from gfm_pipeline.data.plan import Plan, PlannedStream, Sizes
from gfm_pipeline.data.state import LoaderState
from gfm_pipeline.errors import PlanError


def plan(seed=0, chunk=4, name="a"):
    return Plan([PlannedStream(name, (40, 40), 4, "d")], Sizes(2, chunk, 2), seed)


def test_state_survives_json_and_resumes_where_it_was():
    state = LoaderState.of(plan(), 23)
    again = LoaderState.from_dict(json.loads(json.dumps(state.to_dict())))
    assert again == state
    assert (again.epoch, again.step) == (2, 23)
    assert again.resume_step(plan()) == 23


def test_another_order_is_refused_with_what_differs():
    state = LoaderState.of(plan(), 5)
    with pytest.raises(PlanError, match=r"seed was 0, is 1; data.chunk_samples was 4, is 8\. Restore"):
        state.resume_step(plan(seed=1, chunk=8))
    with pytest.raises(PlanError, match=r"data.streams.a was 80 samples .* is not there; data.streams.b was not there"):
        state.resume_step(plan(name="b"))


def test_another_order_is_refused_even_if_the_state_tells_nothing_about_its_own():
    with pytest.raises(PlanError, match="another order"):
        LoaderState(plan_digest="0" * 64, epoch=0, step=0).resume_step(plan())


@pytest.mark.parametrize(
    "tree", [{}, {"plan_digest": "x", "epoch": 0, "step": "soon"}, {"plan_digest": "x", "epoch": 0, "step": -1}]
)
def test_something_else_is_no_state(tree):
    with pytest.raises(PlanError, match="loader state"):
        LoaderState.from_dict(tree)
