"""What a radar sees of a place: Sentinel-1 backscatter with relief, double bounces and speckle."""

from __future__ import annotations

import numpy as np

from shard_builder.demo.materials import BACKSCATTER_DB, Cover
from shard_builder.demo.noise import FloatArray, slope, value_noise
from shard_builder.demo.place import Place

_LOOKS = 5.0
"""Equivalent number of looks of the ground range product; speckle deviates by 1 / sqrt(looks)."""
_FLOOR_DB = np.array([-28.0, -34.0], np.float32)
"""Noise floor of VV and VH."""


def render_s1(rng: np.random.Generator, place: Place) -> FloatArray:
    """Return Sentinel-1 [H,W,2]: VV and VH backscatter in dB."""
    table = 10 ** (BACKSCATTER_DB / 10)
    mix = place.mix[..., None]
    power = table[place.material] * (1 - mix) + table[place.second] * mix
    looks_east = 1.0 if rng.random() < 0.5 else -1.0  # ascending or descending orbit, looking right
    power *= (10 ** (_relief_db(place, looks_east) / 10))[..., None]
    _, rise = slope(place.buildings, place.scale.gsd_m)
    wall = np.maximum(looks_east * rise, 0)
    power += np.array([0.9, 0.12], np.float32) * np.minimum(wall, 1.2)[..., None]  # wall and ground return together
    wet = np.where(place.cover == Cover.WATER, np.float32(rng.uniform(-1.5, 2.0)), 0)
    wet = wet + 0.7 * value_noise(rng, place.shape, 40)
    power *= (10 ** (wet / 10))[..., None]
    power += 10 ** (_FLOOR_DB / 10)
    power *= rng.standard_gamma(_LOOKS, power.shape, dtype=np.float32) / np.float32(_LOOKS)
    decibels: FloatArray = (10 * np.log10(np.maximum(power, 1e-5))).astype(np.float32)
    return decibels


def _relief_db(place: Place, looks_east: float) -> FloatArray:
    """Return the change of backscatter [H,W] by slopes that face the radar (bright) or turn away (dark)."""
    _, east = slope(place.terrain, place.scale.gsd_m)
    change: FloatArray = np.clip(9.0 * looks_east * east, -7, 7).astype(np.float32)
    return change
