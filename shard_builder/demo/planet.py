"""Make a place: terrain first, then layers of cover painted over it.

A later layer covers an earlier one. Each draws from its own random stream, so a change to one leaves the others as
they were. Every layer is a function (rng, place, character) that paints in place.
"""

from __future__ import annotations

import numpy as np

from shard_builder.demo.layers import paint_alpine, paint_fields, paint_forest, paint_meadow, paint_roads, paint_water
from shard_builder.demo.noise import Shape, cells, fractal
from shard_builder.demo.place import Place
from shard_builder.demo.scenery import Character, Scale, Season
from shard_builder.demo.town import paint_towns

LAYERS = (paint_meadow, paint_fields, paint_forest, paint_alpine, paint_towns, paint_water, paint_roads)


def make_place(rng: np.random.Generator, shape: Shape, scale: Scale, character: Character, season: Season) -> Place:
    """Return a place that depends on the state of `rng` and the other arguments alone."""
    ground, trees, regions, *streams = rng.spawn(3 + len(LAYERS))
    relief_m = character.relief_m * scale.gsd_m / 10
    terrain = fractal(ground, shape, scale.terrain_px, octaves=5, persistence=0.45) * np.float32(relief_m)
    place = Place(
        scale=scale,
        season=season,
        terrain=terrain + np.float32(450 + 2 * relief_m),
        crowns=cells(trees, shape, scale.crown_px),
        regions=cells(regions, shape, scale.region_px),
        cover=np.zeros(shape, np.uint8),
        material=np.zeros(shape, np.uint8),
        second=np.zeros(shape, np.uint8),
        mix=np.zeros(shape, np.float32),
        brightness=np.ones(shape, np.float32),
        buildings=np.zeros(shape, np.float32),
        canopy=np.zeros(shape, np.float32),
    )
    for layer, stream in zip(LAYERS, streams, strict=True):
        layer(stream, place, character)
    return place
