"""Encoded images (jpg, png, tif) to rasters, and large ones to tiles. Shared by the sources."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import replace

import imagecodecs
import numpy as np
import simplejpeg
import tifffile
from PIL import Image

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.codec import Raster
from shard_builder.archives import ArchiveReader, MemberRef
from shard_builder.config import BuildConfig
from shard_builder.planned import PlannedRaster, Window
from shard_builder.rasters.raster import Decoded, Facts, OpenRaster, Original, WholeRaster
from shard_builder.rasters.tiff import TiffImage, read_header
from shard_builder.rasters.tiff_page import MAX_PIXELS, Part, reason_of

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "tif", "tiff")
PIXELS_PER_BYTE = 2**14
"""A PNG or JPEG that claims more is a bomb: deflate makes 1032 bytes of one at most, each of eight pixels of one bit; a
JPEG spends a bit on a block of 256 pixels."""
HEAD_BYTES = 2**16
"""What the size of an image is usually found in."""
WHOLE_BYTES = 2**26
"""A TIFF with more bytes of pixels is cut to tiles by windows, a smaller one is decoded once and kept. A file with more
bytes is not read into memory."""


def extension_of(name: str) -> str:
    """Return the lower-case extension of a member name without its dot."""
    return name.rpartition(".")[2].lower() if "." in name else ""


Image.MAX_IMAGE_PIXELS = MAX_PIXELS

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
    """Return (height, width, "RGB" for a JPEG or PNG of just these bands; another word for others)."""
    kind = image_format(data, ref)
    try:
        height, width, mode = _HEADERS[kind](data)
    except Exception as error:  # every library raises its own types for bytes that are no image
        raise ItemError(f"{ref.source_file} is no readable image: {reason_of(error)}") from error
    if kind != "tif" and height * width > PIXELS_PER_BYTE * max(ref.size, len(data)):
        raise ItemError(f"{ref.source_file} claims {height} x {width} pixels in {ref.size} bytes: refused as a bomb.")
    return *_plausible(height, width, ref), mode


def _plausible(height: int, width: int, ref: MemberRef) -> tuple[int, int]:
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ItemError(f"{ref.source_file} claims {height} x {width} pixels, expected at most {MAX_PIXELS} in all.")
    return height, width


def read_size(ref: MemberRef, files: ArchiveReader) -> tuple[int, int]:
    """Return (height, width) of an image member from as few of its bytes as will do; raise ItemError for no image."""
    if ref.size > HEAD_BYTES:
        head = files.head(ref, HEAD_BYTES)
        try:
            return image_size(head, ref)
        except ItemError:  # a long comment, a TIFF whose directory comes last, or one for windows
            if image_format(head, ref) == "tif":
                return read_header(ref, files)[:2]
    return image_size(files.read(ref), ref)


def _tiff_header(data: bytes) -> tuple[int, int, str]:
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        page = tif.pages.first
        return int(page.imagelength), int(page.imagewidth), ""


def _jpeg_header(data: bytes) -> tuple[int, int, str]:
    """Read it by libjpeg-turbo, a hundred times faster than Pillow, which is asked where that finds it unusual."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, KeyError):  # KeyError: a subsampling that simplejpeg has no name for
        return _pillow_header(data)
    if struct.pack(">BHH", 8, height, width) not in data:  # as a frame of 8 bits would say; this one has 12 or 16
        return _pillow_header(data)
    return height, width, "RGB" if colours == "YCbCr" else colours


def _pillow_header(data: bytes) -> tuple[int, int, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data)) as image:
            return image.height, image.width, image.mode


_HEADERS = {"jpg": _jpeg_header, "png": _pillow_header, "tif": _tiff_header}


