"""The hook by itself: when it measures, what it writes, and that the model is left alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.evaluate.hook import PeriodicEvaluation
from gfm_pipeline.evaluate.team import Alone
from gfm_pipeline.models.msgfm import MsGFM
from tests.unit.evaluate.test_evaluator import CPU, config_of, root  # noqa: F401


class Notes:
    """Stands for the tracking of a run."""

    is_open = True

    def __init__(self) -> None:
        self.rows: list[tuple[str, Any]] = []
        self.pictures: dict[str, Any] = {}

    def write(self, row: Any, table: str) -> None:
        self.rows.append((table, row))

    def picture(self, name: str, picture: Any, step: int) -> None:
        self.pictures[name] = picture


class Lone(Alone):
    device = CPU
    is_first = True


def test_it_measures_when_it_is_its_turn_and_at_the_end(root: Path) -> None:  # noqa: F811
    held_out = {"val": {"collections": ["val"], "sensors": ["s1", "s2"], "panels": 2, "max_samples": 16}}
    config = config_of(root, {"every_steps": 3, "batch_samples": 4, "reconstruct": held_out})
    mixture = open_mixture(config.data)
    model = MsGFM(config.model, mixture.sensors, config.data.image_px, 7)  # other weights than config.seed's
    before = {name: value.clone() for name, value in model.state_dict().items()}
    notes, beats = Notes(), list[str]()
    run: Any = SimpleNamespace(
        config=config, world=Lone(), mixture=mixture, model=model, track=notes, last_step=5, run_dir=root
    )
    run.beat = beats.append
    hook = PeriodicEvaluation(run)
    draws = torch.get_rng_state()
    for step in range(5):
        hook(run, step)
    assert [(table, row["step"]) for table, row in notes.rows] == [("evaluation", 2), ("evaluation", 4)]
    assert all(beats.count(f"evaluation after step {step}") >= 4 for step in (2, 4))  # for each batch
    assert notes.pictures.keys() == {f"evaluation/val/{a}-to-{b}" for a in ("s1", "s2") for b in ("s1", "s2")}
    assert all(p.ndim == 3 and p.shape[2] == 3 and p.std() > 0 for p in notes.pictures.values())
    # Of this model's weights, and nothing of it has changed.
    own = hook._evaluator.measure(model.eval(), CPU, Alone())
    assert notes.rows[0][1]["reconstruct"] == own["reconstruct"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), draws)
