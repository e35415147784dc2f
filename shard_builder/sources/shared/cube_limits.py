"""What the metadata of an array may claim before anything is allocated or looked up for it: it comes from anywhere."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

from gfm_pipeline.errors import ItemError
from shard_builder.sources.shared.packed_size import MOST_DEFLATE, SAFE_BYTES, unpacks_to_more

MAX_LENGTH = 2**31
"""Of an axis: the pixels of a raster are counted in as many."""
MAX_CHUNK_BYTES = 2**30
"""A chunk is decoded as a whole, however small a window of it is wanted."""
MAX_CHUNKS = 2**17
"""Chunks that are looked up for one raster."""
MAX_TABLE_BYTES = 2**26
"""Of a table beside the pixels: dates, coordinates, names."""
_DEFLATE, _SZIP, _LZF = 1, 4, 32000
_PACKING = (_DEFLATE, _SZIP, _LZF)
"""The filters of HDF5 that unpack, by their numbers; others rearrange, or are not at hand."""
_SLACK = 2**16
"""Bytes; what filters add to a chunk that cannot be compressed is a share of it and less than that."""


def check_array(array: Any, where: str) -> None:
    """Raise ItemError for an array without a usable shape, or with chunks that are larger than what is decoded."""
    shape = array.shape
    if shape is None:
        raise ItemError(f"{where} has a null data space, so it holds no values.")
    if not shape:
        raise ItemError(f"{where} is a single value, expected an array.")
    if any(not _is_length(length) or length > MAX_LENGTH for length in shape):
        raise ItemError(f"{where} claims the shape {str(tuple(shape))[:120]}, at most {MAX_LENGTH} along an axis.")
    chunks = getattr(array, "chunks", None)
    if chunks is None:
        return
    if len(chunks) != len(shape) or any(not _is_length(length) or not length for length in chunks):
        raise ItemError(f"{where} claims chunks of {str(tuple(chunks))[:120]} for the shape {tuple(shape)}.")
    size = math.prod(int(length) for length in chunks) * array.dtype.itemsize
    if size > MAX_CHUNK_BYTES:
        raise ItemError(f"{where} claims chunks of {size} bytes, at most {MAX_CHUNK_BYTES} are decoded.")


def check_table(array: Any, where: str) -> None:
    """Raise ItemError for an array that is larger than a table beside the pixels can be."""
    shape = array.shape
    if shape is None or any(not _is_length(length) for length in shape):
        raise ItemError(f"{where} claims the shape {shape!r}, so it holds no values.")
    size = math.prod(int(length) for length in shape) * array.dtype.itemsize
    if size > MAX_TABLE_BYTES:
        raise ItemError(f"{where} claims {size} bytes of values, at most {MAX_TABLE_BYTES} are read.")
    if getattr(array, "chunks", None) and hasattr(array, "id"):
        check_lookups(array, shape, where)
        check_stored(array, tuple(slice(0, int(length)) for length in shape), where)


def check_lookups(array: Any, lengths: tuple[int, ...], where: str) -> None:
    """Raise ItemError when reading so many positions along each axis would look up more chunks than is sensible."""
    chunks = getattr(array, "chunks", None)
    if chunks is None:
        return
    count = math.prod(length // chunk + 2 for length, chunk in zip(lengths, chunks, strict=True) if length > chunk)
    if count > MAX_CHUNKS:
        raise ItemError(f"{where} is cut into about {count} chunks, at most {MAX_CHUNKS} are looked up. Rechunk it.")


def check_stored(array: Any, window: tuple[slice, ...], where: str, known: set[tuple[int, ...]] | None = None) -> None:
    """Raise ItemError when a chunk of an HDF5 array would become more than a chunk when it is unpacked.

    Looked at are the chunks that `window` touches, except those that are `known`, to which they are added. HDF5 gives a
    decompressor as much memory as it wants.
    """
    chunks, known = array.chunks, set() if known is None else known
    filters = _filters(array)
    packing = [number for number in filters if number in _PACKING]
    if len(packing) > 1:
        raise ItemError(f"{where} is compressed by the filters {packing}, one after the other: refused as a bomb.")
    if not filters or chunks is None:
        return
    size = math.prod(chunks) * array.dtype.itemsize
    ranges = (range(part.start - part.start % c, part.stop, c) for part, c in zip(window, chunks, strict=True))
    for corner in product(*ranges):
        if corner in known:
            continue
        known.add(corner)
        stored = array.id.get_chunk_info_by_coord(corner)
        if stored.byte_offset is None:
            continue
        more = stored.size > size + size // 64 + _SLACK
        if not more and packing and not stored.filter_mask >> filters.index(packing[0]) & 1:
            more = _unpacks_to_more(array, corner, packing[0], stored.size, size)
        if more:
            raise ItemError(f"{where} has {stored.size} bytes that unpack to more than the {size} of a chunk: refused.")


def _filters(array: Any) -> list[int]:
    settings = array.id.get_create_plist()
    return [int(settings.get_filter(i)[0]) for i in range(settings.get_nfilters())]


def _unpacks_to_more(array: Any, corner: tuple[int, ...], packing: int, stored: int, size: int) -> bool:
    if packing == _SZIP:  # the size that it allocates stands before its bytes
        return int.from_bytes(array.id.read_direct_chunk(corner)[1][:4], "little") > max(size, SAFE_BYTES)
    if packing != _DEFLATE or stored * MOST_DEFLATE <= max(size, SAFE_BYTES):
        return False
    return unpacks_to_more(array.id.read_direct_chunk(corner)[1], size, "zlib")


def _is_length(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool) and int(value) >= 0
