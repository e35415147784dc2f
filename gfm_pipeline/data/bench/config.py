"""What `gfm data bench` measures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gfm_pipeline.config import StrictModel


class DataBenchConfig(StrictModel):
    """Sizes of the comparison; every contender gets the same."""

    task: Literal["crop", "train"] = "crop"
    """crop: a random crop of each sensor, as stored. train: random resized crop, flip and normalisation to float32."""
    crop_px: int = Field(default=192, gt=0)
    """Side of the crops."""
    batch: int = Field(default=32, gt=0)
    """Samples of a batch."""
    workers: int = Field(default=2, gt=0)
    """Threads of this loader, processes of the others."""
    passes: int = Field(default=4, gt=0)
    """How often a run goes through the samples."""
    repeats: int = Field(default=3, gt=0)
    """Runs of each contender; medians are printed."""
    contenders: tuple[str, ...] | None = None
    """Names of those to run; None: all that are installed."""
    sensors: tuple[str, ...] | None = None
    """Of the collections; None: all images."""
    alone: str | None = None
    """A sensor that is also measured by itself; None: the first by name, of collections with several."""
    encodings: tuple[Literal["blosc2", "blosc2-lz4", "npy", "tif", "jxl"], ...] = ("blosc2", "npy")
    """Of the made input."""
    places: Annotated[int, Field(ge=16, le=100_000)] = 96
    """Places of the made input, of which each is a pair of sensors."""
    tile_px: int = Field(default=256, ge=32, le=1024)
    """Side of the images of the made input."""
    most_samples: int = Field(default=512, gt=0)
    """Samples that are copied for contenders that read other forms; a pass takes no more."""
    seed: int = Field(default=0, ge=0)
    """Of crops and of the order of runs."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Of one run."""
