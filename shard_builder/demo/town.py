"""Towns: streets, blocks, lots, houses with roofs and gardens, taller towards the centre."""

from __future__ import annotations

import numpy as np

from shard_builder.demo.layers import grow_trees
from shard_builder.demo.materials import Cover, Material
from shard_builder.demo.noise import BoolArray, FloatArray, IntArray, axes, hash_uniform, rotated, value_noise
from shard_builder.demo.place import Place
from shard_builder.demo.scenery import Character

_PARK, _HALL = 0.10, 0.24
"""Of the blocks, a tenth are parks and the next seventh hold one large hall each; houses fill the others."""


def paint_towns(rng: np.random.Generator, place: Place, character: Character) -> None:
    """Build as many towns as the character asks for; each has its own street grid."""
    count = int(rng.poisson(character.towns)) if character.towns < 2 else max(1, round(character.towns))
    for stream in rng.spawn(min(count, 4)):
        _paint_town(stream, place)


def _paint_town(rng: np.random.Generator, place: Place) -> None:
    scale, shape = place.scale, place.shape
    y, x = axes(shape)
    centre = rng.uniform(0.05, 0.95, 2) * shape
    radius = scale.town_px * rng.uniform(0.6, 1.35)
    distance = np.hypot(y - np.float32(centre[0]), x - np.float32(centre[1])) / np.float32(radius)
    density = 1 - distance + 0.22 * value_noise(rng, shape, scale.town_px * 0.4)  # 1 in the centre, 0 at the edge
    town = (density > 0) & (place.steepness() < 0.5)
    if not town.any():
        return
    salt = int(rng.integers(1 << 31))
    angle = float(rng.uniform(0, np.pi))
    u, v = rotated(shape, angle)
    block_u, street_u, u = _divide(u, scale.block_px * 1.35, scale.street_px)
    block_v, street_v, v = _divide(v, scale.block_px, scale.street_px)
    street = street_u | street_v
    use = hash_uniform(salt, block_u, block_v)  # per block

    gardens = value_noise(rng, shape, scale.lot_px * 2)
    place.paint(town, Cover.BUILT_UP, Material.GRASS, Material.ASPHALT, np.clip(0.35 + 0.2 * gardens, 0, 1))
    leafy = hash_uniform(salt + 1, place.crowns.ids) < np.where(use < _PARK, 0.55, 0.16)
    trees = town & ~street & leafy & (place.crowns.distance < 0.55 * scale.crown_px)
    grow_trees(rng, place, trees, Cover.BUILT_UP, height_m=(5.0, 14.0))
    place.paint(town & street, Cover.BUILT_UP, Material.ASPHALT)

    lots = _Lots(block_u, block_v, u, v, scale.lot_px, angle)
    _build(place, ~street & (use >= _HALL), lots, lots.at_centre(density), salt + 10, storeys_m=3.2)
    lots = _Lots(block_u, block_v, u, v, scale.block_px * 0.8, angle)
    halls = ~street & (use >= _PARK) & (use < _HALL)
    _build(place, halls, lots, lots.at_centre(density), salt + 20, storeys_m=6.0)


def _divide(position: FloatArray, pitch_px: float, street_px: float) -> tuple[IntArray, BoolArray, FloatArray]:
    """Return block numbers, whether the pixel is street, and the distance into the block, all [H,W]."""
    block = np.floor(position / np.float32(pitch_px))
    inside = position - block * np.float32(pitch_px) - np.float32(street_px)
    return block.astype(np.int64), inside < 0, inside


class _Lots:
    """The division of blocks into square lots of `size_px`: identities and coordinates within a lot."""

    def __init__(
        self, block_u: IntArray, block_v: IntArray, u: FloatArray, v: FloatArray, size_px: float, angle: float
    ) -> None:
        self.size_px, self._angle = size_px, angle
        row, column = np.floor(v / np.float32(size_px)), np.floor(u / np.float32(size_px))
        self.ids = (block_u, block_v, column.astype(np.int64), row.astype(np.int64))
        self._ahead_u = (column + 0.5) * np.float32(size_px) - u  # way to the middle of the lot, px
        self._ahead_v = (row + 0.5) * np.float32(size_px) - v
        self.u = np.abs(self._ahead_u) / np.float32(size_px)  # 0 in the middle of the lot, 0.5 at its side
        self.v = np.abs(self._ahead_v) / np.float32(size_px)

    def at_centre(self, field: FloatArray) -> FloatArray:
        """Return `field` [H,W] as it is in the middle of each pixel's lot, so that a building has one value."""
        y, x = axes(field.shape)
        cosine, sine = np.float32(np.cos(self._angle)), np.float32(np.sin(self._angle))
        row = np.rint(y + self._ahead_u * sine + self._ahead_v * cosine).astype(np.int64)
        column = np.rint(x + self._ahead_u * cosine - self._ahead_v * sine).astype(np.int64)
        centre: FloatArray = field[np.clip(row, 0, field.shape[0] - 1), np.clip(column, 0, field.shape[1] - 1)]
        return centre


def _build(place: Place, where: BoolArray, lots: _Lots, density: FloatArray, salt: int, storeys_m: float) -> None:
    """Put a building on most lots in town: flat and taller near the centre, pitched roofs elsewhere."""
    half_u = 0.26 + 0.18 * hash_uniform(salt, *lots.ids)
    half_v = 0.24 + 0.18 * hash_uniform(salt + 1, *lots.ids)
    built = where & (density > 0.02) & (hash_uniform(salt + 2, *lots.ids) < 0.84)
    built &= (lots.u < half_u) & (lots.v < half_v) & (place.cover == Cover.BUILT_UP)
    die = hash_uniform(salt + 3, *lots.ids)
    central = density > 0.62
    material = np.select(
        [(die < 0.58) & ~central & (storeys_m < 5), die < 0.78],
        [np.uint8(Material.TILE_ROOF), np.uint8(Material.LIGHT_ROOF)],
        np.uint8(Material.DARK_ROOF),
    ).astype(np.uint8)
    tall = storeys_m * (1.2 + 1.3 * hash_uniform(salt + 4, *lots.ids))
    tall = tall * np.where(central, 1 + 3.5 * hash_uniform(salt + 5, *lots.ids), 1)
    pitch = np.where(material == Material.TILE_ROOF, 1 - lots.v / half_v, 0) * 0.22 * lots.size_px * place.scale.gsd_m
    place.paint(built, Cover.BUILT_UP, material)
    np.copyto(place.buildings, tall + np.minimum(pitch, 3.5), where=built, casting="same_kind")
    np.copyto(place.brightness, 0.78 + 0.44 * hash_uniform(salt + 6, *lots.ids), where=built)