def load_tiff(planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
    """Return the TIFF of a planned sensor, whatever its bands, cut to its window; raise ItemError for none."""
    return _load(planned, spec, files, rgb=False)


def load_rgb(planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader) -> Decoded:
    """Return the image of a planned sensor as 8-bit RGB, cut to its window; raise ItemError for none."""
    return _load(planned, spec, files, rgb=True)


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


def _load(planned: PlannedRaster, spec: SensorSpec, files: ArchiveReader, rgb: bool) -> Decoded:
    (ref,) = planned.files
    if planned.window is None:
        return (decode_rgb if rgb else decode_tiff)(files.read(ref), ref)
    opened: OpenRaster = files.keep(spec.name, ref, lambda ref: _open(ref, files, rgb))
    assert planned.window is not None
    return opened.read(planned.window)


def _open(ref: MemberRef, files: ArchiveReader, rgb: bool) -> OpenRaster:
    """Open an image to be read by windows: in memory where it is small or no TIFF."""
    if ref.size > WHOLE_BYTES and image_format(files.head(ref, 8), ref) == "tif":
        return TiffWindows(TiffImage(files.open(ref), ref.size, ref), rgb)
    data = files.read(ref)
    if image_format(data, ref) == "tif":
        tiff = TiffImage(io.BytesIO(data), len(data), ref)
        if tiff.nbytes > WHOLE_BYTES:
            return TiffWindows(tiff, rgb)
    return WholeRaster((decode_rgb if rgb else decode_tiff)(data, ref))


class TiffWindows:
    """A TIFF of which parts are read, with the rules of `decode_rgb` or those of `decode_tiff`."""

    def __init__(self, tiff: TiffImage, rgb: bool) -> None:
        self._tiff = tiff
        self._finish = as_rgb if rgb else _as_bands
        self.shape = tiff.shape
        self.dtype = tiff.dtype
        self.facts = tiff.facts

    def read(self, window: Window) -> Decoded:
        """Return the part inside `window`; raise ItemError when it is damaged."""
        return self._finish(self._tiff.read(window), self.facts.at(*window[:2]), self._tiff.ref)

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()


def decode_rgb(data: bytes, ref: MemberRef) -> Decoded:
    """Return an 8-bit RGB raster [3,H,W].

    Stated rules: an alpha channel is dropped, a grey image repeated to three bands. Anything else is an ItemError.
    """
    kind = image_format(data, ref)
    if kind != "tif":
        image_size(data, ref)  # refuses what claims too much
    if kind == "jpg":
        _check_end(data, ref)
    if kind == "tif":
        tiff = TiffImage(io.BytesIO(data), len(data), ref)
        return as_rgb(tiff.whole(), tiff.facts, ref)
    try:
        image = imagecodecs.png_decode(data) if kind == "png" else imagecodecs.jpeg8_decode(data)
    except Exception as error:
        raise ItemError(f"{ref.source_file} cannot be decoded: {reason_of(error)}") from error
    image = image[..., None] if image.ndim == 2 else image
    alpha = image.shape[2] - 1 if kind == "png" and image.shape[2] in (2, 4) else None
    decoded = as_rgb(Part(image, None), Facts(alpha=alpha), ref, kind)
    return replace(decoded, original=("jpg", data)) if kind == "jpg" and not decoded.facts.rules else decoded


def _check_end(data: bytes, ref: MemberRef) -> None:
    """Raise ItemError for a JPEG whose end is missing: decoders paint what is not there grey."""
    end, scan = b"\xff\xd9", b"\xff\xda"  # marks that cannot occur inside a scan
    if not data.endswith(end) and data.rfind(end) < data.rfind(scan):
        raise ItemError(f"{ref.source_file} is a JPEG that is cut short: its end mark is missing.")


def decode_tiff(data: bytes, ref: MemberRef) -> Decoded:
    """Return the raster [C,H,W] of a TIFF with its bands last, first or alone."""
    tiff = TiffImage(io.BytesIO(data), len(data), ref)
    return _as_bands(tiff.whole(), tiff.facts, ref)


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


def _as_bands(image: Part, facts: Facts, ref: MemberRef) -> Decoded:
    mask = None if image.mask is None else image.mask.transpose(2, 0, 1)
    return Decoded(np.ascontiguousarray(image.pixels.transpose(2, 0, 1)), facts, None, mask)


def as_rgb(image: Part, facts: Facts, ref: MemberRef, kind: str = "tif") -> Decoded:
    """Return the pixels of an image as 8-bit RGB by the rules of `decode_rgb`; raise ItemError for others."""
    pixels, mask = image
    if pixels.dtype != np.uint8 or facts.photometric:
        found = f"photometric {facts.photometric}" if facts.photometric else f"{pixels.dtype} pixels"
        raise ItemError(f"{ref.source_file} has {found}, expected 8-bit RGB.")
    if facts.pages > 1:
        raise ItemError(f"{ref.source_file} has {facts.pages} images of one size, expected one in RGB.")
    if facts.alpha is not None:
        opaque = pixels[..., facts.alpha : facts.alpha + 1] != 0
        if not opaque.all():
            mask = opaque if mask is None else mask & opaque
    raster, rule = _three_bands(pixels, kind, facts.alpha, ref)
    together = None if mask is None else np.logical_and.reduce(mask, axis=2)
    rules = (*facts.rules, rule) if rule else facts.rules
    nodata = facts.nodata if len(facts.nodata) < 2 else facts.nodata[:3]
    facts = replace(facts, rules=rules, nodata=nodata, alpha=None, bands=facts.bands[:3])
    return Decoded(np.ascontiguousarray(raster.transpose(2, 0, 1)), facts, None, together)


def _three_bands(image: Raster, kind: str, alpha: int | None, ref: MemberRef) -> tuple[Raster, str | None]:
    bands = image.shape[2]
    if bands == 3 and alpha is None:
        return image, None
    if bands == 4 and kind != "jpg" and alpha in (None, 3):
        return image[..., :3], "fourth band dropped" if alpha is None else "alpha channel dropped"
    if bands in (1, 2) and alpha in (None, 1):
        return np.repeat(image[..., :1], 3, axis=2), "grey repeated to three bands"
    raise ItemError(f"{ref.source_file} has {bands} bands, expected RGB, RGBA or grey.")
