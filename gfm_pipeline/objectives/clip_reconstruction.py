"""Reconstruction of CLIP's features where the image is hidden, as in EVA: targets with meaning in place of pixels.

A linear head tells, from the features of the masked image, what CLIP makes of each hidden place when it sees the whole
image; the loss is 1 - cosine over the hidden places. CLIP's patches and the encoder's features lie on different grids,
so each feature's target is the mean over the patches that it covers, and a feature counts by the share of it that is
hidden. Places without a measured pixel are nobody's target, and patches without one are left out of a target's mean.

Source: Fang et al., "EVA: exploring the limits of masked visual representation learning at scale", CVPR 2023, and its
public code (negative cosine; targets are CLIP's last features, projected as for the comparison with texts).

Legend: B images, i x j features, D channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gfm_pipeline.objectives.objective import OBJECTIVES, Losses, Objective, ObjectiveConfig, Setting, Student
from gfm_pipeline.objectives.teaching import (
    TeacherConfig,
    Teaching,
    TeachingConfig,
    cells_with,
    images_of,
    taught_rows,
    visible_to,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from gfm_pipeline.data.batch import HeterogeneousBatch


class ClipReconstructionConfig(TeachingConfig):
    """Options of the objective `clip_reconstruction`."""

    teacher: TeacherConfig = TeacherConfig(name="vit_large_patch14_clip_224.openai")


@OBJECTIVES.register("clip_reconstruction")
class ClipReconstruction(Objective):
    """Cosine distance between predicted and true CLIP features of hidden places."""

    name = "clip_reconstruction"
    Config: ClassVar[type[ObjectiveConfig]] = ClipReconstructionConfig
    config: ClipReconstructionConfig
    teaching: Teaching

    def build(self, setting: Setting) -> nn.Module:
        """Load the teacher and return the head that predicts its features."""
        import torch

        self.teaching = Teaching(self.config, setting, self.name)
        blank = torch.zeros(1, 3, setting.image_px, setting.image_px, device=setting.device)
        width = self.teaching.teacher.patches(blank).shape[-1]
        return torch.nn.Linear(setting.encoder.num_features, width)

    def __call__(self, model: Student, batch: HeterogeneousBatch, rng: torch.Generator) -> Losses:
        """Return per stream the mean over its images, of which those that are not taught add nothing."""
        import torch

        lessons = self.teaching.lessons({name: list(part.images) for name, part in batch.streams.items()})
        device = next(iter(next(iter(batch.streams.values())).images.values())).device
        losses = Losses(
            {name: torch.zeros((), device=device) for name in batch.streams}, {n: {} for n in batch.streams}
        )
        for lesson, features_BijD in zip(lessons, model.encode(images_of(batch, lessons, masked=True)), strict=True):
            part = batch.streams[lesson.stream]
            colours_B3HW = self.teaching.colours(lesson.colours, part.images[lesson.colours])
            loss = hidden_distance(
                model.objectives[self.name](features_BijD),
                self.teaching.teacher.patches(colours_B3HW),
                part.masks[lesson.student] & taught_rows(part).bool().to(device)[:, None, None],
                visible_to(part, lesson, self.teaching.bands(lesson.colours)),
            )
            losses.parts[lesson.stream][f"{self.name}->{lesson.student}"] = loss
            losses.streams[lesson.stream] = losses.streams[lesson.stream] + loss / len(part.images)
        return losses


def hidden_distance(
    told_BijD: Tensor, patches_BklD: Tensor, mask_Bmn: Tensor, visible_B1HW: Tensor | None = None
) -> Tensor:
    """Return the mean of 1 - cosine over hidden features, for a teacher's patches and cells on grids of their own.

    With `visible`, over those with a visible pixel, against patches with one.
    """
    from torch.nn import functional as F

    grid = (told_BijD.shape[1], told_BijD.shape[2])
    patches_BDkl = patches_BklD.float().permute(0, 3, 1, 2)
    hidden_Bij = F.adaptive_avg_pool2d(mask_Bmn[:, None].float(), grid)[:, 0]
    if visible_B1HW is None:
        known_BDij = F.adaptive_avg_pool2d(patches_BDkl, grid)
    else:
        # The cosine needs no division by the number of patches that took part.
        known_BDij = F.adaptive_avg_pool2d(patches_BDkl * cells_with(visible_B1HW, patches_BDkl.shape[2:]), grid)
        hidden_Bij = hidden_Bij * cells_with(visible_B1HW, grid)[:, 0]
    distance_Bij = 1 - F.cosine_similarity(told_BijD.float().permute(0, 3, 1, 2), known_BDij, dim=1)
    return (distance_Bij * hidden_Bij).sum() / (hidden_Bij.sum() + 1e-5)
