"""What the metadata of an array may claim before anything is allocated or looked up for it: it comes from anywhere."""

from __future__ import annotations

import math
from typing import Any

from gfm_pipeline.errors import ItemError

MAX_LENGTH = 2**31
"""Of an axis: the pixels of a raster are counted in as many."""
MAX_CHUNK_BYTES = 2**30
"""A chunk is decoded as a whole, however small a window of it is wanted."""
MAX_CHUNKS = 2**17
"""Chunks that are looked up for one raster."""
MAX_TABLE_BYTES = 2**26
"""Of a table beside the pixels: dates, coordinates, names."""


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


def check_lookups(array: Any, lengths: tuple[int, ...], where: str) -> None:
    """Raise ItemError when reading so many positions along each axis would look up more chunks than is sensible."""
    chunks = getattr(array, "chunks", None)
    if chunks is None:
        return
    count = math.prod(length // chunk + 2 for length, chunk in zip(lengths, chunks, strict=True) if length > chunk)
    if count > MAX_CHUNKS:
        raise ItemError(f"{where} is cut into about {count} chunks, at most {MAX_CHUNKS} are looked up. Rechunk it.")


def _is_length(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool) and int(value) >= 0
