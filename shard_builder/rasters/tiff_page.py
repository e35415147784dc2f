"""One image (page) of a TIFF file: all of it, or windows by the strips or tiles that they touch.

The last decoded strips and tiles are kept, as tiles of a scene follow each other. Those without bytes (GDAL's sparse
files) are read as GDAL does it: the declared nodata value, or 0.
"""

from __future__ import annotations

import math
import zlib
from typing import IO, Any, NamedTuple

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from gfm_pipeline.errors import ItemError
from gfm_pipeline.sensors.missing import holds
from gfm_pipeline.shards.codec import Raster
from shard_builder.archives import MemberRef
from shard_builder.planned import Window

MAX_PIXELS = 2**30
"""What is decoded at once may have this many pixels at most, of up to four bands. The largest of MillionAID have
31672 x 31672."""
MAX_SEGMENT_BYTES = 2**30
"""A strip or tile is decoded as a whole, however small a window of it is wanted."""
KEPT_BYTES = 2**27
"""Of decoded strips and tiles, so that the next window finds those that it shares with the last one."""
RATIO = 4096
"""More bytes of pixels for each byte of the file are refused as a bomb."""
_ROWS_BYTES = 2**22
"""Pixels that lie in one piece are read so many bytes at a time."""
_LERC = 34887
"""The code of the compression that has a mask of its own in every strip or tile."""

_PHOTOMETRIC = {
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.YCBCR,
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.PALETTE,
    tifffile.PHOTOMETRIC.MASK,
}
"""The numbers of the others are inks, or colours of another space."""


class Part(NamedTuple):
    """Pixels of a TIFF, and which of them were measured."""

    pixels: Raster
    """[h,w,C]."""
    mask: NDArray[np.bool_] | None
    """[h,w,C] or [h,w,1], True where something was measured; None where nothing says otherwise."""


class _Segment(NamedTuple):
    pixels: Raster
    mask: NDArray[np.bool_] | None


