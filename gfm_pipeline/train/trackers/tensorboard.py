"""TensorBoard: event files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gfm_pipeline.config import StrictModel
from gfm_pipeline.train.trackers.tracker import TRACKERS, Picture, RunRecord


class TensorBoardConfig(StrictModel):
    """No options."""


@TRACKERS.register("tensorboard")
class TensorBoardTracker:
    """Writes `tensorboard/` in the run folder; a resumed run hides what it takes again."""

    Config: ClassVar[type[StrictModel]] = TensorBoardConfig

    def __init__(self, config: TensorBoardConfig, record: RunRecord) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._board = SummaryWriter(str(record.run_dir / "tensorboard"), purge_step=record.first_step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to the curve of every name."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def picture(self, name: str, picture: Picture, step: int) -> None:
        """Add a picture."""
        self._board.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the event file."""
        self._board.close()
