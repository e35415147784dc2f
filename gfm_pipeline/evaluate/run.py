"""Evaluation of a run's checkpoint in one process: the numbers that training printed, or new ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.evaluate.evaluator import Evaluator
from gfm_pipeline.evaluate.team import Alone
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.models.transfer import start_encoder
from gfm_pipeline.viz.reconstruct import load_run


def evaluate_run(run_dir: Path, overrides: tuple[str, ...] = (), untrained: bool = False) -> dict[str, Any]:
    """Return {"step", "reconstruct", "probes"} of the newest checkpoint, or of the weights the run began with.

    `step` is that of the last update, as in the run's tables; -1 before the first.
    `overrides` change the stored configuration. Raises CheckpointError for a run without a checkpoint and ConfigError
    for one that names nothing to evaluate.
    """
    run = load_run(run_dir, overrides)
    if run.config.evaluate is None:
        raise ConfigError(
            f"the configuration of {run_dir} has no evaluate section. Set evaluate.reconstruct or evaluate.probes, "
            "e.g. --set evaluate.reconstruct.val='{collections: [val], sensors: [s1, s2]}'."
        )
    model = run.model
    if untrained:
        config = run.config
        model = MsGFM(config.model, run.state.sensors, config.data.image_px, config.seed).eval()
        if config.model.encoder.init is not None:
            start_encoder(model, config.model.encoder.init, config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu" else "cpu")
    evaluator = Evaluator(run.config.evaluate, run.config.data, open_mixture(run.config.data))
    found = evaluator.measure(model.to(device), device, Alone())
    return {"step": -1 if untrained else run.state.step - 1, **found}
