"""Bringing the student's view of an image towards a teacher's: what the distillations have in common.

Legend: B images, i x j features, D channels.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.objectives.objective import Losses, Objective, Setting, Student
from gfm_pipeline.objectives.teaching import Teaching, TeachingConfig, images_of, taught_rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from gfm_pipeline.data.batch import HeterogeneousBatch


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
    def knowledge(self, colours_B3HW: Tensor) -> Tensor:
        """Return what the teacher makes of whole images [B,D]; colours go from 0 to 1."""

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
        """Return per stream the mean over its images, of which those that are not taught add nothing."""
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
            rows = taught_rows(part)
            known_BD = self.knowledge(self.teaching.colours(lesson.colours, part.images[lesson.colours]))
            told_BD = model.objectives[self.name](stages[self.config.stage].mean((1, 2)))
            distance_B = 1 - F.cosine_similarity(told_BD.float(), known_BD.float(), dim=1)
            loss = (distance_B * rows.to(device)).sum() / max(int(rows.sum()), 1)
            losses.parts[lesson.stream][f"{self.name}->{lesson.student}"] = loss
            losses.streams[lesson.stream] = losses.streams[lesson.stream] + loss / len(part.images)
        return losses
