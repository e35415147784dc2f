"""Scenes of one sensor in several files: bands, dates, or both, each in pixels of its own.

Stated rules: the finest of the files, the first of several, gives the grid of the sensor. A file whose pixels are the
same up to whole steps is cut; any other is resampled by the sensor's rule. Only what all files cover is packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from shard_builder.planned import PlannedRaster
from shard_builder.rasters.georeference import same_crs
from shard_builder.rasters.raster import Decoded, OpenRaster
from shard_builder.rasters.resample import resample
from shard_builder.sources.shared.footprint import Scene, shifted

EQUAL = 1e-6
"""Share by which pixels may differ in size and count as equal: rounding of coordinates."""


def joined(scenes: Sequence[Scene]) -> Scene:
    """Return the scene that the files of one sensor make together.

    Raises ItemError for files without a grid that differ in size: nothing says how their pixels lie.
    """
    first = scenes[0]
    if first.grid is None:
        odd = next((s for s in scenes if (s.height, s.width) != (first.height, first.width)), None)
        if odd is not None:
            raise ItemError(
                f"{odd.source_file} is {odd.height} x {odd.width} px and {first.source_file} {first.height} x "
                f"{first.width}; without georeferences they cannot be brought to one grid"
            )
    finest = first
    for scene in scenes[1:]:
        if scene.grid and finest.grid and same_crs(scene.grid.crs, finest.grid.crs):
            finest = scene if _area(scene) < _area(finest) * (1 - EQUAL) else finest
    dates = tuple(dict.fromkeys(date for scene in scenes for date in scene.dates))
    refs = tuple(ref for scene in scenes for ref in scene.refs)
    return replace(finest, refs=refs, dates=dates, parts=tuple(scenes))


def cut(source: OpenRaster, planned: PlannedRaster, spec: SensorSpec) -> Decoded:
    """Return the window of one file: of the planned grid where there is one, resampled if its own pixels are others."""
    assert planned.window is not None
    if planned.grid is None:
        return source.read(planned.window)
    grid = planned.grid
    home = Scene(planned.files, grid.height, grid.width, grid.georeference)
    _, height, width = source.shape
    same = None
    if source.facts.georeference is not None and source.facts.georeference.transform is not None:
        same = shifted(planned.window, home, Scene(planned.files, height, width, source.facts.georeference))
    return source.read(same) if same is not None else resample(source, planned, spec)


def _area(scene: Scene) -> float:
    a, b, _, d, e, _ = scene.axes
    return abs(a * e - b * d)
