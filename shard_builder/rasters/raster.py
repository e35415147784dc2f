"""A raster on its way from an archive to a shard: opened, cut to a window, with what its file says about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.shards.codec import Raster
from shard_builder.planned import Window
from shard_builder.rasters.georeference import Georeference

Nodata = tuple[float | None, ...]
"""One value for each band, None for a band without; a single one stands for all bands; empty: nothing is declared."""


class Scaling(NamedTuple):
    """How a file says that its numbers become values: each band times its scale, plus its offset."""

    scales: tuple[float, ...]
    """One for each band, or one for all."""
    offsets: tuple[float, ...]
    of_floats: bool = False
    """Whether floating point is scaled too (CF), and not integers alone (GDAL)."""

    def __str__(self) -> str:
        """Return it as reports name it."""
        pairs = dict.fromkeys(zip(self.scales, self.offsets, strict=True))
        return "; ".join(f"scale {scale:g}, offset {offset:g}" for scale, offset in pairs)


@dataclass(frozen=True)
class Facts:
    """What a file says of its raster beside the pixels."""

    georeference: Georeference | None = None
    nodata: Nodata = ()
    """The values for "nothing was measured" that the file declares."""
    rules: tuple[str, ...] = ()
    """Stated rules that changed the item, e.g. "alpha channel dropped"."""
    bands: tuple[str, ...] = ()
    """What the file calls each band, "" for one that it does not name; empty: it names none."""
    masked: Nodata = ()
    """Values that are declared too, for parts of the raster: the mask accounts for their pixels."""
    alpha: int | None = None
    """The band that is an alpha channel: 0 where nothing was measured."""
    pages: int = 1
    """Images of one size in the file, whose bands follow each other."""
    photometric: str | None = None
    """The name of what the numbers are where they are no intensities: those of a palette, of inverted grey."""
    scaling: Scaling | None = None
    """Set where the numbers in the file are scaled and not yet values."""

    def at(self, row: int, column: int) -> Facts:
        """Return the facts of the part that starts at (row, column)."""
        return replace(self, georeference=self.georeference.window(row, column) if self.georeference else None)


@dataclass(frozen=True)
class Decoded:
    """One raster as the archive holds it."""

    raster: Raster
    """[C,H,W], or [T,C,H,W] for a series."""
    facts: Facts = Facts()
    original: tuple[str, bytes] | None = None
    """(extension, bytes) when the archive's own encoding can be stored as it is."""
    mask: NDArray[np.bool_] | None = None
    """True where something was measured, in a shape that broadcasts to the raster's: [H,W] for a mask of all bands,
    [C,H,W] for masks of their own. None: the file carries no mask."""


@dataclass(frozen=True)
class Original:
    """An image that is stored in the archive's own encoding without being decoded."""

    extension: str
    data: bytes
    shape: tuple[int, int, int]
    """[C,H,W]."""


class OpenRaster(Protocol):
    """A raster of which parts can be read; it may be larger than memory."""

    shape: tuple[int, int, int]
    """[C,H,W]."""
    dtype: np.dtype[np.generic]
    facts: Facts

    def read(self, window: Window) -> Decoded:
        """Return the part of the raster inside `window`."""
        ...


def nodata_of_bands(nodata: Nodata, bands: int) -> list[float | None]:
    """Return the declared value of each of so many bands."""
    return list(nodata) if len(nodata) == bands else [nodata[0] if nodata else None] * bands


class WholeRaster:
    """An opened raster that is in memory."""

    def __init__(self, decoded: Decoded) -> None:
        self.decoded = decoded
        channels, height, width = decoded.raster.shape
        self.shape = (channels, height, width)
        self.dtype = decoded.raster.dtype
        self.facts = decoded.facts

    def read(self, window: Window) -> Decoded:
        """Return a copy of the part inside `window`."""
        row, column, height, width = window
        tile = np.ascontiguousarray(self.decoded.raster[:, row : row + height, column : column + width])
        mask = self.decoded.mask
        part = None if mask is None else mask[..., row : row + height, column : column + width]
        return Decoded(tile, self.facts.at(row, column), None, part)
