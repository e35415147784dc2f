"""Bringing the student's view of an image towards a teacher's: what the distillations have in common.

Legend: B images, i x j features, D channels.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.objectives.objective import Losses, Objective, Setting, Student
from gfm_pipeline.objectives.teaching import (
    Teaching,
    TeachingConfig,
    images_of,
    mean_of_cells,
    taught_rows,
    visible_to,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from gfm_pipeline.data.batch import HeterogeneousBatch


LEAST_VISIBLE = 0.5
"""Share of an image that must have been measured for it to be taught."""


class DistillationConfig(TeachingConfig):
    """What every distillation can be told."""

    masked: bool
    """Whether the student sees the image under its mask, or all of it. The teacher sees all of it."""
    stage: int = Field(lt=0)
    """Stage of the student whose features are compared, counted from the last one, which is -1."""


class Distillation(Objective):
    """1 - cosine between the projected mean of the student's features and what the teacher makes of the image."""

    name: ClassVar[str]
    config: DistillationConfig
    teaching: Teaching

    @abstractmethod
    def knowledge(self, colours_B3HW: Tensor, visible_B1HW: Tensor | None = None) -> Tensor:
        """Return what the teacher makes of images [B,D], in the places that hold a `visible` pixel where it can leave
        out the others; colours go from 0 to 1."""

    def build(self, setting: Setting) -> nn.Module:
        """Load the teacher and return the projection of the student's features to its width."""
        import torch

        stages = len(setting.encoder.depths)
        if self.config.stage < -stages:
            raise ConfigError(
                f"objectives.{self.name}.stage is {self.config.stage}, the encoder has {stages} stages: set -1 to "
                f"-{stages}."
            )
        self.teaching = Teaching(self.config, setting, self.name)
        student_width = setting.encoder.embed_dim * 2 ** (stages + self.config.stage)
        blank = torch.zeros(1, 3, setting.image_px, setting.image_px, device=setting.device)
        return torch.nn.Linear(student_width, self.knowledge(blank).shape[-1])

    def __call__(self, model: Student, batch: HeterogeneousBatch, rng: torch.Generator) -> Losses:
        """Return per stream the mean over its images, of which those that are not taught add nothing.

        Places without a measured pixel are left out of the means over an image, and an image of which less than
        `LEAST_VISIBLE` was measured is not taught: what a teacher makes of a mostly blank one says little of the place.
        """
        import torch
        from torch.nn import functional as F

        lessons = self.teaching.lessons({name: list(part.images) for name, part in batch.streams.items()})
        images = images_of(batch, lessons, self.config.masked)
        device = next(iter(next(iter(batch.streams.values())).images.values())).device
        losses = Losses(
            {name: torch.zeros((), device=device) for name in batch.streams}, {n: {} for n in batch.streams}
        )
        for lesson, stages in zip(lessons, model.encode_stages(images), strict=True):
            part = batch.streams[lesson.stream]
            visible_B1HW = visible_to(part, lesson, self.teaching.bands(lesson.colours))
            rows_B = taught_rows(part)
            taught: Tensor | int = max(int(rows_B.sum()), 1)
            rows_B = rows_B.to(device)
            if visible_B1HW is not None:
                rows_B = rows_B * (visible_B1HW.float().mean((1, 2, 3)) >= LEAST_VISIBLE)
                taught = rows_B.sum().clamp(min=1)
            colours_B3HW = self.teaching.colours(lesson.colours, part.images[lesson.colours])
            known_BD = self.knowledge(colours_B3HW, visible_B1HW)
            told_BD = model.objectives[self.name](mean_of_cells(stages[self.config.stage], visible_B1HW))
            distance_B = 1 - F.cosine_similarity(told_BD.float(), known_BD.float(), dim=1)
            loss = (distance_B * rows_B).sum() / taught
            losses.parts[lesson.stream][f"{self.name}->{lesson.student}"] = loss
            losses.streams[lesson.stream] = losses.streams[lesson.stream] + loss / len(part.images)
        return losses
