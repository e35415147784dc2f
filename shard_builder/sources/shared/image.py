"""One image file of anybody's: as many bands as it has, as the file numbers them."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
from PIL import Image

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from shard_builder.archives import MemberRef
from shard_builder.rasters.images import decode_rgb, decode_tiff, image_format, image_size
from shard_builder.rasters.raster import Decoded


def decode_image(data: bytes, ref: MemberRef, spec: SensorSpec) -> Decoded:
    """Return the raster [C,H,W] of a TIFF, PNG or JPEG; raise ItemError for what is none of them.

    Three bands of 8 bits are read as RGB, with the rules of `decode_rgb`. Any other PNG is read as it is: the numbers
    of a palette are kept, as maps of classes have them.
    """
    kind = image_format(data, ref)
    if kind == "tif":
        return decode_tiff(data, ref)
    if len(spec.bands) == 3 and spec.dtype == "uint8":
        return decode_rgb(data, ref)
    image_size(data, ref)  # refuses what claims too much
    try:
        image = imagecodecs.jpeg8_decode(data) if kind == "jpg" else _png(data)
    except Exception as error:  # every library raises its own types for bytes that are no image
        raise ItemError(f"{ref.source_file} cannot be decoded: {' '.join(str(error).split())[:200]}.") from error
    image = image[..., None] if image.ndim == 2 else image
    return Decoded(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _png(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    with Image.open(io.BytesIO(data)) as image:
        if image.mode == "P":
            return np.asarray(image)
    found: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = imagecodecs.png_decode(data)
    return found
