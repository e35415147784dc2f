"""What a tracker is, and the registry it is found in.

A tracker is one file in this package: a class with a `Config`, registered under the name that `log.trackers` uses.
Configurations are checked without loading what a tracker draws on, so it imports its library when it is opened.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from gfm_pipeline.config import StrictModel, parse_config
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.registry import Registry

Picture = npt.NDArray[np.uint8]
"""[H,W,3]."""


@dataclass(frozen=True)
class RunRecord:
    """What a tracker may know of the run that it shows."""

    run_dir: Path
    first_step: int
    """Step that the run goes on with: what a tracker has of it and later ones will come again."""
    config: dict[str, Any]
    """The resolved configuration."""


class Tracker(Protocol):
    """Shows scalars and pictures of a run; lives on the first rank only."""

    Config: ClassVar[type[StrictModel]]

    def __init__(self, config: Any, record: RunRecord) -> None: ...

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers by name, "streams/rgb/loss"."""
        ...

    def picture(self, name: str, picture: Picture, step: int) -> None:
        """Take a picture."""
        ...

    def close(self) -> None:
        """Hand over what is still held back."""
        ...


TRACKERS: Registry[type[Tracker]] = Registry("tracker", "gfm_pipeline.train.trackers")


def check_trackers(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the sections with every default filled in; raise ConfigError for an unknown name or key."""
    return {
        name: parse_config(options, TRACKERS.get(name).Config, f"log.trackers.{name}").model_dump(mode="json")
        for name, options in sections.items()
    }


def build_trackers(sections: dict[str, dict[str, Any]], record: RunRecord) -> list[Tracker]:
    """Return the configured trackers, opened; raise ConfigError when the library of one is missing."""
    kinds = {name: TRACKERS.get(name) for name in sections}
    return [
        kind(parse_config(sections[name], kind.Config, f"log.trackers.{name}"), record) for name, kind in kinds.items()
    ]


def import_extra(module: str, tracker: str) -> Any:
    """Return an optional library; raise ConfigError that says how to install it when it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"log.trackers.{tracker} needs the package {module}, which cannot be imported ({error}). "
            f"Run: pip install 'gfm-pipeline[{tracker}]', or take the tracker out of the configuration."
        ) from error
