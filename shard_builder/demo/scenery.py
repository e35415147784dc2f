"""What kinds of place there are, and how large things are in them.

A `Scale` fixes sizes in pixels: large enough that fields, lakes and towns outlast a hidden cell of 16 to 32 px. A
`Character` fixes how much of each thing a place has. `Season` decides what is green.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Season(IntEnum):
    """Meteorological season, in the order in which SEN12MS numbers its collections of regions."""

    SPRING = 0
    SUMMER = 1
    FALL = 2
    WINTER = 3


@dataclass(frozen=True)
class Scale:
    """Sizes of things in pixels, and the ground sampling distance in metres."""

    gsd_m: float
    terrain_px: float
    forest_px: float
    region_px: float
    """Farmland is divided into regions; fields within one share their direction, roads follow the borders."""
    field_px: float
    river_px: float
    rivers: float
    """Share of the rivers of a region that a place of this extent gets to see."""
    town_px: float
    """Radius of a town."""
    block_px: float
    street_px: float
    lot_px: float
    crown_px: float
    road_px: float
    row_px: float
    """Distance between crop rows; 0 where the sensor cannot see them."""


LANDSCAPE = Scale(
    gsd_m=10.0,
    terrain_px=110,
    forest_px=56,
    region_px=96,
    field_px=25,
    river_px=8,
    rivers=1.0,
    town_px=34,
    block_px=13,
    street_px=1.6,
    lot_px=4.0,
    crown_px=3.0,
    road_px=1.5,
    row_px=0,
)
"""As a satellite at 10 m sees it."""

AERIAL = Scale(
    gsd_m=1.0,
    terrain_px=260,
    forest_px=120,
    region_px=230,
    field_px=70,
    river_px=30,
    rivers=0.35,
    town_px=240,
    block_px=66,
    street_px=7,
    lot_px=21,
    crown_px=9,
    road_px=6,
    row_px=5,
)
"""As a camera on an aircraft at 1 m sees it."""


@dataclass(frozen=True)
class Character:
    """How much of each thing a place has; shares are of the area, before later layers cover earlier ones."""

    relief_m: float
    """Standard deviation of the terrain of a 10 m place; an aerial place, a tenth across, has a tenth of it."""
    water: float
    forest: float
    farmland: float
    towns: float
    """Expected number of towns."""
    dry: float
    """0 is lush, 1 is a desert."""
    river: float
    """Probability of a river."""
    alpine: float = 0.0
    """Share above the tree line."""


CHARACTERS = (
    Character(relief_m=60, water=0.30, forest=0.50, farmland=0.25, towns=0.7, dry=0.0, river=0.4),  # lakes
    Character(relief_m=30, water=0.04, forest=0.22, farmland=0.85, towns=0.8, dry=0.1, river=0.7),  # farmland
    Character(relief_m=25, water=0.05, forest=0.15, farmland=0.50, towns=3.2, dry=0.1, river=0.6),  # towns
    Character(relief_m=110, water=0.06, forest=0.55, farmland=0.35, towns=0.8, dry=0.1, river=0.5),  # hills
    Character(relief_m=170, water=0.03, forest=0.40, farmland=0.10, towns=0.3, dry=0.2, river=0.6, alpine=0.34),  # alps
    Character(relief_m=80, water=0.02, forest=0.06, farmland=0.30, towns=0.6, dry=0.9, river=0.6),  # steppe
    Character(relief_m=45, water=0.42, forest=0.25, farmland=0.45, towns=1.4, dry=0.2, river=0.2),  # coast
)

URBAN_CHARACTERS = (
    Character(relief_m=45, water=0.03, forest=0.18, farmland=0.50, towns=3.0, dry=0.0, river=0.6),
    Character(relief_m=55, water=0.05, forest=0.25, farmland=0.70, towns=1.6, dry=0.1, river=0.7),
)
"""Characters of the sub-areas with a surface model: one city and its surroundings."""


def draw_character(rng: np.random.Generator, among: tuple[Character, ...]) -> Character:
    """Return one of `among` with every amount moved by up to a third."""
    base = among[int(rng.integers(len(among)))]
    amounts = {name: value * float(rng.uniform(0.67, 1.33)) for name, value in vars(base).items()}
    return Character(**amounts)
