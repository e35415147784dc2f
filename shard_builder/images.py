"""Encoded images (jpg, png, tif) to rasters, and large ones to tiles. Shared by the sources."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.codec import Raster
from shard_builder.archives import ArchiveReader, MemberRef
from shard_builder.config import BuildConfig
from shard_builder.georeference import read_georeference
from shard_builder.planned import PlannedRaster, Window
from shard_builder.raster import Decoded, Facts, OpenRaster, Original, WholeRaster

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "tif", "tiff")
MAX_PIXELS = 2**30
"""A header that claims more is refused before anything is decoded. The largest of MillionAID have 31672 x 31672."""

HEAD_BYTES = 2**16
"""What the size of an image is usually found in."""


def extension_of(name: str) -> str:
    """Return the lower-case extension of a member name without its dot."""
    return name.rpartition(".")[2].lower() if "." in name else ""


Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# Without a handler, what tifffile says of damaged tags goes to stderr beside the error that it leads to.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_PHOTOMETRIC = {tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR, tifffile.PHOTOMETRIC.MINISBLACK}
"""The numbers of the others (a palette, ink, inverted grey) are no intensities of bands."""

_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"II*\0": "tif", b"MM\0*": "tif", b"II+\0": "tif", b"MM\0+": "tif"}


def image_format(data: bytes, ref: MemberRef) -> str:
    """Return "jpg", "png" or "tif" by the first bytes: names of archive members are not to be relied on."""
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name
    raise ItemError(f"{ref.source_file} is no JPEG, PNG or TIFF: it begins with {data[:8].hex() or 'nothing'}.")


def image_size(data: bytes, ref: MemberRef) -> tuple[int, int]:
    """Return (height, width) from an image's header; raise ItemError when there is none, or one of a bomb."""
    return _header(data, ref)[:2]


def _header(data: bytes, ref: MemberRef) -> tuple[int, int, str]:
    """Return (height, width, Pillow's word for the bands; "" for a TIFF)."""
    kind = image_format(data, ref)
    try:
        height, width, mode = _tiff_header(data) if kind == "tif" else _pillow_header(data)
    except Exception as error:  # every library raises its own types for bytes that are no image
        raise ItemError(f"{ref.source_file} is no readable image: {_reason(error)}") from error
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ItemError(f"{ref.source_file} claims {height} x {width} pixels, expected at most {MAX_PIXELS} in all.")
    return height, width, mode


def read_size(ref: MemberRef, files: ArchiveReader) -> tuple[int, int]:
    """Return (height, width) of an image member from as few of its bytes as will do; raise ItemError for no image."""
    if ref.size > HEAD_BYTES:
        head = files.head(ref, HEAD_BYTES)
        try:
            return image_size(head, ref)
        except ItemError:  # a long comment, or a TIFF whose directory comes last
            pass
    return image_size(files.read(ref), ref)


def _tiff_header(data: bytes) -> tuple[int, int, str]:
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        page = tif.pages.first
        return int(page.imagelength), int(page.imagewidth), ""


def _pillow_header(data: bytes) -> tuple[int, int, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data)) as image:
            return image.height, image.width, image.mode


