"""TIFF images: what their header says, the whole of a small one, windows of one that is larger than memory.

A file is somebody's claim. Every size in it is checked against the bytes that are there before anything is allocated.
Windows are read by the strips or tiles they touch; the last decoded ones are kept, as tiles of a scene follow each
other. Windows of a zip member that is stored are read without its checksum, which only all of its bytes would give.
"""

from __future__ import annotations

import logging
import math
import re
from typing import IO, Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from gfm_pipeline.errors import ItemError
from gfm_pipeline.shards.codec import Raster
from shard_builder.archives import ArchiveReader, MemberRef
from shard_builder.planned import Window
from shard_builder.rasters.georeference import Georeference, read_georeference
from shard_builder.rasters.raster import Facts

MAX_PIXELS = 2**30
"""What is decoded at once may have this many pixels at most, of up to four bands. The largest of MillionAID have
31672 x 31672."""
MAX_SCENE_PIXELS = 2**36
"""A scene that is read by windows may claim this many."""
MAX_SEGMENT_BYTES = 2**30
"""A strip or tile is decoded as a whole, however small a window of it is wanted."""
KEPT_BYTES = 2**27
"""Of decoded strips and tiles, so that the next window finds those that it shares with the last one."""
_RATIO = 4096
"""More bytes of pixels for each byte of the file are refused as a bomb."""
_ROWS_BYTES = 2**22
"""Pixels that lie in one piece are read so many bytes at a time."""

_PHOTOMETRIC = {tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR, tifffile.PHOTOMETRIC.MINISBLACK}
"""The numbers of the others (a palette, ink, inverted grey) are no intensities of bands."""

# Without a handler, what tifffile says of damaged tags goes to stderr beside the error that it leads to.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TiffHeader(NamedTuple):
    """What planning needs to know of a TIFF."""

    height: int
    width: int
    georeference: Georeference | None


def read_header(ref: MemberRef, files: ArchiveReader) -> TiffHeader:
    """Return what the first directory of a TIFF says, wherever in the file it lies; raise ItemError for no TIFF."""
    try:
        with files.open(ref) as file, _opened(file, ref) as tif:
            page = tif.pages.first
            header = TiffHeader(int(page.imagelength), int(page.imagewidth), read_georeference(page))
            bits = header.height * header.width * int(page.samplesperpixel) * int(page.bitspersample)
    except ItemError:
        raise
    except Exception as error:  # damaged tags raise types of several libraries
        raise ItemError(f"{ref.source_file} is no readable TIFF: {reason_of(error)}") from error
    pixels = header.height * header.width
    if not 0 < pixels <= MAX_SCENE_PIXELS or bits > 8 * _RATIO * ref.size:
        raise ItemError(
            f"{ref.source_file} claims {header.height} x {header.width} pixels in {ref.size} bytes: refused as a bomb."
        )
    return header


def _opened(file: IO[bytes], ref: MemberRef) -> Any:
    return tifffile.TiffFile(file, name=ref.member)  # a temporary file has no name that it could take


