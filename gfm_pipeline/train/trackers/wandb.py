"""Weights & Biases (extra `wandb`). A resumed run goes on in the same W&B run, whose id the run folder keeps."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import ClassVar, Literal

from gfm_pipeline.config import StrictModel
from gfm_pipeline.train.trackers.tracker import TRACKERS, Picture, RunRecord, import_extra


class WandbConfig(StrictModel):
    """Credentials come from WANDB_API_KEY or `wandb login`."""

    project: str
    entity: str | None = None
    name: str | None = None
    """Name of the run; None: that of the run folder."""
    mode: Literal["online", "offline"] = "online"


@TRACKERS.register("wandb")
class WandbTracker:
    """Sends numbers and pictures to W&B. Steps that a resumed run takes again appear twice there."""

    Config: ClassVar[type[StrictModel]] = WandbConfig

    def __init__(self, config: WandbConfig, record: RunRecord) -> None:
        wandb = import_extra("wandb", "wandb")
        identity = record.run_dir / "wandb-id"
        if not identity.exists():
            identity.write_text(secrets.token_hex(4), encoding="utf-8")
        self._wandb = wandb
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            name=config.name or record.run_dir.name,
            id=identity.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(record.run_dir),
            config=record.config,
            mode=config.mode,
        )
        # W&B's own step counter only ever rises and ignores what a resumed run takes again.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log a row."""
        self._run.log({**values, "step": step})

    def picture(self, name: str, picture: Picture, step: int) -> None:
        """Log a picture."""
        self._run.log({name: self._wandb.Image(picture), "step": step})

    def close(self) -> None:
        """Wait until everything is sent."""
        self._run.finish()
