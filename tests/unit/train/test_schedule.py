"""Learning rates at chosen steps."""

import pytest

from gfm_pipeline.train.config import ScheduleConfig
from gfm_pipeline.train.schedule import learning_rate, total_steps

PAPER = ScheduleConfig()  # 800 epochs, 10 of warm-up from 5e-7, x 0.1 at 700


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 5e-7), (5, (1e-4 + 5e-7) / 2), (10, 1e-4), (699, 1e-4), (700, 1e-5), (799, 1e-5)]
)
def test_the_papers_schedule(epoch: int, expected: float) -> None:
    assert learning_rate(1e-4, epoch * 1000, PAPER, 1000) == pytest.approx(expected)


@pytest.mark.parametrize(("step", "share"), [(10, 1.0), (55, 0.55), (100, 0.1), (500, 0.1)])
def test_cosine_ends_at_its_minimum(step: int, share: float) -> None:
    schedule = ScheduleConfig(epochs=10, warmup_epochs=1, kind="cosine", min_share=0.1)
    assert learning_rate(2.0, step, schedule, 10) == pytest.approx(2.0 * share)


def test_constant_stays_and_max_steps_cuts_the_run_not_the_schedule() -> None:
    schedule = ScheduleConfig(epochs=10, warmup_epochs=0, kind="constant", max_steps=7)
    assert [learning_rate(3.0, step, schedule, 5) for step in (0, 49)] == [3.0, 3.0]
    assert total_steps(schedule, 5) == 7
    assert total_steps(schedule.model_copy(update={"max_steps": None}), 5) == 50