class TiffPage:
    """One page of an opened TIFF file of `size` bytes.

    Raises ItemError for what is no image of bands, and for claims that the file cannot hold.
    """

    def __init__(self, page: Any, file: IO[bytes], size: int, ref: MemberRef, fill: float | None) -> None:
        """`fill` is what the pixels of strips and tiles without bytes are, where their type can be it; else 0."""
        self._page = page
        self._file = file
        self._size = size
        self.ref = ref
        self._check()
        self._planes = page.shape[0] if page.axes == "SYX" else 1
        self._samples = page.shape[2] if page.axes == "YXS" else 1
        height, width = (page.shape[page.axes.index(axis)] for axis in "YX")
        self.shape: tuple[int, int, int] = (self._planes * self._samples, height, width)
        self.dtype: np.dtype[np.generic] = np.dtype(page.dtype)
        self._fill = fill if fill is not None and holds(self.dtype, fill) else 0
        self._sparse = any(self._is_absent(i) for i in range(len(page.databytecounts)))
        self._kept: dict[tuple[int, int, int], _Segment] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels when they are decoded."""
        return math.prod(self.shape) * self.dtype.itemsize

    def whole(self) -> Part:
        """Return all pixels; raise ItemError for more than may be decoded at once or damaged ones."""
        page = self._page
        if self._sparse or page.compression == _LERC:
            return self.read((0, 0, *self.shape[1:]))
        self._check_pixels(*self.shape)
        try:
            image: Raster = page.asarray(maxworkers=1)
        except Exception as error:  # damaged strips raise types of several libraries
            raise ItemError(f"{self.ref.source_file} cannot be decoded: {reason_of(error)}") from error
        if image.shape != page.shape or not image.size:
            raise ItemError(f"{self.ref.source_file} claims {page.shape} pixels and holds {image.shape}.")
        if image.ndim == 2:
            return Part(image[..., None], None)
        return Part(image.transpose(1, 2, 0) if page.axes == "SYX" else image, None)  # bands one after another

    def read(self, window: Window) -> Part:
        """Return the pixels inside a window of the image; raise ItemError for damaged or too large strips."""
        row, column, height, width = window
        self._check_pixels(self.shape[0], height, width)
        try:
            image = np.empty((height, width, self.shape[0]), self.dtype)
            mask: NDArray[np.bool_] | None = None
            tall, wide = self._segment_size()
            for plane in range(self._planes):
                bands = slice(plane, plane + 1) if self._planes > 1 else slice(None)
                for down in range(row // tall, -(-(row + height) // tall)):
                    for right in range(column // wide, -(-(column + width) // wide)):
                        segment, corner = self._segment(plane, down, right), (down * tall - row, right * wide - column)
                        _paste(segment.pixels, corner, image[..., bands])
                        if segment.mask is not None:
                            mask = np.ones(image.shape, np.bool_) if mask is None else mask
                            _paste(segment.mask, corner, mask[..., bands])
        except ItemError:
            raise
        except Exception as error:  # damaged strips raise types of several libraries
            raise ItemError(f"{self.ref.source_file} cannot be decoded: {reason_of(error)}") from error
        return Part(image, mask)

    def close(self) -> None:
        """Forget what was decoded."""
        self._kept.clear()

    def _check(self) -> None:
        page, where = self._page, self.ref.source_file
        if page.dtype is None or page.axes not in ("YX", "YXS", "SYX"):
            raise ItemError(f"{where} has axes {page.axes or 'of no size'}, expected rows, columns, bands.")
        if math.prod(page.shape) * page.dtype.itemsize > RATIO * self._size:
            raise ItemError(f"{where} claims {page.shape} pixels in {self._size} bytes: refused as a bomb.")
        if page.photometric not in _PHOTOMETRIC:
            raise ItemError(
                f"{where} is a TIFF of photometric {page.photometric.name}, expected RGB, YCBCR, MINISBLACK or PALETTE."
            )
        if any(not count and not self._is_absent(i) for i, count in enumerate(page.databytecounts)):
            raise ItemError(f"{where} has strips or tiles without data, expected pixels everywhere.")

    def _is_absent(self, index: int) -> bool:
        """Return whether a strip or tile was never written, which sparse files say by zeros."""
        return not self._page.databytecounts[index] and not self._page.dataoffsets[index]

    def _check_pixels(self, channels: int, height: int, width: int) -> None:
        if channels * height * width > 4 * MAX_PIXELS:
            raise ItemError(
                f"{self.ref.source_file} claims {channels} x {height} x {width} pixels, at most {4 * MAX_PIXELS} are "
                "decoded at once. Cut it to tiles."
            )

    def _segment_size(self) -> tuple[int, int]:
        """Return the rows and columns that are read at once; raise ItemError for a strip or tile beyond the bound."""
        page, (_, height, width) = self._page, self.shape
        row_bytes = width * self._samples * self.dtype.itemsize
        if self._is_plain():
            return min(height, max(1, _ROWS_BYTES // row_bytes)), width
        tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, height), width)
        size = tall * wide * self._samples * self.dtype.itemsize
        if not 0 < size <= MAX_SEGMENT_BYTES:
            raise ItemError(
                f"{self.ref.source_file} keeps its pixels in strips or tiles of {tall} x {wide} px, {size} bytes; at "
                f"most {MAX_SEGMENT_BYTES} are decoded at once. Store it in tiles, e.g. gdal_translate -co TILED=YES."
            )
        return int(tall), int(wide)

    def _is_plain(self) -> bool:
        """Return whether the pixels lie in the file in one piece, as they are."""
        return bool(self._page.is_final) and not self._sparse

    def _segment(self, plane: int, down: int, right: int) -> _Segment:
        """Return a decoded strip or tile [h,w,samples], cut to the image."""
        place = plane, down, right
        found = self._kept.pop(place, None)
        if found is None:
            plain = self._is_plain()
            found = _Segment(self._rows(plane, down), None) if plain else self._decode(plane, down, right)
            held = sum(segment.pixels.nbytes for segment in self._kept.values()) + found.pixels.nbytes
            while self._kept and held > KEPT_BYTES:
                held -= self._kept.pop(next(iter(self._kept))).pixels.nbytes
        self._kept[place] = found  # last, as the latest in use
        return found

    def _rows(self, plane: int, down: int) -> Raster:
        """Return rows of an image that lies in the file as it is."""
        page, (_, height, width) = self._page, self.shape
        tall, _ = self._segment_size()
        rows = min(tall, height - down * tall)
        row_bytes = width * self._samples * self.dtype.itemsize
        data = self._bytes(page.dataoffsets[0] + (plane * height + down * tall) * row_bytes, rows * row_bytes)
        stored = np.frombuffer(data, self.dtype.newbyteorder(page.parent.byteorder))
        return stored.reshape(rows, width, self._samples)

    def _decode(self, plane: int, down: int, right: int) -> _Segment:
        page, (_, height, width) = self._page, self.shape
        tall, wide = self._segment_size()
        across = -(-width // wide)
        index = (plane * -(-height // tall) + down) * across + right
        count = page.databytecounts[index]
        rows, columns = min(tall, height - down * tall), min(wide, width - right * wide)
        if self._is_absent(index):
            return _Segment(np.full((rows, columns, self._samples), self._fill, self.dtype), None)
        if count > 2 * tall * wide * self._samples * self.dtype.itemsize + 2**20:
            raise ItemError(f"{self.ref.source_file} claims {count} bytes for a strip or tile of {tall} x {wide} px.")
        tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression in (6, 7) else {}
        data = self._bytes(page.dataoffsets[index], count)
        mask = None
        if page.compression == _LERC:
            segment, mask = self._lerc(data)
        else:
            segment = page.decode(data, index, **tables)[0][0]
        found: Raster = segment[:rows, :columns]
        if found.shape != (rows, columns, self._samples):
            raise ItemError(f"{self.ref.source_file} has a strip or tile of {found.shape}, expected {rows, columns}.")
        return _Segment(found, None if mask is None else mask[:rows, :columns])

    def _lerc(self, data: bytes) -> tuple[Raster, NDArray[np.bool_] | None]:
        """Return a strip or tile [h,w,samples], and its mask where it has one."""
        tag = self._page.tags.get("LercParameters")
        inner = tag.value[1] if tag is not None and len(tag.value) > 1 else 0
        if inner not in (0, 1, 2):
            raise ItemError(f"{self.ref.source_file} has LERC inside compression {inner}, expected 0, 1 or 2.")
        if inner:
            tall, wide = self._segment_size()
            room = 2 * tall * wide * self._samples * self.dtype.itemsize + 2**20
            if inner == 1:
                data = zlib.decompressobj().decompress(data, room)
            else:
                data = bytes(imagecodecs.zstd_decode(data, out=room))
        pixels, mask = imagecodecs.lerc_decode(data, masks=True)
        if pixels.ndim == 3 and len(pixels) == self._samples and pixels.shape[2] != self._samples:
            pixels = pixels.transpose(1, 2, 0)
            mask = mask.transpose(1, 2, 0) if mask is not None and mask.ndim == 3 else mask
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if pixels.shape[2] == self._samples - 1 and self._page.extrasamples:  # GDAL writes an alpha band as the mask
            flat = np.ones(pixels.shape[:2], np.bool_) if mask is None else mask.reshape(*pixels.shape[:2], -1)[..., 0]
            return np.dstack([pixels, np.where(flat, 255, 0).astype(pixels.dtype)]), None
        if mask is None or mask.all():
            return pixels, None
        return pixels, np.broadcast_to(mask.reshape(*mask.shape[:2], -1), pixels.shape).astype(np.bool_)

    def _bytes(self, offset: int, count: int) -> bytes:
        if not 0 <= offset <= offset + count <= self._size:
            raise ItemError(f"{self.ref.source_file} is cut short: a strip or tile lies beyond its {self._size} bytes.")
        self._file.seek(offset)
        return self._file.read(count)


def reason_of(error: Exception) -> str:
    """Return what an error of a library says, on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _paste(segment: NDArray[Any], corner: tuple[int, int], image: NDArray[Any]) -> None:
    """Copy the part of `segment` that lies in `image` [h,w,C] when its corner is put at `corner`."""
    inside, taken = [], []
    for start, length, room in zip(corner, segment.shape[:2], image.shape[:2], strict=True):
        begin, end = max(start, 0), min(start + length, room)
        inside.append(slice(begin, end))
        taken.append(slice(begin - start, end - start))
    image[tuple(inside)] = segment[tuple(taken)]
