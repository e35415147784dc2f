"""One image file of anybody's: as many bands as it has, as the file numbers them."""

from __future__ import annotations

import io
from dataclasses import replace

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.codec import Raster
from shard_builder.archives import MemberRef
from shard_builder.rasters.images import decode_rgb, decode_tiff, image_format, image_size
from shard_builder.rasters.raster import Decoded, Facts


def decode_image(data: bytes, ref: MemberRef, spec: SensorSpec) -> Decoded:
    """Return the raster [C,H,W] of a TIFF, PNG or JPEG; raise ItemError for what is none of them.

    Three bands of 8 bits are read as RGB, with the rules of `decode_rgb`. Any other PNG is read as it is: numbers of a
    palette and of 1, 2 or 4 bits are kept, as maps of classes have them.
    """
    kind = image_format(data, ref)
    if kind == "tif":
        return decode_tiff(data, ref)
    if len(spec.bands) == 3 and spec.dtype == "uint8":
        return decode_rgb(data, ref)
    image_size(data, ref)  # refuses what claims too much
    try:
        image, mask = (imagecodecs.jpeg8_decode(data), None) if kind == "jpg" else _png(data)
    except Exception as error:  # every library raises its own types for bytes that are no image
        raise ItemError(f"{ref.source_file} cannot be decoded: {' '.join(str(error).split())[:200]}.") from error
    image = image[..., None] if image.ndim == 2 else image
    alpha = image.shape[2] - 1 if kind == "png" and image.shape[2] in (2, 4) else None
    return Decoded(np.ascontiguousarray(image.transpose(2, 0, 1)), Facts(alpha=alpha), None, mask)


def as_series(decoded: Decoded, axes: str) -> Decoded:
    """Return the images (pages) of a file as dates [T,C,H,W]; with axes that have no C, every band as one."""
    raster, facts = decoded.raster, decoded.facts
    steps = facts.pages if "C" in axes else len(raster)
    bands = len(raster) // steps
    mask = decoded.mask
    if mask is not None and mask.ndim == 3 and len(mask) == len(raster):
        mask = mask.reshape(steps, bands, *mask.shape[1:])
    nodata = facts.nodata[:bands] if len(facts.nodata) == len(raster) else facts.nodata
    scaling = facts.scaling if facts.scaling is None or len(facts.scaling.scales) <= bands else None
    facts = replace(facts, nodata=nodata, pages=1, bands=facts.bands[:bands], scaling=scaling)
    return Decoded(raster.reshape(steps, bands, *raster.shape[1:]), facts, None, mask)


def _png(data: bytes) -> tuple[Raster, NDArray[np.bool_] | None]:
    """Return the numbers in a PNG as they are in the file, and which were measured where it says that some were not.

    Libraries stretch grey of less than 8 bits like brightness, to 0 to 255, and paint transparent numbers.
    """
    with Image.open(io.BytesIO(data)) as image:
        palette, clear = image.mode == "P", image.info.get("transparency")
        bits, colour = data[24], data[25]
        if palette:
            found: Raster = np.asarray(image)
        elif colour == 0 and (bits < 8 or clear is not None):
            found = np.asarray(image)
        else:
            found = imagecodecs.png_decode(data)
    if colour == 0 and bits < 8:
        found = (found.astype(np.uint8) if found.dtype == bool else found // (255 // (2**bits - 1))).astype(np.uint8)
    if clear is None or colour not in (0, 3):
        return found, None
    if isinstance(clear, bytes):  # an alpha for each number of a palette
        return found, ~np.isin(found, [number for number, alpha in enumerate(clear) if alpha == 0])
    return found, found != (clear if palette or bits >= 8 else min(clear, 2**bits - 1))
