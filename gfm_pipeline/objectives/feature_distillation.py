"""Distillation of a teacher's features, as in GFM: what a classifier of photographs knows is not to be forgotten.

The student's features of the masked image, averaged over the image and projected, are brought towards the teacher's
of the whole image: 1 - cosine. Beside `cross_sensor_mim` in the same configuration this is GFM's objective, and the
masked image is encoded once for both.

Source: Mendieta et al., "Towards geospatial foundation models via continual pretraining", ICCV 2023, and its public
code. There student and teacher are Swin-B; both are read before their last stage (`stage: -2`), images are resized to
the teacher's 224 px, and the loss is the negative cosine, added to the reconstruction's. The public code pools behind
the merging of patches that follows the stage, here it is before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from gfm_pipeline.objectives.distillation import Distillation, DistillationConfig
from gfm_pipeline.objectives.objective import OBJECTIVES, ObjectiveConfig
from gfm_pipeline.objectives.teaching import TeacherConfig, mean_of_cells

if TYPE_CHECKING:
    from torch import Tensor


class FeatureDistillationConfig(DistillationConfig):
    """Options of the objective `feature_distillation`."""

    teacher: TeacherConfig = TeacherConfig(name="swin_base_patch4_window7_224.ms_in22k")
    masked: bool = True
    """Whether the student sees the masked image, as in GFM, or the whole one."""
    stage: int = Field(default=-2, lt=0)
    """Stage whose features are compared, counted from the last one (-1), in student and teacher; of a teacher without
    stages, the block."""


@OBJECTIVES.register("feature_distillation")
class FeatureDistillation(Distillation):
    """Cosine distance between pooled features of student and teacher."""

    name = "feature_distillation"
    Config: ClassVar[type[ObjectiveConfig]] = FeatureDistillationConfig
    config: FeatureDistillationConfig

    def knowledge(self, colours_B3HW: Tensor, visible_B1HW: Tensor | None = None) -> Tensor:
        """Return the teacher's features [B,D] of a stage, averaged over what is visible of the image."""
        return mean_of_cells(self.teaching.teacher.stage(colours_B3HW, self.config.stage), visible_B1HW)
