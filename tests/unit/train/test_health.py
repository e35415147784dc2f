"""Bad steps: what is one, what is done, and that a resumed watch judges as the uncut one."""

import math

import pytest
import torch

from gfm_pipeline.errors import TrainingError
from gfm_pipeline.train.config import HealthConfig
from gfm_pipeline.train.health import Health
from gfm_pipeline.train.step import TOTAL, StepResult


def result(norm: float, updated: bool = True) -> StepResult:
    return StepResult({TOTAL: torch.tensor(math.nan)}, {}, norm, 1, updated=updated)


def take(health: Health, step: int, loss: float, norm: float) -> str | None:
    """Take a step as the training does: the update is made if the norm is within the limit."""
    limit = health.norm_limit(loss)
    return health.note(step, result(norm, math.isfinite(norm) and norm <= limit))


def test_what_is_not_finite_is_always_bad() -> None:
    for loss, norm, words in ((math.nan, 1.0, "the loss is nan"), (1.0, math.inf, "the gradient is not finite")):
        with pytest.raises(TrainingError, match=f"step 7 is bad: {words}"):
            take(Health(HealthConfig()), 7, loss, norm)


def test_a_spike_is_a_multiple_of_the_median_once_the_window_is_full() -> None:
    config = HealthConfig(on_bad_step="skip_batch", loss_factor=2, norm_factor=3, window_steps=3)
    health = Health(config)
    for step, (loss, norm) in enumerate([(1, 1), (1000, 1000), (1, 1)]):
        assert take(health, step, loss, norm) is None
    assert take(health, 3, 1.9, 2.9) is None
    assert "the loss 4 is a spike, the median was 1.9" in str(take(health, 4, 4.0, 1.0))
    assert "norm 9 is a spike, the median was 2.9" in str(take(health, 5, 1.0, 9.0))
    assert health.bad_steps == [4, 5]
    assert take(health, 6, 1.0, 1.0) is None


def test_a_resumed_watch_goes_on_with_what_it_has_seen() -> None:
    config = HealthConfig(on_bad_step="skip_batch", loss_factor=2, window_steps=3)
    uncut = Health(config)
    losses = [1.0, 0.9, 1.1, 5.0, 0.8, 0.7, 6.0, 0.6]
    verdicts = [take(uncut, step, loss, 1.0) for step, loss in enumerate(losses)]
    for cut in range(len(losses)):
        first = Health(config)
        for step in range(cut):
            take(first, step, losses[step], 1.0)
        second = Health(config, first.state())
        assert [take(second, step, losses[step], 1.0) for step in range(cut, len(losses))] == verdicts[cut:]
        assert second.state() == uncut.state()


def test_too_many_bad_steps_stop_the_run_even_across_rewinds() -> None:
    health = Health(HealthConfig(on_bad_step="rewind", max_bad_steps=2))
    saved = health.state() | {"bad_steps": []}
    for step in (3, 5):
        assert take(health, step, math.nan, 1.0)
        health = health.rewound(saved)
    with pytest.raises(TrainingError, match=r"bad step number 3.*\[3, 5, 9\]"):
        take(health, 9, math.nan, 1.0)
