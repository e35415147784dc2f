"""Images of a place cut to tiles that cover the same ground: each in its own pixels, by their sizes alone.

Stated rules: tiles count the pixels of the sensor that has the most of them, the first of several. What another sensor
has of a tile is the same share of its image, in whole pixels. Places whose images are no larger than a tile stay whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from gfm_pipeline.errors import ItemError
from shard_builder.archives import item_error
from shard_builder.planned import PlannedRaster, Window
from shard_builder.rasters.images import tile_windows
from shard_builder.rasters.raster import Decoded
from shard_builder.sources.base import InputView
from shard_builder.sources.shared.group import Gathered, Part

TILE_SUFFIX = len("_r100000_c100000")


@dataclass(frozen=True)
class Whole:
    """A raster before it is cut."""

    planned: PlannedRaster
    height: int
    width: int
    labels: dict[str, Any]


_WHOLE = TypeAdapter(Whole)


class Tiles:
    """Rasters by place, on disk, until all of a place are known."""

    def __init__(self) -> None:
        self._gathered = Gathered()

    def add(self, key: str, sensor: str, whole: Whole) -> None:
        """File a raster; raise ItemError where that sensor of the place is filed already."""
        known = self._gathered.add(key, sensor, Part("", "", whole.planned.files, _WHOLE.dump_json(whole)), {})
        if known:
            raise ItemError(f"its key {key} is that of {known.source_file} already")

    def plan(self, view: InputView, labels: dict[str, dict[str, Any]]) -> list[str]:
        """Plan the tiles of all places; `labels` are more of them, by key.

        Return those keys that are of no place.
        """
        strange = dict.fromkeys(labels)
        for key, parts, _ in self._gathered.places({}):
            strange.pop(key, None)
            wholes = {sensor: _WHOLE.validate_json(part.about) for sensor, (part,) in parts.items()}
            try:
                self._plan_place(view, key, wholes, labels.get(key, {}))
            except Exception as error:
                first = next(iter(wholes.values())).planned.source_file
                view.reject(key, first, str(item_error(error, first)), len(wholes))
        return list(strange)

    def close(self) -> None:
        """Remove what is on disk."""
        self._gathered.close()

    def _plan_place(self, view: InputView, key: str, wholes: dict[str, Whole], labels: dict[str, Any]) -> None:
        largest = max(wholes.values(), key=lambda whole: whole.height * whole.width)
        windows: list[Window | None] = [None]
        if max(largest.height, largest.width) > view.config.tile_px:
            windows = [*tile_windows(largest.height, largest.width, view.config)]
        cut = [{sensor: _share(window, largest, whole) for sensor, whole in wholes.items()} for window in windows]
        for window, shares in zip(windows, cut, strict=True):
            name = key if window is None else f"{key}_r{window[0]}_c{window[1]}"
            for sensor, share in shares.items():
                whole = wholes[sensor]
                view.add(name, sensor, replace(whole.planned, window=share), **(whole.labels | labels))


def cut_tile(decoded: Decoded, window: Window) -> Decoded:
    """Return a copy of the part of a raster [C,H,W] or [T,C,H,W] inside a window."""
    row, column, height, width = window
    part = (..., slice(row, row + height), slice(column, column + width))
    raster = np.ascontiguousarray(decoded.raster[part])
    mask = None if decoded.mask is None else np.broadcast_to(decoded.mask, decoded.raster.shape)[part].copy()
    return Decoded(raster, decoded.facts.at(row, column), None, mask)


def _share(window: Window | None, largest: Whole, whole: Whole) -> Window | None:
    if window is None:
        return None
    down, right = Fraction(whole.height, largest.height), Fraction(whole.width, largest.width)
    exact = (window[0] * down, window[1] * right, window[2] * down, window[3] * right)
    if any(value.denominator > 1 for value in exact):
        raise ItemError(
            f"{whole.planned.source_file} is {whole.height} x {whole.width} px beside {largest.height} x "
            f"{largest.width} px of {largest.planned.source_file}: a tile of {window[2]} px at row {window[0]}, column "
            f"{window[1]} is no whole number of its pixels. Choose tile_px and stride_px that are, or edge=drop"
        )
    row, column, height, width = (int(value) for value in exact)
    return row, column, height, width
