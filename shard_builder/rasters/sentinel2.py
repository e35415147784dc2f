"""What the pixels of Sentinel-2 say of themselves: the offset of processing baseline 04.00, and an order of bands.

From that baseline on a product holds reflectance x 1e4 + 1000, and archives mix both, with dates that do not tell: some
products were processed again, of others the offset was taken off. What the darkest pixels of an image hold does tell:
the floor of a band, which 1 pixel in 1000 lies below, is near 0 somewhere in the spectrum without the offset, and near
1000 with it. Level 1C shows it in B10, which sees no ground; elsewhere dark pixels are needed in a visible and in an
infrared band. An image that shows neither, as one of nothing but bright clouds, is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors.bands import canonical_band
from gfm_pipeline.shards.codec import Raster

FLOOR_SHARE = 0.001
_BELOW = 0.9
"""Times the offset: a floor that no image with it has in any band."""
_CIRRUS, _DARK = 1.15, 1.3
"""Times the offset: floors up to which B10, or a band that sees the ground, shows that it is there."""
_CIRRUS_BAND = canonical_band("B10")
_LEVEL_1C = frozenset(canonical_band(f"B{number}") for number in (2, 3, 4, 8, 9, 10, 11, 12))
_MUCH_DARKER = 0.5
_VISIBLE = frozenset(map(canonical_band, ("B1", "B2", "B3", "B4")))
_INFRARED = frozenset(map(canonical_band, ("B8", "B8A", "B11", "B12")))


def carries_offset(
    raster: Raster, measured: NDArray[np.bool_] | None, bands: Sequence[str], offset: float, where: str
) -> NDArray[np.bool_]:
    """Return, per image [T] of a raster [T,C,H,W] or [C,H,W], whether its pixels hold `offset` (of 1000, say) more.

    Pixels of 0, which no product uses for a measurement, and those that were not measured are left out; an image of
    nothing else has no offset. Raises ItemError for an image that does not show it either way.
    """
    images = raster if raster.ndim == 4 else raster[None]
    known = images != 0
    if measured is not None:
        known &= np.broadcast_to(measured, raster.shape).reshape(images.shape)
    return np.array([_one(image, mask, bands, offset, where) for image, mask in zip(images, known, strict=True)])


def doubt_order(sensor: str, means: Mapping[str, float]) -> str | None:
    """Return what speaks against the declared bands of a sensor, by the mean of each; None where nothing does.

    B10 lies where water vapour lets no light of the ground through: over many images no other band is half as dark.
    """
    known = {canonical_band(band): (band, mean) for band, mean in means.items()}
    if not known.keys() >= _LEVEL_1C:
        return None
    cirrus, mean = known[_CIRRUS_BAND]
    darkest, least = min(known.values(), key=lambda found: found[1])
    if mean <= 0 or least >= _MUCH_DARKER * mean:
        return None
    return (
        f"{sensor}: {darkest} has a mean of {least:.4g} and {cirrus} one of {mean:.4g}, but {cirrus} of Sentinel-2 "
        "sees no ground: the files seem to hold their bands in another order (those of EuroSAT hold B8A last). Set "
        f"bands of {sensor}"
    )


def _one(image: Raster, known: NDArray[np.bool_], bands: Sequence[str], offset: float, where: str) -> bool:
    pixels = dict(zip(bands, zip(image, known, strict=True), strict=True))
    levels = {name: float(np.quantile(band[mask], FLOOR_SHARE)) for name, (band, mask) in pixels.items() if mask.any()}
    floors = {canonical_band(name): level / offset for name, level in levels.items()}
    if not floors or min(floors.values()) < _BELOW:
        return False
    cirrus = floors.get(_CIRRUS_BAND)
    if cirrus is not None and cirrus < _CIRRUS:
        return True
    dark = [any(floors.get(name, np.inf) < _DARK for name in group) for group in (_VISIBLE, _INFRARED)]
    if cirrus is None and all(dark):
        return True
    told = ", ".join(f"{name} {level:.0f}" for name, level in levels.items())
    raise ItemError(
        f"{where} does not show whether it carries an offset of {offset:g}: its darkest pixels hold {told}. Set "
        "offset_files or offset_since instead of offset_evidence, or drop the image with on_error=skip."
    )
