"""Images of any sensor as colours a person can read: pure functions on numpy arrays.

The stretch is an argument and not a side effect of the image: it is measured once on the target of a sample and used
for the masked input, the reconstruction and the target alike, so that equal colours mean equal values.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gfm_pipeline.sensors import SensorSpec

Picture = npt.NDArray[np.uint8]
"""[H,W,3], red, green and blue."""

HIDDEN_GREY = 128
"""Value of a hidden cell; its hatching is a few shades darker."""
MISSING = (224, 220, 214)
"""Colour of a pixel that was not measured."""

_COLOUR_GAMMA = 0.65
_SUN = np.array([-0.5, -0.5, 0.7071], np.float32)  # from the north-west, as maps have it: south, east, up
_HEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_CLASS_COLOURS = (
    (70, 70, 78),
    (38, 102, 62),
    (118, 163, 84),
    (196, 180, 92),
    (222, 154, 60),
    (186, 84, 62),
    (150, 106, 160),
    (92, 72, 132),
    (58, 116, 178),
    (120, 190, 214),
    (232, 208, 180),
    (140, 110, 84),
    (214, 120, 150),
    (176, 176, 182),
)
_RAMP = np.array([[43, 88, 96], [104, 143, 96], [206, 190, 130], [176, 120, 84], [245, 240, 235]], np.float32)
"""Colours of the heights above, low to high."""


@dataclass(frozen=True)
class Limits:
    """The values, in the sensor's units, that are drawn darkest and brightest; one pair per displayed band."""

    low: tuple[float, ...]
    high: tuple[float, ...]


def display_bands(spec: SensorSpec) -> list[int]:
    """Return the positions of the bands that `spec.display` shows: three for colour, otherwise one."""
    wanted = 3 if spec.display.mode == "colour" else 1
    names = spec.display.bands[:wanted] or spec.bands[:wanted]
    index = [spec.band_index(name) for name in names]
    return index + index[-1:] * (wanted - len(index))


def limits_of(image: npt.NDArray[np.floating], spec: SensorSpec) -> Limits:
    """Return the stretch of `image` [C,H,W] in physical units: the 1st to 99th percentile.

    The bands of a colour image share one width, so that the land keeps its hue. 8 bit images are shown as they are.
    """
    shown = np.asarray(image, np.float32)[display_bands(spec)]
    if spec.display.mode == "colour" and spec.dtype == "uint8":
        return Limits((0.0,) * 3, (255.0,) * 3)
    finite = [band[np.isfinite(band)] for band in shown]
    ends = [np.percentile(band, [1, 99]) if band.size else np.array([0.0, 1.0]) for band in finite]
    width = max(max(float(high - low) for low, high in ends), 1e-6)
    return Limits(tuple(float(low) for low, _ in ends), tuple(float(low) + width for low, _ in ends))


def render(image: npt.NDArray[np.floating], spec: SensorSpec, limits: Limits | None = None) -> Picture:
    """Return `image` [C,H,W], in the sensor's physical units, as a picture; its own limits where none are given.

    Pixels that are not finite were not measured: they get a colour of their own.
    """
    limits = limits or limits_of(image, spec)
    shown = np.asarray(image, np.float32)[display_bands(spec)]
    measured: npt.NDArray[np.bool_] = np.all(np.isfinite(shown), axis=0)
    picture = _draw(np.where(measured, shown, _fill(shown, measured)), spec, limits)
    picture[~measured] = MISSING
    return picture


def render_classes(classes: npt.NDArray[np.integer]) -> Picture:
    """Return a map of class numbers [H,W] in colours that depend on the number alone, whatever classes are there."""
    present, inverse = np.unique(classes, return_inverse=True)
    colours = np.array([class_colour(int(value)) for value in present], np.uint8)
    picture: Picture = colours[inverse.reshape(classes.shape)]
    return picture


def class_colour(value: int) -> tuple[int, int, int]:
    """Return the colour of a class: those of the first dozen are chosen by hand, the others far apart in hue."""
    if 0 <= value < len(_CLASS_COLOURS):
        return _CLASS_COLOURS[value]
    hue = (value * 0.6180339887) % 1.0  # the golden ratio leaves no two small numbers near each other
    lightness = (0.42, 0.58, 0.74)[value % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.55)
    return round(red * 255), round(green * 255), round(blue * 255)


