"""What optical sensors see of a place: Sentinel-2 reflectance and an 8 bit colour image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shard_builder.demo.materials import REFLECTANCE, TEXTURE
from shard_builder.demo.noise import FloatArray, fractal, slope, value_noise
from shard_builder.demo.place import Place

_PATH = np.array(
    [0.095, 0.062, 0.034, 0.018, 0.014, 0.011, 0.009, 0.007, 0.006, 0.004, 0.0006, 0.001, 0.0005], np.float32
)
"""[band]: reflectance of the air itself under average haze."""
_CLEAR = np.array([0.80, 0.86, 0.90, 0.93, 0.94, 0.95, 0.96, 0.965, 0.97, 0.42, 0.05, 0.97, 0.96], np.float32)
"""[band]: share of the ground's reflectance that comes through; vapour takes most of B9 and nearly all of B10."""
_PIXELS = np.array([6, 1, 1, 1, 2, 2, 2, 1, 2, 6, 6, 2, 2])
"""[band]: native pixel in units of 10 m: 60, 10 or 20 m."""
_GREEN, _RED, _BLUE = 2, 3, 1


class Sun:
    """Where the sun stands: azimuth (clockwise from north, radians) and elevation above the horizon."""

    def __init__(self, rng: np.random.Generator, elevation_deg: tuple[float, float]) -> None:
        self.azimuth = np.radians(rng.uniform(125, 205))
        self.elevation = np.radians(rng.uniform(*elevation_deg))
        self.south = float(-np.cos(self.azimuth) * np.cos(self.elevation))  # row component of the way to the sun
        self.east = float(np.sin(self.azimuth) * np.cos(self.elevation))
        self.up = float(np.sin(self.elevation))

    def illumination(self, height: FloatArray, gsd_m: float) -> FloatArray:
        """Return the light on each pixel relative to flat ground [H,W]."""
        south, east = slope(height, gsd_m)
        cosine = (self.up - south * self.south - east * self.east) / np.sqrt(1 + south**2 + east**2)
        light: FloatArray = np.maximum(cosine, 0).astype(np.float32) / np.float32(self.up)
        return light

    def shadow(self, height: FloatArray, gsd_m: float, reach_px: int) -> FloatArray:
        """Return how deep each pixel [H,W] lies in the shadow of others: 0 lit, 1 dark."""
        horizontal = np.hypot(self.south, self.east)
        rise_m = self.up / horizontal * gsd_m  # of the ray towards the sun, per pixel of way
        obstacle = np.zeros_like(height)
        for step in range(1, reach_px + 1):
            down, right = round(step * self.south / horizontal), round(step * self.east / horizontal)
            blocker = _shifted(height, down, right)
            np.maximum(obstacle, blocker - height - np.float32(step * rise_m), out=obstacle)
        depth: FloatArray = np.clip(obstacle / np.float32(0.8 * gsd_m), 0, 1)
        return depth


def _shifted(field: FloatArray, down: int, right: int) -> FloatArray:
    """Return field[y + down, x + right], repeating the border where that is outside."""
    rows = np.clip(np.arange(field.shape[0]) + down, 0, field.shape[0] - 1)
    columns = np.clip(np.arange(field.shape[1]) + right, 0, field.shape[1] - 1)
    return np.take(np.take(field, rows, axis=0), columns, axis=1)


def _texture(rng: np.random.Generator, place: Place) -> FloatArray:
    """Return the brightness [H,W] of the place relative to its materials."""
    grain = 0.75 * fractal(rng, place.shape, 14, octaves=3, persistence=0.7)
    grain += 0.5 * rng.standard_normal(place.shape, dtype=np.float32)
    texture: FloatArray = np.maximum(1 + TEXTURE[place.material] * grain, 0.2) * place.brightness
    return texture


def _ground(place: Place, bands: list[int]) -> FloatArray:
    """Return the reflectance [H,W,len(bands)] of the mixed materials."""
    table = REFLECTANCE[:, bands]
    mix = place.mix[..., None]
    return table[place.material] * (1 - mix) + table[place.second] * mix


def _native(band: FloatArray, pixels: int) -> FloatArray:
    """Return a band [H,W] at the resolution of its native pixels, resampled smoothly to the grid."""
    if pixels == 1:
        return band
    height, width = band.shape
    pad = ((0, -height % pixels), (0, -width % pixels))
    coarse = np.pad(band, pad, mode="edge").reshape(-(-height // pixels), pixels, -1, pixels).mean((1, 3))
    for axis, length in ((0, height), (1, width)):
        centre = (np.arange(length) + 0.5) / pixels - 0.5
        left = np.clip(np.floor(centre).astype(np.int64), 0, coarse.shape[axis] - 1)
        right = np.minimum(left + 1, coarse.shape[axis] - 1)
        weight = np.clip(centre - left, 0, 1).astype(np.float32)
        weight = weight[:, None] if axis == 0 else weight[None, :]
        coarse = np.take(coarse, left, axis=axis) * (1 - weight) + np.take(coarse, right, axis=axis) * weight
    smooth: FloatArray = coarse.astype(np.float32)
    return smooth


def render_s2(rng: np.random.Generator, place: Place) -> npt.NDArray[np.uint16]:
    """Return Sentinel-2 [H,W,13]: top-of-atmosphere reflectance x 1e4 in the band order of SEN12MS."""
    sun = Sun(rng, (38, 62))
    light = np.clip(sun.illumination(place.terrain, place.scale.gsd_m), 0.25, 1.6) * _texture(rng, place)
    ground = _ground(place, list(range(13))) * light[..., None]
    haze = np.float32(rng.uniform(0.75, 1.3)) + 0.06 * value_noise(rng, place.shape, 90)[..., None]
    toa = ground * (1 - haze * (1 - _CLEAR)) + haze * _PATH
    for band, pixels in enumerate(_PIXELS):
        toa[..., band] = _native(toa[..., band], int(pixels))
    toa *= 1 + 0.008 * rng.standard_normal(toa.shape, dtype=np.float32)
    digital: npt.NDArray[np.uint16] = np.clip(np.rint(toa * 1e4), 1, 20000).astype(np.uint16)
    return digital


def render_rgb(rng: np.random.Generator, place: Place) -> npt.NDArray[np.uint8]:
    """Return a colour image [H,W,3], with shadows of what stands on the ground."""
    sun, gsd_m = Sun(rng, (35, 55)), place.scale.gsd_m
    surface = place.surface
    lit = np.clip(sun.illumination(surface, gsd_m), 0.2, 1.5)
    shadow = sun.shadow(surface, gsd_m, reach_px=24)
    ground = _ground(place, [_RED, _GREEN, _BLUE]) * _texture(rng, place)[..., None]
    sky = np.array([0.20, 0.23, 0.30], np.float32)
    seen = ground * (sky + 0.85 * (lit * (1 - shadow))[..., None])
    seen += np.array([0.004, 0.007, 0.012], np.float32) * np.float32(rng.uniform(0.4, 1.4))
    exposure = np.float32(rng.uniform(3.0, 3.7))
    tone = 1 - np.exp(-exposure * seen)  # bright roofs and snow keep some detail
    digital = 255 * tone ** np.float32(1 / 1.9) + 2.0 * rng.standard_normal(tone.shape, dtype=np.float32)
    image: npt.NDArray[np.uint8] = np.clip(np.rint(digital), 0, 255).astype(np.uint8)
    return image
