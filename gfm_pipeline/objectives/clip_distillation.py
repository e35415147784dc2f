"""Distillation of CLIP's embedding of the image, the one that it compares with texts.

The student's features of the whole image, averaged and projected, are brought towards it: 1 - cosine.

Source of the teacher: Radford et al., "Learning transferable visual models from natural language supervision", 2021.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from gfm_pipeline.objectives.distillation import Distillation, DistillationConfig
from gfm_pipeline.objectives.objective import OBJECTIVES, ObjectiveConfig
from gfm_pipeline.objectives.teaching import TeacherConfig

if TYPE_CHECKING:
    from torch import Tensor


class ClipDistillationConfig(DistillationConfig):
    """Options of the objective `clip_distillation`."""

    teacher: TeacherConfig = TeacherConfig(name="vit_base_patch16_clip_224.openai")
    masked: bool = False
    """Whether the student sees the masked image, or the whole one."""
    stage: int = Field(default=-1, lt=0)
    """Stage of the student whose features are compared, counted from the last one (-1)."""


@OBJECTIVES.register("clip_distillation")
class ClipDistillation(Distillation):
    """Cosine distance between the student's pooled features and CLIP's embedding."""

    name = "clip_distillation"
    Config: ClassVar[type[ObjectiveConfig]] = ClipDistillationConfig
    config: ClipDistillationConfig

    def knowledge(self, colours_B3HW: Tensor, visible_B1HW: Tensor | None = None) -> Tensor:
        """Return CLIP's embedding [B,D], which is one of the whole image."""
        return self.teaching.teacher.embedding(colours_B3HW)
