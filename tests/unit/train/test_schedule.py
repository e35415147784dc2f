"""Learning rates at chosen steps."""

import pytest
import torch
from timm.scheduler import CosineLRScheduler

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


@pytest.mark.parametrize("warmup_prefix", [True, False])
@pytest.mark.parametrize(("warmup_epochs", "min_share"), [(0, 0.0), (2, 0.1), (2.5, 0.0), (10, 0.5)])
def test_cosine_is_timms(warmup_prefix: bool, warmup_epochs: float, min_share: float) -> None:
    epochs, per_epoch = 20, 6
    schedule = ScheduleConfig(
        epochs=epochs,
        warmup_epochs=warmup_epochs,
        warmup_lr=1e-6,
        kind="cosine",
        min_share=min_share,
        warmup_prefix=warmup_prefix,
    )
    warmup = round(warmup_epochs * per_epoch)
    reference = CosineLRScheduler(
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3),
        t_initial=epochs * per_epoch - (warmup if warmup_prefix else 0),
        lr_min=1e-3 * min_share,
        warmup_t=warmup,
        warmup_lr_init=1e-6,
        warmup_prefix=warmup_prefix,
    )
    for step in range(epochs * per_epoch + 3):
        (expected,) = reference._get_lr(step)
        assert learning_rate(1e-3, step, schedule, per_epoch) == pytest.approx(expected, rel=1e-9, abs=1e-15), step


def test_constant_stays_and_max_steps_cuts_the_run_not_the_schedule() -> None:
    schedule = ScheduleConfig(epochs=10, warmup_epochs=0, kind="constant", max_steps=7)
    assert [learning_rate(3.0, step, schedule, 5) for step in (0, 49)] == [3.0, 3.0]
    assert total_steps(schedule, 5) == 7
    assert total_steps(schedule.model_copy(update={"max_steps": None}), 5) == 50
