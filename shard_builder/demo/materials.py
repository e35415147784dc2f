"""What the synthetic planet is made of: how each material looks in every sensor, and the classes they form.

One row per material gives its surface reflectance in the thirteen Sentinel-2 bands and its radar backscatter. All
sensors are rendered from this table, which is what makes them agree: a model can learn one from another. The values
are typical of published spectra and radar studies, rounded; they describe no particular place.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from shard_builder.demo.noise import FloatArray


class Cover(IntEnum):
    """Land-cover classes of the planet; the labels of the RGB images use their lower-case names."""

    WATER = 0
    FOREST = 1
    GRASSLAND = 2
    CROPLAND = 3
    BARE = 4
    BUILT_UP = 5
    SNOW = 6


COVER_NAMES = tuple(cover.name.lower() for cover in Cover)

LAND_COVER_CODES = np.array(
    [
        (17, 3, 3, 3),
        (5, 15, 10, 10),
        (10, 31, 30, 30),
        (12, 31, 36, 30),
        (16, 1, 1, 1),
        (13, 32, 9, 30),
        (15, 2, 2, 2),
    ],
    np.uint16,
)
"""[cover, 4]: IGBP, LCCS land cover, LCCS land use and LCCS surface hydrology codes, the bands of SEN12MS `lc`."""


class Material(IntEnum):
    """Row numbers of the tables below."""

    DEEP_WATER = 0
    SHALLOW_WATER = 1
    CONIFER = 2
    BROADLEAF = 3
    AUTUMN_LEAF = 4
    GRASS = 5
    DRY_GRASS = 6
    GREEN_CROP = 7
    RIPE_CROP = 8
    SOIL = 9
    SAND = 10
    ASPHALT = 11
    TILE_ROOF = 12
    LIGHT_ROOF = 13
    DARK_ROOF = 14
    ROCK = 15
    SNOW = 16


REFLECTANCE: FloatArray = np.array(
    # B1    B2    B3    B4    B5    B6    B7    B8    B8A   B9    B10   B11   B12
    [
        [0.028, 0.034, 0.028, 0.014, 0.011, 0.008, 0.008, 0.007, 0.006, 0.005, 0.001, 0.003, 0.002],
        [0.045, 0.068, 0.088, 0.055, 0.042, 0.026, 0.023, 0.021, 0.018, 0.012, 0.001, 0.006, 0.004],
        [0.016, 0.020, 0.042, 0.024, 0.055, 0.160, 0.200, 0.215, 0.225, 0.200, 0.001, 0.100, 0.045],
        [0.018, 0.024, 0.066, 0.030, 0.090, 0.280, 0.360, 0.380, 0.395, 0.360, 0.001, 0.170, 0.075],
        [0.024, 0.032, 0.080, 0.115, 0.160, 0.250, 0.280, 0.300, 0.310, 0.280, 0.001, 0.200, 0.100],
        [0.030, 0.038, 0.095, 0.056, 0.125, 0.270, 0.320, 0.340, 0.355, 0.320, 0.001, 0.230, 0.130],
        [0.050, 0.068, 0.120, 0.135, 0.180, 0.230, 0.250, 0.270, 0.290, 0.270, 0.001, 0.330, 0.220],
        [0.018, 0.028, 0.088, 0.034, 0.110, 0.360, 0.460, 0.480, 0.500, 0.450, 0.001, 0.210, 0.090],
        [0.060, 0.085, 0.165, 0.215, 0.250, 0.280, 0.300, 0.310, 0.330, 0.300, 0.001, 0.360, 0.250],
        [0.055, 0.072, 0.105, 0.145, 0.165, 0.185, 0.200, 0.215, 0.225, 0.220, 0.001, 0.300, 0.270],
        [0.120, 0.170, 0.240, 0.310, 0.340, 0.360, 0.370, 0.390, 0.400, 0.380, 0.001, 0.480, 0.430],
        [0.080, 0.090, 0.098, 0.103, 0.106, 0.110, 0.113, 0.118, 0.120, 0.110, 0.001, 0.135, 0.125],
        [0.060, 0.075, 0.110, 0.215, 0.240, 0.250, 0.260, 0.270, 0.280, 0.260, 0.001, 0.310, 0.270],
        [0.240, 0.290, 0.320, 0.335, 0.345, 0.350, 0.355, 0.360, 0.360, 0.330, 0.002, 0.340, 0.300],
        [0.065, 0.075, 0.082, 0.088, 0.092, 0.100, 0.105, 0.110, 0.115, 0.110, 0.001, 0.150, 0.140],
        [0.095, 0.115, 0.135, 0.150, 0.160, 0.170, 0.178, 0.185, 0.190, 0.180, 0.001, 0.240, 0.210],
        [0.800, 0.850, 0.860, 0.860, 0.840, 0.820, 0.800, 0.790, 0.760, 0.600, 0.005, 0.100, 0.070],
    ],
    np.float32,
)
"""[material, band]: surface reflectance in the band order of SEN12MS."""

BACKSCATTER_DB: FloatArray = np.array(
    [
        [-23.0, -30.0],
        [-20.0, -27.5],
        [-9.0, -14.0],
        [-8.0, -13.0],
        [-9.0, -14.0],
        [-13.0, -19.5],
        [-14.0, -22.0],
        [-10.5, -17.0],
        [-12.5, -19.0],
        [-13.5, -23.5],
        [-17.5, -26.0],
        [-16.5, -24.5],
        [-3.0, -10.5],
        [-1.0, -9.5],
        [-3.5, -11.0],
        [-10.5, -18.5],
        [-15.5, -23.0],
    ],
    np.float32,
)
"""[material, (VV, VH)]: mean backscatter on flat ground, in dB."""

TEXTURE: FloatArray = np.array(
    [0.05, 0.10, 0.20, 0.22, 0.22, 0.13, 0.13, 0.08, 0.08, 0.10, 0.12, 0.06, 0.05, 0.05, 0.05, 0.28, 0.05], np.float32
)
"""[material]: relative brightness variation within a patch of the material."""
