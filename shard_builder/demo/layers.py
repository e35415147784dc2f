"""The layers of open country: meadows, fields, forest, mountains, water and roads."""

from __future__ import annotations

import numpy as np

from shard_builder.demo.materials import Cover, Material
from shard_builder.demo.noise import BoolArray, FloatArray, fractal, hash_uniform, rotated, slope, value_noise
from shard_builder.demo.place import Place
from shard_builder.demo.scenery import Character, Season

_DORMANT_GRASS = {Season.SPRING: 0.05, Season.SUMMER: 0.30, Season.FALL: 0.35, Season.WINTER: 0.60}
_AUTUMN_LEAF = {Season.SPRING: 0.0, Season.SUMMER: 0.0, Season.FALL: 0.75, Season.WINTER: 0.55}
_CROPS = {
    Season.SPRING: (0.60, 0.00, 0.32),
    Season.SUMMER: (0.42, 0.36, 0.14),
    Season.FALL: (0.25, 0.16, 0.50),
    Season.WINTER: (0.28, 0.00, 0.58),
}
"""Shares of fields with a green crop, with a ripe crop and with bare soil; the rest is hay meadow."""


def paint_meadow(rng: np.random.Generator, place: Place, character: Character) -> None:
    """Cover everything with grass, drier in places, and with open ground where the land is arid."""
    moisture = fractal(rng, place.shape, place.scale.forest_px * 1.5, octaves=4, persistence=0.6)
    dormant = _DORMANT_GRASS[place.season] + 0.6 * character.dry
    mix = np.clip(dormant + 0.22 * moisture, 0, 1)
    everywhere = np.ones(place.shape, np.bool_)
    place.paint(everywhere, Cover.GRASSLAND, Material.GRASS, Material.DRY_GRASS, mix)
    barren = moisture > np.quantile(moisture, 1 - 0.75 * max(character.dry - 0.25, 0))
    bareness = fractal(rng, place.shape, place.scale.forest_px / 2, octaves=3)
    place.paint(barren, Cover.BARE, Material.SAND, Material.SOIL, np.clip(0.45 + 0.3 * bareness, 0, 1))


def paint_fields(rng: np.random.Generator, place: Place, character: Character) -> None:
    """Divide the gentle regions into rectangular fields, each with one crop and a green margin."""
    salt = int(rng.integers(1 << 31))
    regions, scale = place.regions, place.scale
    farmed = (hash_uniform(salt, regions.ids) < character.farmland) & (place.steepness() < 0.28)
    angle = hash_uniform(salt + 1, regions.ids) * np.float32(np.pi)
    u, v = rotated(place.shape, angle)
    length = scale.field_px * (1.2 + 0.9 * hash_uniform(salt + 2, regions.ids))
    width = scale.field_px * (0.7 + 0.4 * hash_uniform(salt + 3, regions.ids))
    strip = np.floor(v / width)
    shifted = u + length * hash_uniform(salt + 4, regions.ids, strip.astype(np.int64))
    step = np.floor(shifted / length)
    field = (regions.ids, strip.astype(np.int64), step.astype(np.int64))
    edge = np.minimum(v - strip * width, shifted - step * length)  # distance to two of the four sides, px

    die = hash_uniform(salt + 5, *field)
    green, ripe, bare = np.cumsum(_CROPS[place.season])
    material = np.select(
        [die < green, die < ripe, die < bare],
        [np.uint8(Material.GREEN_CROP), np.uint8(Material.RIPE_CROP), np.uint8(Material.SOIL)],
        np.uint8(Material.GRASS),
    ).astype(np.uint8)
    second = np.where(material == Material.SOIL, np.uint8(Material.DRY_GRASS), np.uint8(Material.SOIL))
    patchy = value_noise(rng, place.shape, scale.field_px / 2)
    mix = np.clip(0.02 + 0.38 * hash_uniform(salt + 6, *field) + 0.06 * patchy, 0, 0.6)
    place.paint(farmed, Cover.CROPLAND, material, second, mix)
    tone = 0.84 + 0.32 * hash_uniform(salt + 7, *field)
    if scale.row_px:
        tone = tone * (1 + 0.07 * np.sin(v * np.float32(2 * np.pi / scale.row_px)))
    np.copyto(place.brightness, tone, where=farmed)
    np.copyto(place.canopy, 0.9 * (material != Material.SOIL), where=farmed, casting="same_kind")
    margin = farmed & (edge < max(1.0, scale.road_px / 3))
    place.paint(margin, Cover.GRASSLAND, Material.GRASS, Material.DRY_GRASS, 0.1)


def paint_forest(rng: np.random.Generator, place: Place, character: Character) -> None:
    """Grow forest in patches with ragged edges, conifers and broadleaved trees in separate stands."""
    scale = place.scale
    density = fractal(rng, place.shape, scale.forest_px, octaves=4, persistence=0.45)
    density += np.minimum(place.steepness(), 0.6)
    wooded = density > np.quantile(density, 1 - min(character.forest, 0.95))
    grow_trees(rng, place, wooded, Cover.FOREST, height_m=(13.0, 27.0))


