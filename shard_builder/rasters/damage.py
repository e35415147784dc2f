"""Damage that GDAL passes over, which would be wrong numbers.

GDAL does not compare the checksums of a TIFF's strips and tiles, and fills what ends early, in a PNG too. What the
readers of patches refuse is refused here, before GDAL decodes it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO, Any, Protocol

import tifffile

from gfm_pipeline.errors import ItemError
from shard_builder.archives import MemberRef
from shard_builder.planned import Window
from shard_builder.rasters.tiff_page import reason_of

_UNCHECKED = {
    tifffile.COMPRESSION.ADOBE_DEFLATE,
    tifffile.COMPRESSION.DEFLATE,
    tifffile.COMPRESSION.LZW,
    tifffile.COMPRESSION.PACKBITS,
    tifffile.COMPRESSION.LZMA,
    tifffile.COMPRESSION.ZSTD,
}
"""Compressions of which GDAL passes over damage. LERC is checked by what decodes it."""
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_CHUNK = 2**20
_SLACK = 2**20
"""Bytes by which a strip may be longer than twice its pixels."""


class Damage(Protocol):
    """Looks for damage in an opened file."""

    def check(self, window: Window) -> None:
        """Raise ItemError where what a window needs is damaged; each part is looked at once."""


def damage_of(driver: str, file: IO[bytes], size: int, ref: MemberRef) -> Damage:
    """Return what looks for damage in a file of `size` bytes that GDAL reads with `driver`."""
    return _Segments(file, size, ref) if driver == "GTiff" else _Stream(driver, file, size, ref)


class _Stream:
    """A PNG, whose checksums and end are to be there, or a JPEG or JPEG 2000, whose end is; they are looked at once."""

    def __init__(self, driver: str, file: IO[bytes], size: int, ref: MemberRef) -> None:
        self._look = {"PNG": _png_trouble, "JP2OpenJPEG": _jp2_trouble, "JPEG": _jpeg_trouble}.get(driver)
        self._file, self._size, self._ref = file, size, ref

    def check(self, window: Window) -> None:
        trouble = self._look(self._file, self._size) if self._look else None
        if trouble:
            raise ItemError(f"{self._ref.source_file} is damaged: {trouble}. Copy or download the file again.")
        self._look = None


def _png_trouble(file: IO[bytes], size: int) -> str | None:
    at = len(b"\x89PNG\r\n\x1a\n")
    while at < size:
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[:4], "big")
        if at + length + 12 > size:
            break
        crc = zlib.crc32(head[4:])
        for start in range(0, length, _CHUNK):
            crc = zlib.crc32(file.read(min(_CHUNK, length - start)), crc)
        if file.read(4) != crc.to_bytes(4, "big"):
            return f"the checksum of its part at byte {at} is another one"
        if head[4:] == b"IEND":
            return None
        at += length + 12
    return "its end is missing"


def _jpeg_trouble(file: IO[bytes], size: int) -> str | None:
    """Return what is wrong with the end of a JPEG; after it there may be anything."""
    for end in range(size, 0, -_CHUNK):
        start = max(0, end - _CHUNK)
        file.seek(start)
        part = file.read(end - start + 1)  # one more, where a mark may lie across
        if _JPEG_END in part or _JPEG_SCAN in part:
            return None if part.rfind(_JPEG_END) > part.rfind(_JPEG_SCAN) else "its end is missing"
    return "its end is missing"


def _jp2_trouble(file: IO[bytes], size: int) -> str | None:
    """Return what is wrong with the end of a code stream: of the file, or of the box that holds it."""
    file.seek(0)
    at, end = 0, size
    bare = file.read(2) == b"\xff\x4f"
    while not bare and at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:], "big") if length == 1 else length or size - at
        if head[4:8] == b"jp2c":
            end = at + length
            break
        at += max(length, 8)
    if end > size:
        return "its end is missing"
    file.seek(max(0, end - 2))
    return None if file.read(2) == _JPEG_END else "the end of its code stream is missing"


class _Segments:
    """The strips and tiles of an opened TIFF file of `size` bytes, of its first image and of the mask of that."""

    def __init__(self, file: IO[bytes], size: int, ref: MemberRef) -> None:
        file.seek(0)
        with tifffile.TiffFile(file, name=ref.member) as tif:
            first = tif.pages.first
            self._pages = [_Page(first, file, size, ref)]
            for page in _masks(tif, first):
                self._pages.append(_Page(page, file, size, ref))

    def check(self, window: Window) -> None:
        for page in self._pages:
            page.check(window)


def _masks(tif: Any, first: Any) -> Iterator[Any]:
    """Yield the masks of the first image: of its size, and of no overview."""
    size = (first.imagelength, first.imagewidth)
    for page in tif.pages[1:]:
        kind = int(page.subfiletype or 0)
        if kind & 4 and not kind & 1 and (page.imagelength, page.imagewidth) == size:
            yield page


class _Page:
    def __init__(self, page: Any, file: IO[bytes], size: int, ref: MemberRef) -> None:
        self._file = file
        self._size = size
        self._ref = ref
        self._looked_at: set[int] = set()
        self._offsets, self._counts = tuple(page.dataoffsets), tuple(page.databytecounts)
        self._is_jpeg = page.compression == tifffile.COMPRESSION.JPEG
        self._decode = page.decode if page.compression in _UNCHECKED else None
        if self._decode is not None and self._decode.__name__.startswith("decode_raise"):
            self._decode = None  # tifffile has no decoder for pixels of this kind: all strips would fail
        height, width = int(page.imagelength), int(page.imagewidth)
        tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, height), width)
        self._segment = int(tall), int(wide)
        self._across, self._down = -(-width // int(wide)), -(-height // int(tall))
        self._planes = int(page.samplesperpixel) if int(page.planarconfig) == 2 else 1
        samples = int(page.samplesperpixel) // self._planes
        self._most = 2 * (int(tall) * int(wide) * samples * int(page.bitspersample) // 8) + _SLACK

    def check(self, window: Window) -> None:
        if self._decode is None and not self._is_jpeg:
            return
        row, column, height, width = window
        tall, wide = self._segment
        for plane in range(self._planes):
            for down in range(row // tall, -(-(row + height) // tall)):
                for right in range(column // wide, -(-(column + width) // wide)):
                    self._look_at((plane * self._down + down) * self._across + right)

    def _look_at(self, index: int) -> None:
        if index in self._looked_at or index >= len(self._counts) or not self._counts[index]:
            return  # GDAL itself refuses what is not listed, and what lies nowhere is nodata
        where = f"strip or tile {index} of {self._ref.source_file}"
        offset, count = self._offsets[index], self._counts[index]
        if count > self._most or offset + count > self._size:
            raise ItemError(f"{where} claims {count} bytes at {offset} of a file of {self._size}: it is damaged.")
        self._file.seek(offset)
        data = self._file.read(count)
        if self._is_jpeg and data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN):
            raise ItemError(f"{where} is damaged: a JPEG without its end. Copy or download the file again.")
        try:
            if self._decode is not None:
                self._decode(data, index)
        except Exception as error:  # damaged strips raise types of several libraries
            raise ItemError(f"{where} is damaged: {reason_of(error)}. Copy or download the file again.") from error
        self._looked_at.add(index)