def reason_of(error: Exception) -> str:
    """Return what an error of a library says, on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


class TiffImage:
    """The first image of an opened TIFF file of `size` bytes; closes the file when it is closed.

    Raises ItemError for what is no image of bands, and for claims that the file cannot hold.
    """

    def __init__(self, file: IO[bytes], size: int, ref: MemberRef) -> None:
        self.ref = ref
        self._file = file
        self._size = size
        try:
            self._tif = _opened(file, ref)
            self._page: Any = self._tif.pages.first
            self._check()
            self.facts = _facts(self._page)
        except Exception as error:  # damaged tags raise types of several libraries
            file.close()
            if isinstance(error, ItemError):
                raise
            raise ItemError(f"{ref.source_file} cannot be decoded: {reason_of(error)}") from error
        page = self._page
        self._planes = page.shape[0] if page.axes == "SYX" else 1
        self._samples = page.shape[2] if page.axes == "YXS" else 1
        height, width = (page.shape[page.axes.index(axis)] for axis in "YX")
        self.shape: tuple[int, int, int] = (self._planes * self._samples, height, width)
        self.dtype: np.dtype[np.generic] = np.dtype(page.dtype)
        self._kept: dict[tuple[int, int, int], Raster] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels when they are decoded."""
        return math.prod(self.shape) * self.dtype.itemsize

    def whole(self) -> Raster:
        """Return all pixels [H,W,C]; raise ItemError for more than may be decoded at once or damaged ones."""
        page = self._page
        self._check_pixels(*self.shape)
        try:
            image: Raster = page.asarray(maxworkers=1)
        except Exception as error:  # damaged strips raise types of several libraries
            raise ItemError(f"{self.ref.source_file} cannot be decoded: {reason_of(error)}") from error
        if image.shape != page.shape or not image.size:
            raise ItemError(f"{self.ref.source_file} claims {page.shape} pixels and holds {image.shape}.")
        if image.ndim == 2:
            return image[..., None]
        return image.transpose(1, 2, 0) if page.axes == "SYX" else image  # bands stored one after another

    def read(self, window: Window) -> Raster:
        """Return the pixels [h,w,C] inside a window of the image; raise ItemError for damaged or too large strips."""
        row, column, height, width = window
        self._check_pixels(self.shape[0], height, width)
        try:
            image = np.empty((height, width, self.shape[0]), self.dtype)
            tall, wide = self._segment_size()
            for plane in range(self._planes):
                bands = slice(plane, plane + 1) if self._planes > 1 else slice(None)
                for down in range(row // tall, -(-(row + height) // tall)):
                    for right in range(column // wide, -(-(column + width) // wide)):
                        segment = self._segment(plane, down, right)
                        _paste(segment, (down * tall - row, right * wide - column), image[..., bands])
        except ItemError:
            raise
        except Exception as error:  # damaged strips raise types of several libraries
            raise ItemError(f"{self.ref.source_file} cannot be decoded: {reason_of(error)}") from error
        return image

    def close(self) -> None:
        """Close the file."""
        self._kept.clear()
        self._tif.close()
        self._file.close()

    def _check(self) -> None:
        page, where = self._page, self.ref.source_file
        if page.dtype is None or page.axes not in ("YX", "YXS", "SYX"):
            raise ItemError(f"{where} has axes {page.axes or 'of no size'}, expected rows, columns, bands.")
        if math.prod(page.shape) * page.dtype.itemsize > _RATIO * self._size:
            raise ItemError(f"{where} claims {page.shape} pixels in {self._size} bytes: refused as a bomb.")
        if page.photometric not in _PHOTOMETRIC:
            raise ItemError(
                f"{where} is a TIFF of photometric {page.photometric.name}, expected RGB, YCBCR or MINISBLACK."
            )
        if 0 in page.databytecounts:
            raise ItemError(f"{where} has strips or tiles without data, expected pixels everywhere.")

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
        if page.is_final:
            return min(height, max(1, _ROWS_BYTES // row_bytes)), width
        tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, height), width)
        size = tall * wide * self._samples * self.dtype.itemsize
        if not 0 < size <= MAX_SEGMENT_BYTES:
            raise ItemError(
                f"{self.ref.source_file} keeps its pixels in strips or tiles of {tall} x {wide} px, {size} bytes; at "
                f"most {MAX_SEGMENT_BYTES} are decoded at once. Store it in tiles, e.g. gdal_translate -co TILED=YES."
            )
        return int(tall), int(wide)

    def _segment(self, plane: int, down: int, right: int) -> Raster:
        """Return a decoded strip or tile [h,w,samples], cut to the image."""
        place = plane, down, right
        found = self._kept.pop(place, None)
        if found is None:
            found = self._rows(plane, down) if self._page.is_final else self._decode(plane, down, right)
            held = sum(segment.nbytes for segment in self._kept.values()) + found.nbytes
            while self._kept and held > KEPT_BYTES:
                held -= self._kept.pop(next(iter(self._kept))).nbytes
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

    def _decode(self, plane: int, down: int, right: int) -> Raster:
        page, (_, height, width) = self._page, self.shape
        tall, wide = self._segment_size()
        across = -(-width // wide)
        index = (plane * -(-height // tall) + down) * across + right
        count = page.databytecounts[index]
        if count > 2 * tall * wide * self._samples * self.dtype.itemsize + 2**20:
            raise ItemError(f"{self.ref.source_file} claims {count} bytes for a strip or tile of {tall} x {wide} px.")
        tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression in (6, 7) else {}
        segment, *_ = page.decode(self._bytes(page.dataoffsets[index], count), index, **tables)
        rows, columns = min(tall, height - down * tall), min(wide, width - right * wide)
        found: Raster = segment[0, :rows, :columns]
        if found.shape != (rows, columns, self._samples):
            raise ItemError(f"{self.ref.source_file} has a strip or tile of {found.shape}, expected {rows, columns}.")
        return found

    def _bytes(self, offset: int, count: int) -> bytes:
        if not 0 <= offset <= offset + count <= self._size:
            raise ItemError(f"{self.ref.source_file} is cut short: a strip or tile lies beyond its {self._size} bytes.")
        self._file.seek(offset)
        return self._file.read(count)


def _paste(segment: Raster, corner: tuple[int, int], image: NDArray[np.generic]) -> None:
    """Copy the part of `segment` that lies in `image` [h,w,C] when its corner is put at `corner`."""
    inside, taken = [], []
    for start, length, room in zip(corner, segment.shape[:2], image.shape[:2], strict=True):
        begin, end = max(start, 0), min(start + length, room)
        inside.append(slice(begin, end))
        taken.append(slice(begin - start, end - start))
    image[tuple(inside)] = segment[tuple(taken)]


def _facts(page: Any) -> Facts:
    tag = page.tags.get("GDAL_NODATA")
    text = str(tag.value).strip("\0 ") if tag is not None else None
    value = None if text is None else parse_nodata(text)
    unusable = text is not None and value is None
    return Facts(
        read_georeference(page),
        () if value is None else (value,),
        (f"nodata {text[:40]!r} is no number: not used",) if text is not None and unusable else (),
    )


_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
_NO_NUMBER = re.compile(r"[+-]?(nan|1\.#(qnan|snan|ind)\d*)(\(.*\))?", re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?(inf|infinity|1\.#inf)", re.IGNORECASE)


def parse_nodata(text: str) -> float | None:
    """Return the number that a header's text for "nothing was measured" is, an int where it is whole; None for none.

    It may be written as C libraries write what is no number or infinite, and with a comma.
    """
    if _NO_NUMBER.fullmatch(text):
        return math.nan
    if _INFINITE.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    if not _NUMBER.fullmatch(text):
        return None
    plain = text.replace(",", ".")
    return int(plain) if plain.lstrip("+-").isdecimal() else float(plain)