def grow_trees(
    rng: np.random.Generator, place: Place, where: BoolArray, cover: Cover, height_m: tuple[float, float]
) -> None:
    """Plant trees over the pixels `where`, `height_m` from the lowest to the tallest."""
    salt = int(rng.integers(1 << 31))
    stand = value_noise(rng, place.shape, place.scale.forest_px * 0.8)
    tree = hash_uniform(salt, place.crowns.ids)
    conifer = stand + 1.2 * (tree - 0.5) > 0.1
    material = np.where(conifer, np.uint8(Material.CONIFER), np.uint8(Material.BROADLEAF)).astype(np.uint8)
    turned = _AUTUMN_LEAF[place.season] * ~conifer * (0.6 + 0.6 * hash_uniform(salt + 1, place.crowns.ids))
    dome = place.crown_dome()
    place.paint(where, cover, material, Material.AUTUMN_LEAF, np.clip(turned, 0, 1).astype(np.float32))
    np.copyto(place.brightness, (0.74 + 0.36 * dome) * (0.86 + 0.28 * tree), where=where)
    low, high = height_m
    tall = low + (high - low) * np.clip(0.5 + 0.3 * stand + 0.4 * (tree - 0.5), 0, 1)
    np.copyto(place.canopy, tall * (0.45 + 0.55 * dome), where=where)


def paint_alpine(rng: np.random.Generator, place: Place, character: Character) -> None:
    """Put bare rock above the tree line and snow above the rock, and lower down in winter."""
    if character.alpine <= 0:
        return
    ragged = fractal(rng, place.shape, place.scale.forest_px / 2, octaves=4, persistence=0.6)
    altitude = place.terrain + 0.18 * float(place.terrain.std()) * ragged
    share = min(character.alpine * (1.5 if place.season == Season.WINTER else 1.0), 0.9)
    tree_line, snow_line = np.quantile(altitude, [1 - share, 1 - 0.55 * share])
    rock = altitude > tree_line
    debris = np.clip(0.3 + 0.3 * ragged, 0, 0.8)
    place.paint(rock, Cover.BARE, Material.ROCK, Material.DRY_GRASS, debris)
    snow = (altitude > snow_line) & (place.steepness() < 1.1)
    place.paint(snow, Cover.SNOW, Material.SNOW, Material.ROCK, np.clip(0.1 + 0.12 * ragged, 0, 0.5))


def paint_water(rng: np.random.Generator, place: Place, character: Character) -> None:
    """Flood the lowest ground and cut a river; water lies flat and the banks slope towards it."""
    level = np.float32(np.quantile(place.terrain, character.water))
    depth = level - place.terrain  # positive under water, m
    shallows = np.float32(0.35 * float(place.terrain.std()) + 1e-3)
    lake = (depth > 0) & (character.water > 0.015)
    _flood(place, lake, 1 - depth / shallows)
    np.copyto(place.terrain, level, where=lake)
    if rng.random() < character.river * place.scale.rivers:
        _cut_river(rng, place)


def _cut_river(rng: np.random.Generator, place: Place) -> None:
    scale = place.scale
    course = fractal(rng, place.shape, max(0.7 * max(place.shape), 12 * scale.river_px), octaves=3, persistence=0.28)
    course -= np.float32(np.quantile(course, rng.uniform(0.3, 0.7)))
    south, east = slope(course, 1.0)
    steep = np.hypot(south, east)
    distance = np.abs(course) / np.maximum(steep, np.quantile(steep, 0.2))  # from the middle of the river, px
    half_width = np.float32(scale.river_px * rng.uniform(0.4, 0.75))
    bank = np.clip(distance / half_width - 1, 0, 1.5) / 1.5
    depth_m = np.float32(0.5 * scale.gsd_m)
    place.terrain -= depth_m * (1 - bank)
    river = (distance < half_width) & (place.cover != Cover.SNOW)
    sediment = np.float32(rng.uniform(0.2, 0.8))
    _flood(place, river, np.full(place.shape, sediment, np.float32) + 0.3 * (distance / half_width))


def _flood(place: Place, where: BoolArray, shallow: FloatArray) -> None:
    place.paint(where, Cover.WATER, Material.DEEP_WATER, Material.SHALLOW_WATER, np.clip(shallow, 0, 1))


def paint_roads(rng: np.random.Generator, place: Place, character: Character) -> None:
    """Lay roads along some borders of regions; they bridge rivers and avoid lakes and rock."""
    if character.towns < 0.5:
        return
    salt = int(rng.integers(1 << 31))
    low, high = (pick(place.regions.ids, place.regions.other) for pick in (np.minimum, np.maximum))
    built = hash_uniform(salt, low, high) < 0.55
    road = built & (place.regions.border < place.scale.road_px / 2)
    wide_water = (place.cover == Cover.WATER) & (place.mix < 0.15)
    road &= ~wide_water & (place.cover != Cover.SNOW) & (place.steepness() < 0.6)
    paved = road & (place.material != Material.ROCK)
    place.paint(paved, Cover.BUILT_UP, Material.ASPHALT, Material.SAND, 0.25)
