"""What a training objective is, and the registry it is found in.

An objective is one file in this package: a class with a `Config`, registered under the name that a training
configuration uses. Configurations must be checkable without loading torch, so objective modules import it, and the
models, inside their methods.

What an objective trains beside the model (a projection head, say) it returns from `build`; it then belongs to the
model, as `objectives.<name>...`: optimiser, checkpoints and ZeRO find it there. Its buffers (the statistics of a
norm) are saved and restored as well; after each update every rank has those of the first. What must be neither trained
nor saved (a teacher) an objective keeps to itself, as a plain attribute, where none of them looks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import Field

from gfm_pipeline.config import StrictModel, parse_config
from gfm_pipeline.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from gfm_pipeline.data.batch import HeterogeneousBatch
    from gfm_pipeline.data.normalize import Normalisation
    from gfm_pipeline.models.config import EncoderConfig
    from gfm_pipeline.models.msgfm import MsGFM, SensorImages
    from gfm_pipeline.sensors import SensorSpec


class ObjectiveConfig(StrictModel):
    """What every objective can be told; the options of each one extend it."""

    weight: float = Field(default=1.0, gt=0)
    """Factor of the objective's losses in the sum over all objectives."""

    def check_image(self, image_px: int) -> None:
        """Raise ValueError, naming the option, when the objective cannot work on images of `image_px`."""


@dataclass
class Losses:
    """What an objective says of one heterogeneous batch; all tensors are scalars."""

    streams: dict[str, Tensor]
    """Per stream, the mean over its images; of an image that was measured in part, over that part. The trainer weighs
    and adds them."""
    parts: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Per stream, named components for the log, e.g. "s1->s2"; no two objectives may use one name."""


@dataclass(frozen=True)
class Setting:
    """What an objective may know of the run when it builds its parts."""

    encoder: EncoderConfig
    sensors: Mapping[str, SensorSpec]
    normalisation: Mapping[str, Normalisation]
    streams: Mapping[str, Sequence[str]]
    """The sensors of each stream, in the order of its batches."""
    image_px: int
    device: torch.device


class Student(Protocol):
    """The model as an objective sees it: MsGFM itself, or the view of it that shares passes between objectives."""

    @property
    def objectives(self) -> nn.ModuleDict:
        """What objectives train beside the model, by objective."""

    def encode(self, inputs: Sequence[SensorImages]) -> list[Tensor]:
        """Return the features [B,i,j,D] of each input."""

    def encode_stages(self, inputs: Sequence[SensorImages]) -> list[list[Tensor]]:
        """Return for each input the features of every stage; `encode` gives the last."""

    def decode(self, sensor: str, features_BijD: Tensor) -> Tensor:
        """Return the normalised image [B,C,H,W] of `sensor` that the features tell of."""


class Objective(ABC):
    """Maps (model, batch, rng) to named losses."""

    Config: ClassVar[type[ObjectiveConfig]]
    config: Any

    def __init__(self, config: Any) -> None:
        self.config = config

    def build(self, setting: Setting) -> nn.Module | None:
        """Make what the objective needs, once, before training; return what is to be trained with the model.

        Every rank calls it with torch's generator in the same state. Raises ConfigError for what cannot work.
        """
        return None

    @abstractmethod
    def __call__(self, model: Student, batch: HeterogeneousBatch, rng: torch.Generator) -> Losses:
        """Return the losses of one lane's batch; `rng` is seeded by (seed, step, lane)."""


OBJECTIVES: Registry[type[Objective]] = Registry("objective", "gfm_pipeline.objectives")


def check_objectives(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the sections with every default filled in; raise ConfigError for an unknown name or key."""
    return {
        name: parse_config(options, OBJECTIVES.get(name).Config, f"objectives.{name}").model_dump(mode="json")
        for name, options in sections.items()
    }


def check_images(sections: dict[str, dict[str, Any]], image_px: int) -> None:
    """Raise ValueError for an objective that cannot work on images of `image_px`."""
    for name, options in sections.items():
        parse_config(options, OBJECTIVES.get(name).Config, f"objectives.{name}").check_image(image_px)


def build_objectives(
    sections: dict[str, dict[str, Any]], model: MsGFM, setting: Setting, seed: int
) -> dict[str, Objective]:
    """Return the configured objectives by name; what they train becomes a part of `model`."""
    from gfm_pipeline.models.msgfm import check_module_name
    from gfm_pipeline.models.seeding import seeded

    built: dict[str, Objective] = {}
    for name, options in sections.items():
        objective = OBJECTIVES.get(name)
        built[name] = objective(parse_config(options, objective.Config, f"objectives.{name}"))
        with seeded(seed, "objective", name):
            trained = built[name].build(setting)
        if trained is not None:
            check_module_name(name, "objective")
            model.objectives[name] = trained
    return built


def masked_images(batch: HeterogeneousBatch) -> dict[tuple[str, str], SensorImages]:
    """Return every image of the batch under its mask, by (stream, sensor), ready to be encoded."""
    from gfm_pipeline.models.msgfm import SensorImages

    return {
        (stream, sensor): SensorImages(sensor, image, part.masks[sensor])
        for stream, part in batch.streams.items()
        for sensor, image in part.images.items()
    }
