"""What objectives with a teacher share: who teaches, which images it can look at, and in which colours.

Teachers know photographs: red, green and blue from 0 to 1. So a sensor is taught through three of its bands, taken by
name, and a range of its values, in its own units, from black to white. Our normalisation is undone first and the
teacher's own follows. Nothing of this is guessed for a sensor that the configuration does not name.

Rule for co-located sensors: an image with colours is taught by what the teacher sees in it. An image without (radar,
height) is taught nothing or, with `through_partners`, by the colours of its place: those of the first sensor that has
them, in the order of the stream's sensors. So any number of sensors may make a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from gfm_pipeline.config import StrictModel
from gfm_pipeline.errors import ConfigError, nearest
from gfm_pipeline.objectives.objective import ObjectiveConfig, Setting

if TYPE_CHECKING:
    from torch import Tensor

    from gfm_pipeline.data.batch import HeterogeneousBatch, StreamBatch
    from gfm_pipeline.models.msgfm import SensorImages


class TeacherConfig(StrictModel):
    """A frozen model of timm."""

    name: str
    """Its name in timm, with the tag of its pretraining."""
    weights: str | None = None
    """File of its weights, .safetensors or a torch file with nothing but tensors; loaded strictly. "random" draws
    weights, which teach nothing and are for tests."""
    download: bool = False
    """Let timm download the weights in place of `weights`."""
    image_px: int | None = Field(default=None, gt=0)
    """Side of the images it sees, to which ours are resized; None: that of its own training."""


class ColoursConfig(StrictModel):
    """How a sensor looks to a teacher of photographs."""

    bands: tuple[str, str, str]
    """The sensor's bands that stand for red, green and blue."""
    black: float
    """Value that is black, in the sensor's units; darker ones are black too."""
    white: float
    """Value that is white; brighter ones are white too."""

    @model_validator(mode="after")
    def _white_is_not_black(self) -> ColoursConfig:
        if not self.black < self.white:
            raise ValueError(f"black is {self.black} and white {self.white}, expected black < white")
        return self


class TeachingConfig(ObjectiveConfig):
    """Options of every objective that learns from a teacher."""

    teacher: TeacherConfig
    sensors: dict[str, ColoursConfig] = Field(
        default={"rgb": ColoursConfig(bands=("R", "G", "B"), black=0, white=255)}, min_length=1
    )
    """The sensors that the teacher looks at."""
    through_partners: bool = False
    """Whether an image without colours is taught by a co-located image that has them."""

    @model_validator(mode="after")
    def _weights_come_from_somewhere(self) -> TeachingConfig:
        if (self.teacher.weights is None) == (not self.teacher.download):
            raise ValueError(
                "teacher needs weights: set teacher.weights to a file (or to random, for tests), or teacher.download "
                "to true to fetch them, and not both"
            )
        return self


@dataclass(frozen=True)
class Lesson:
    """An image of a batch and the co-located image, maybe itself, that the teacher looks at."""

    stream: str
    student: str
    """Sensor of the image that learns."""
    colours: str
    """Sensor of the image that the teacher sees."""


class Teaching:
    """The teacher of an objective and its view of the batches; made once, in `build`."""

    def __init__(self, config: TeachingConfig, setting: Setting, objective: str) -> None:
        """Raise ConfigError for a sensor or band that is not there, or a teacher that cannot be loaded."""
        import torch

        from gfm_pipeline.models.teacher import Teacher

        where = f"objectives.{objective}"
        self._config = config
        used = sorted({sensor for sensors in setting.streams.values() for sensor in sensors})
        self._views: dict[str, tuple[list[int], Tensor, Tensor]] = {}
        for name, colours in config.sensors.items():
            if name not in used:
                raise ConfigError(
                    f"{where}.sensors.{name}: no stream has this sensor. {nearest(name, used)} Name one with three "
                    f"bands for red, green and blue, or take the entry out: {where}.sensors.{name}=null."
                )
            spec, statistics = setting.sensors[name], setting.normalisation[name]
            indices = [spec.band_index(band) for band in colours.bands]
            mean, std = (
                torch.tensor([values[index] for index in indices], device=setting.device)[:, None, None]
                for values in (statistics.mean, statistics.std)
            )
            span = colours.white - colours.black
            self._views[name] = (indices, std / span, (mean - colours.black) / span)
        self.teacher = Teacher(config.teacher.name, config.teacher.weights, config.teacher.image_px, setting.device)

    def lessons(self, streams: Mapping[str, Sequence[str]]) -> list[Lesson]:
        """Return who is taught by what, for streams with these sensors, in their order."""
        found = []
        for stream, sensors in streams.items():
            coloured = [sensor for sensor in sensors if sensor in self._views]
            for sensor in sensors:
                if sensor in coloured:
                    found.append(Lesson(stream, sensor, sensor))
                elif coloured and self._config.through_partners:
                    found.append(Lesson(stream, sensor, coloured[0]))
        return found

    def bands(self, sensor: str) -> list[int]:
        """Return the positions of the bands of `sensor` that are red, green and blue."""
        return self._views[sensor][0]

    def colours(self, sensor: str, image_BCHW: Tensor) -> Tensor:
        """Return the normalised image of a sensor as red, green and blue [B,3,H,W] from 0 to 1."""
        indices, scale, offset = self._views[sensor]
        return (image_BCHW[:, indices].float() * scale + offset).clamp(0, 1)


def images_of(batch: HeterogeneousBatch, lessons: Sequence[Lesson], masked: bool) -> list[SensorImages]:
    """Return the images of all students, in the order of the lessons, ready to be encoded."""
    from gfm_pipeline.models.msgfm import SensorImages

    return [
        SensorImages(
            lesson.student,
            batch.streams[lesson.stream].images[lesson.student],
            batch.streams[lesson.stream].masks[lesson.student] if masked else None,
        )
        for lesson in lessons
    ]


def visible_to(part: StreamBatch, lesson: Lesson, bands: Sequence[int]) -> Tensor | None:
    """Return where student and teacher both see something measured, bool [B,1,H,W]; None for everywhere.

    The student's image counts where any of its bands was measured, the teacher's where all of its colours were.
    """
    learnt, shown = part.valid.get(lesson.student), part.valid.get(lesson.colours)
    found = None if learnt is None else learnt.any(1, keepdim=True)
    if shown is not None:
        coloured = shown[:, list(bands)].all(1, keepdim=True)
        found = coloured if found is None else found & coloured
    return found


def cells_with(visible_B1HW: Tensor, grid: Sequence[int]) -> Tensor:
    """Return which cells of a grid (rows, columns) hold a visible pixel, as 0 and 1 [B,1,rows,columns]."""
    from torch.nn import functional as F

    return (F.adaptive_avg_pool2d(visible_B1HW.float(), (grid[0], grid[1])) > 0).float()


def mean_of_cells(features_BijD: Tensor, visible_B1HW: Tensor | None) -> Tensor:
    """Return the mean [B,D] over the cells that hold a visible pixel, over all when None; 0 for an image of none."""
    if visible_B1HW is None:
        return features_BijD.mean((1, 2))
    weight_Bij1 = cells_with(visible_B1HW, features_BijD.shape[1:3])[:, 0, :, :, None]
    total_BD = (features_BijD * weight_Bij1).sum((1, 2))
    return total_BD / weight_Bij1.sum((1, 2)).clamp(min=1)


def taught_rows(part: StreamBatch) -> Tensor:
    """Return 1 for the rows [B] of a sub-batch that hold a sample, 0 for damaged ones that were skipped."""
    import torch

    return torch.tensor([float(row not in part.skipped) for row in range(len(part.keys))])
