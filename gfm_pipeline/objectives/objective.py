"""What a training objective is, and the registry it is found in.

An objective is one file in this package: a class with a `Config`, registered under the name that a training
configuration uses. Configurations must be checkable without loading torch, so objective modules import it, and the
models, inside their methods.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from gfm_pipeline.config import StrictModel, parse_config
from gfm_pipeline.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gfm_pipeline.data.batch import HeterogeneousBatch
    from gfm_pipeline.models.msgfm import MsGFM


@dataclass
class Losses:
    """What an objective says of one heterogeneous batch; all tensors are scalars."""

    streams: dict[str, Tensor]
    """Per stream, the mean over its images. The trainer weighs and adds them."""
    parts: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Per stream, named components for the log, e.g. "s1->s2"."""


class Objective(Protocol):
    """Maps (model, batch, rng) to named losses."""

    Config: ClassVar[type[StrictModel]]

    def __init__(self, config: Any) -> None: ...

    def __call__(self, model: MsGFM, batch: HeterogeneousBatch, rng: torch.Generator) -> Losses:
        """Return the losses of one lane's batch; `rng` is seeded by (seed, step, lane)."""
        ...


OBJECTIVES: Registry[type[Objective]] = Registry("objective", "gfm_pipeline.objectives")


def check_objectives(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the sections with every default filled in; raise ConfigError for an unknown name or key."""
    return {
        name: parse_config(options, OBJECTIVES.get(name).Config, f"objectives.{name}").model_dump(mode="json")
        for name, options in sections.items()
    }


def build_objectives(sections: dict[str, dict[str, Any]]) -> dict[str, Objective]:
    """Return the configured objectives by name."""
    built: dict[str, Objective] = {}
    for name, options in sections.items():
        objective = OBJECTIVES.get(name)
        built[name] = objective(parse_config(options, objective.Config, f"objectives.{name}"))
    return built
