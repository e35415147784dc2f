"""What is to be loaded, and how a contender is described."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gfm_pipeline.config import StrictModel
from gfm_pipeline.registry import Registry


class Shape(StrictModel):
    """How the rasters of a sensor are stored, equal for all samples of a comparison."""

    dtype: str
    shape: tuple[int, int, int]
    """[C,H,W]"""
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Work(StrictModel):
    """The same for every contender."""

    url: str
    """Of the collection."""
    encoding: str
    """Extension of its members, by which results are told apart."""
    copies: str
    """Folder with the samples in other forms."""
    sensors: dict[str, Shape]
    """Sensors that are wanted."""
    task: str
    crop_px: int
    batch: int
    workers: int
    samples: int
    """Different samples."""
    passes: int
    seed: int

    @property
    def batches(self) -> int:
        """Whole batches in all passes."""
        return self.samples * self.passes // self.batch


class Batch(NamedTuple):
    """What a contender delivered."""

    samples: int
    num_bytes: int
    """Of its image tensors."""


@dataclass(frozen=True)
class Contender:
    """A way to load samples."""

    label: str
    load: Callable[[Work, dict[str, float]], Iterator[Batch]]
    """Yields `work.batches` batches; may fill in seconds by stage, which are read after the last one."""
    needs: tuple[str, ...] = ()
    """Modules that are imported before the clock starts."""
    copy: str | None = None
    """Name of the copy that it reads; None: the collection itself."""
    write_copy: Callable[[Work, Path], None] | None = None
    """Makes the copy."""
    remote: bool = False
    """Whether it reads collections in object stores."""


CONTENDERS: Registry[Contender] = Registry("contender", "gfm_pipeline.data.bench.contenders")
