"""What reconstruction does to radar backscatter: mean and deviation in dB, and the Speckle Suppression Index.

Source of the index: Sheng and Xia, "A comprehensive evaluation of filters for radar speckle suppression", IGARSS
1996. Speckle multiplies the signal, so the coefficient of variation (std / mean) of the backscattered power measures
it, and the index compares an image after and before: below 1, speckle was suppressed. Power is linear: the same
formula on decibels, whose mean may be any number, says nothing. Legend: B images, C bands, H x W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.sensors import SensorSpec

Array = NDArray[np.float64]


def is_backscatter(spec: SensorSpec) -> bool:
    """Return whether the sensor measures radar backscatter: its units begin with "dB" or name backscatter or power."""
    units = spec.units.lower()
    return units.startswith("db") or "backscatter" in units or "power" in units


def to_power(image: Array, spec: SensorSpec) -> Array:
    """Return backscatter as linear power: 10^(dB / 10) of decibels, linear units as they are."""
    if not spec.units.lower().startswith("db"):
        return image
    power: Array = 10.0 ** (image / 10)
    return power


def to_decibels(image: Array, spec: SensorSpec) -> Array:
    """Return backscatter in decibels; NaN for power of zero and below, which has none."""
    if spec.units.lower().startswith("db"):
        return image
    with np.errstate(invalid="ignore"):
        decibels: Array = 10 * np.log10(np.where(image > 0, image, np.nan))
    return decibels


def speckle_suppression_index(before_BCHW: Array, after_BCHW: Array) -> Array:
    """Return [B,C] (std / mean of `after`) / (std / mean of `before`), both linear power; NaN pixels do not count.

    NaN for a band that is constant before, where there is no speckle to suppress, and for one without a pixel.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        variation = [
            _over_pixels(np.nanstd, image) / _over_pixels(np.nanmean, image) for image in (before_BCHW, after_BCHW)
        ]
        index: Array = np.where(variation[0] > 0, variation[1] / variation[0], np.nan)
    return index


def backscatter_rows(
    before_BCHW: Array, after_BCHW: Array, spec: SensorSpec, valid_BCHW: NDArray[np.bool_] | None = None
) -> Array:
    """Return [B,C,7] per image and band: mean and mean square in dB before, the same after, the index, and the share of
    the pixels that have decibels before, and after. Pixels are those that are `valid`, all when None."""
    if valid_BCHW is not None:
        before_BCHW, after_BCHW = (np.where(valid_BCHW, image, np.nan) for image in (before_BCHW, after_BCHW))
    both = [to_decibels(image, spec) for image in (before_BCHW, after_BCHW)]
    columns = [_over_pixels(np.nanmean, decibels**power) for decibels in both for power in (1, 2)]
    columns.append(speckle_suppression_index(to_power(before_BCHW, spec), to_power(after_BCHW, spec)))
    columns += [1.0 - np.isnan(decibels).mean(axis=(2, 3)) for decibels in both]
    return np.stack(columns, axis=-1)


def summarise_backscatter(rows_NC7: Array, spec: SensorSpec) -> dict[str, dict[str, float]]:
    """Return by band the mean and std over all pixels of all images, before and after, and the mean index; NaN for a
    band of which no pixel was measured."""
    out: dict[str, dict[str, float]] = {}
    for band, name in enumerate(spec.bands):
        rows_N7 = rows_NC7[:, band]
        before, before_sq = _mean_of_images(rows_N7[:, :2], rows_N7[:, 5])
        after, after_sq = _mean_of_images(rows_N7[:, 2:4], rows_N7[:, 6])
        index = rows_N7[:, 4]
        index = index[~np.isnan(index)]
        out[name] = {
            "mean_db_before": before,
            "std_db_before": float(np.sqrt(np.maximum(0.0, before_sq - before**2))),
            "mean_db_after": after,
            "std_db_after": float(np.sqrt(np.maximum(0.0, after_sq - after**2))),
            "speckle_suppression_index": float(index.mean()) if len(index) else float("nan"),
        }
    return out


def _mean_of_images(moments_N2: Array, share_N: Array) -> list[float]:
    """Return the means over images that count by their share of pixels; NaN where no image has any."""
    known = share_N > 0
    with np.errstate(invalid="ignore"):
        means_2: Array = (moments_N2[known] * share_N[known, None]).sum(axis=0) / share_N[known].sum()
    return [float(mean) for mean in means_2]


def _over_pixels(statistic: Callable[..., Array], image_BCHW: Array) -> Array:
    """Return a statistic [B,C] over the pixels that are not NaN; NaN where there is none, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return statistic(image_BCHW, axis=(2, 3))