def load_tiff(planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
    """Return the TIFF of a planned sensor, whatever its bands, cut to its window; raise ItemError for none."""
    return _load(planned, spec, files, decode_tiff)


def load_rgb(planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
    """Return the image of a planned sensor as 8-bit RGB, cut to its window; raise ItemError for none."""
    return _load(planned, spec, files, decode_rgb)


def original_jpeg(planned: PlannedRaster, files: ArchiveReader) -> Original | None:
    """Return a whole JPEG of three bands as it is, its header and end checked; None for any other image.

    Raises ItemError for one that is cut short.
    """
    if planned.window is not None or planned.grid is not None:
        return None
    (ref,) = planned.files
    data = files.read(ref)
    if image_format(data, ref) != "jpg":
        return None
    height, width, mode = _header(data, ref)
    _check_end(data, ref)
    return Original("jpg", data, (3, height, width)) if mode == "RGB" else None


def _load(
    planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader, decode: Callable[[bytes, MemberRef], Decoded]
) -> Decoded:
    (ref,) = planned.files
    if planned.grid is not None:
        raise ItemError(f"{ref.source_file} lies on another grid than its sample, and rasters are not resampled yet.")
    if planned.window is None:
        return decode(files.read(ref), ref)
    opened: OpenRaster = files.keep(spec.name, ref, lambda ref: WholeRaster(decode(files.read(ref), ref)))
    return opened.read(planned.window)


def decode_rgb(data: bytes, ref: MemberRef) -> Decoded:
    """Return an 8-bit RGB raster [3,H,W].

    Stated rules: an alpha channel is dropped, a grey image repeated to three bands. Anything else is an ItemError.
    """
    kind = image_format(data, ref)
    facts = Facts()
    if kind != "tif":
        image_size(data, ref)  # refuses what claims too much
    if kind == "jpg":
        _check_end(data, ref)
    try:
        if kind == "tif":
            image, facts = _decode_tiff(data, ref)
        elif kind == "png":
            image = imagecodecs.png_decode(data)
        else:
            image = imagecodecs.jpeg8_decode(data)
    except ItemError:
        raise
    except Exception as error:
        raise ItemError(f"{ref.source_file} cannot be decoded: {_reason(error)}") from error
    if image.dtype != np.uint8:
        raise ItemError(f"{ref.source_file} has {image.dtype} pixels, expected 8-bit RGB.")
    image, rule = _three_bands(image, kind, ref)
    raster = np.ascontiguousarray(image.transpose(2, 0, 1))
    original = ("jpg", data) if kind == "jpg" and rule is None else None
    return Decoded(raster, replace(facts, rules=(rule,) if rule else ()), original)


def _check_end(data: bytes, ref: MemberRef) -> None:
    """Raise ItemError for a JPEG whose end is missing: decoders paint what is not there grey."""
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):  # the marks of end and scan cannot occur inside a scan
        raise ItemError(f"{ref.source_file} is a JPEG that is cut short: its end mark is missing.")


def decode_tiff(data: bytes, ref: MemberRef) -> Decoded:
    """Return the raster [C,H,W] of a TIFF with its bands last, first or alone."""
    try:
        image, facts = _decode_tiff(data, ref)
    except ItemError:
        raise
    except Exception as error:
        raise ItemError(f"{ref.source_file} cannot be decoded: {_reason(error)}") from error
    return Decoded(np.ascontiguousarray(image.transpose(2, 0, 1)), facts)


def tile_windows(height: int, width: int, config: BuildConfig) -> list[Window]:
    """Return the windows of square tiles over an image, row by row.

    Tiles start every `stride_px`. With `edge: shift` the last one of a row or column ends at the border, so that
    every pixel is in a tile; with `drop` what is left over is in none. Raises ItemError for an image that is smaller
    than a tile in one direction.
    """
    if height < config.tile_px or width < config.tile_px:
        raise ItemError(f"{height} x {width} px is too small for a tile of {config.tile_px} px; set tile_px lower")
    rows, columns = (_starts(length, config) for length in (height, width))
    return [(row, column, config.tile_px, config.tile_px) for row in rows for column in columns]


def _starts(length: int, config: BuildConfig) -> list[int]:
    last = length - config.tile_px
    starts = list(range(0, last + 1, config.stride_px or config.tile_px))
    if config.edge == "shift" and starts[-1] != last:
        starts.append(last)
    return starts


def _decode_tiff(data: bytes, ref: MemberRef) -> tuple[Raster, Facts]:
    """Return the image [H,W,C] of the first page and what its tags say."""
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        page = tif.pages.first
        pixels = math.prod(page.shape)
        if page.dtype is None or page.axes not in ("YX", "YXS", "SYX"):
            raise ItemError(f"{ref.source_file} has axes {page.axes or 'of no size'}, expected rows, columns, bands.")
        if pixels > 4 * MAX_PIXELS or pixels * page.dtype.itemsize > 4096 * len(data):
            raise ItemError(f"{ref.source_file} claims {page.shape} pixels in {len(data)} bytes: refused as a bomb.")
        if page.photometric not in _PHOTOMETRIC:
            raise ItemError(
                f"{ref.source_file} is a TIFF of photometric {page.photometric.name}, "
                "expected RGB, YCBCR or MINISBLACK."
            )
        if 0 in page.databytecounts:
            raise ItemError(f"{ref.source_file} has strips or tiles without data, expected pixels everywhere.")
        image = page.asarray(maxworkers=1)
        if image.shape != page.shape or not image.size:
            raise ItemError(f"{ref.source_file} claims {page.shape} pixels and holds {image.shape}.")
        if image.ndim == 2:
            image = image[..., None]
        elif page.axes.startswith("S"):  # bands stored one after another
            image = image.transpose(1, 2, 0)
        return image, Facts(read_georeference(page), _declared_nodata(page))


def _declared_nodata(page: Any) -> float | None:
    """Return the number in GDAL's tag for pixels without data, or None."""
    tag = page.tags.get("GDAL_NODATA")
    try:
        return float(str(tag.value).strip("\0 ")) if tag is not None else None
    except ValueError:
        return None


def _three_bands(image: Raster, kind: str, ref: MemberRef) -> tuple[Raster, str | None]:
    if image.ndim == 2:
        image = image[..., None]
    bands = image.shape[2]
    if bands == 3:
        return image, None
    if bands == 4 and kind != "jpg":
        return image[..., :3], "alpha channel dropped" if kind == "png" else "fourth band dropped"
    if bands in (1, 2):
        return np.repeat(image[..., :1], 3, axis=2), "grey repeated to three bands"
    raise ItemError(f"{ref.source_file} has {bands} bands, expected RGB, RGBA or grey.")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
