"""The evaluate section of a training configuration. Nothing here loads torch."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from gfm_pipeline.config import StrictModel
from gfm_pipeline.data.config import FilterConfig


class SamplesConfig(StrictModel):
    """Samples that the model has never trained on: collections of their own, or what a filter keeps apart."""

    collections: tuple[str, ...] = Field(min_length=1)
    """Folders of collections, relative to `data.root` unless absolute. A sample that a training stream uses as well,
    of this collection or of a copy of its shards, is an error."""
    sensors: tuple[str, ...] = Field(min_length=1)
    """Sensors to evaluate, out of those the model trains on. Samples without one of them are left out."""
    filter: FilterConfig | None = None
    """Use only the samples that pass, e.g. {"labels": {"split": ["val"]}}."""
    max_samples: int | None = Field(default=None, gt=0)
    """Use about so many of them, always the same ones; None: all."""


class HeldOutConfig(SamplesConfig):
    """Samples to reconstruct, every sensor from every sensor."""

    panels: int = Field(default=4, ge=0, le=32)
    """Samples drawn for TensorBoard in each direction; 0: none."""


class KnnConfig(StrictModel):
    """The classifier by nearest neighbours."""

    k: int = Field(default=20, gt=0)
    temperature: float = Field(default=0.07, gt=0)
    """A neighbour's vote weighs exp(cosine similarity / temperature)."""


class ProbeConfig(SamplesConfig):
    """A labelled collection on which frozen features are judged, by nearest neighbours and by a linear classifier."""

    label: str
    """Name of a label of the samples (`shard-builder stats --catalog` lists them), or SENSOR.BAND of a label raster,
    e.g. "lc.IGBP"."""
    task: Literal["single", "multi"] = "single"
    """single: one class for each sample, scored by accuracy; of a raster, the class that most pixels have. multi: any
    number of classes, scored by mean average precision; of a raster, those with at least `min_share` of the pixels."""
    min_share: float = Field(default=0.1, gt=0, le=1)
    test_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the samples to predict, chosen by a hash of their keys; the classifiers learn from the others. Places
    that touch can fall on both sides: where that matters, set `test_filter`."""
    test_filter: FilterConfig | None = None
    """The samples to predict; those that pass `filter` are learnt from, and none may pass both."""
    knn: KnnConfig = KnnConfig()
    l2: float = Field(default=1.0, ge=0)
    """Penalty of the linear classifier, l2 / 2 times the squared weights, against the sum of the samples' losses."""


class EvaluateConfig(StrictModel):
    """What is measured during training on samples held out from it. Training is the same with and without."""

    every_steps: int = Field(default=1000, gt=0)
    """Optimizer steps between evaluations; there is another at the end of the run."""
    at_start: bool = False
    """Evaluate the untrained model too."""
    batch_samples: int = Field(default=16, gt=0)
    """Samples of a lane that go through the model at once."""
    reconstruct: dict[str, HeldOutConfig] = {}
    """By name, samples to reconstruct."""
    probes: dict[str, ProbeConfig] = {}
    """By name, labelled samples to classify."""

    @field_validator("reconstruct", "probes")
    @classmethod
    def _names_are_plain(cls, sections: dict[str, SamplesConfig]) -> dict[str, SamplesConfig]:
        for name in sections:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"{name!r} is no name of letters, digits, - and _")
        return sections

    @model_validator(mode="after")
    def _something_is_measured(self) -> Self:
        if not (self.reconstruct or self.probes):
            raise ValueError("nothing to evaluate: name samples under reconstruct or probes, or leave evaluate out")
        return self