def _fill(shown: npt.NDArray[np.float32], measured: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Return values [bands,H,W] for pixels that were not measured: the mean of measured neighbours, or any one.

    Relief is shaded by the slope to the neighbours, which shows no cliff where the data end.
    """
    known = shown[:, measured]
    middle = np.median(known, axis=1) if known.size else np.zeros(len(shown), np.float32)
    around = np.pad(np.where(measured, shown, 0), ((0, 0), (1, 1), (1, 1)))
    there = np.pad(measured.astype(np.float32), 1)
    inner, before, after = slice(1, -1), slice(0, -2), slice(2, None)
    neighbours = ((before, inner), (after, inner), (inner, before), (inner, after))
    total = sum(around[:, rows, columns] for rows, columns in neighbours)
    count = sum(there[rows, columns] for rows, columns in neighbours)
    filled: npt.NDArray[np.float32] = np.where(count > 0, total / np.maximum(count, 1), middle[:, None, None])
    return filled.astype(np.float32)


def _draw(shown: npt.NDArray[np.float32], spec: SensorSpec, limits: Limits) -> Picture:
    """Return the displayed bands [bands,H,W], all of them finite, as a picture."""
    low = np.array(limits.low, np.float32)[:, None, None]
    high = np.array(limits.high, np.float32)[:, None, None]
    unit = np.moveaxis((shown - low) / (high - low), 0, -1)  # [H,W,bands]
    if spec.display.mode == "shaded":
        return _shaded(unit[..., 0])
    unit = np.clip(unit, 0, 1)
    if spec.display.mode == "colour" and spec.dtype != "uint8":
        unit **= _COLOUR_GAMMA
    out = np.rint(unit * 255).astype(np.uint8)
    return out if out.shape[2] == 3 else np.repeat(out, 3, axis=2)


def _shaded(height: npt.NDArray[np.float32]) -> Picture:
    """Return relief [H,W], 0 lowest and 1 highest, coloured by height and shaded by a sun in the north-west."""
    exaggeration = 0.10 * min(height.shape)
    south, east = np.gradient(np.clip(height, -0.5, 1.5) * exaggeration)
    normal = np.stack([-south, -east, np.ones_like(height)]) / np.sqrt(1 + south**2 + east**2)
    light = np.clip(np.tensordot(_SUN, normal, axes=1) / _SUN[2], 0.4, 1.3)
    unit = np.clip(height, 0, 1)
    colour = np.stack([np.interp(unit, _HEIGHTS, channel) for channel in _RAMP.T], axis=-1)
    picture: Picture = np.clip(np.rint(colour * light[..., None]), 0, 255).astype(np.uint8)
    return picture


def hide(rendered: Picture, mask: npt.NDArray[np.bool_]) -> Picture:
    """Return a copy of the picture with the cells of `mask` [h,w] greyed out, finely hatched and outlined."""
    height, width = rendered.shape[:2]
    row = np.arange(height) * mask.shape[0] // height  # cell of each pixel row
    column = np.arange(width) * mask.shape[1] // width
    hidden = mask[row][:, column]
    veil = np.full((height, width), HIDDEN_GREY, np.uint8)
    veil[(np.arange(height)[:, None] + np.arange(width)) % 6 == 0] = HIDDEN_GREY - 10
    veil[np.diff(row, prepend=-1) > 0] = HIDDEN_GREY - 22
    veil[:, np.diff(column, prepend=-1) > 0] = HIDDEN_GREY - 22
    return np.where(hidden[..., None], veil[..., None], rendered)


def paste(
    visible: npt.NDArray[np.floating], predicted: npt.NDArray[np.floating], mask: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Return `visible` [C,H,W] with the cells of `mask` [h,w] taken from `predicted` [C,H,W]."""
    height, width = visible.shape[1:]
    row, column = np.arange(height) * mask.shape[0] // height, np.arange(width) * mask.shape[1] // width
    return np.where(mask[row][:, column], predicted, visible).astype(np.float32)
