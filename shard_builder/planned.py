"""What a plan says of the samples to be: plain data that goes through JSON, so that any machine may build it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from shard_builder.archives.member import MemberRef
from shard_builder.rasters.georeference import Georeference

Resampling = Literal["nearest", "bilinear", "cubic", "lanczos", "average", "mode", "min", "max", "med"]
"""By GDAL's names."""
Window = tuple[int, int, int, int]
"""(row, column, height, width) in pixels."""


@dataclass(frozen=True)
class Grid:
    """A raster's place on Earth and its size: what another raster is resampled to."""

    georeference: Georeference
    height: int
    width: int


@dataclass(frozen=True)
class PlannedRaster:
    """The files that become one sensor of a sample.

    One file for most archives; several where bands or dates lie in files of their own. A series lists its files date
    by date, all files of the first date first.
    """

    files: tuple[MemberRef, ...]
    window: Window | None = None
    """The part that the sample is: of the grid when there is one, else of the raster; None for all of it."""
    dates: tuple[str, ...] = ()
    """ISO 8601, one per time step for a series; one or none for a single image."""
    grid: Grid | None = None
    """Where the raster is resampled to; None: its own pixels, bit for bit."""
    resampling: Resampling = "bilinear"
    """How, where there is a grid."""
    carries_offset: tuple[bool, ...] = ()
    """Per time step (one for an image), whether the product says that its numbers hold the sensor's offset; empty
    where no product was asked."""

    @model_serializer(mode="wrap")
    def _as_ever(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what older plans did not have, so that shards of theirs are still known."""
        tree: dict[str, Any] = dump(self)
        if not self.carries_offset:
            del tree["carries_offset"]
        return tree

    @property
    def source_file(self) -> str:
        """How messages and records name where the pixels come from."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return self.files[0].source_file + more


OUTLINE = "@footprint"
"""The label of a sample that an archive draws where its rasters tell no location: corners (longitude, latitude).

It becomes the footprint of the record; no column of a table can have this name.
"""


@dataclass(frozen=True)
class PlannedSample:
    """One sample to be: its key, where each of its sensors comes from, and what the archive says of its content."""

    key: str
    rasters: dict[str, PlannedRaster]
    labels: dict[str, Any] = field(default_factory=dict)
