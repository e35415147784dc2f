"""How large a compressed chunk becomes, before it is: decompressors allocate what a chunk says or holds."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

SAFE_BYTES = 2**26
"""Whatever it says of itself, a chunk that cannot become larger than this is left to its decompressor."""
_MOST_DEFLATE = 1032
"""Deflate makes at most so many bytes of one."""


def unpacks_to_more(data: bytes, most: int) -> bool:
    """Return whether compressed bytes would become more than `most` bytes, judging by how they begin.

    Known are blosc, zstd, gzip, zlib, bzip2, xz and lzma; bytes that are none of these are taken for plain ones.
    """
    most = max(most, SAFE_BYTES)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return _zstd(data, most)
    if len(data) >= 16 and data[0] in (2, 3, 4, 5) and int.from_bytes(data[12:16], "little") == len(data):
        return int.from_bytes(data[4:8], "little") > most  # blosc: a header with both sizes
    if data[:2] == b"\x1f\x8b" or (data[:1] == b"\x78" and len(data) > 1 and int.from_bytes(data[:2], "big") % 31 == 0):
        return len(data) * _MOST_DEFLATE > most and _trial(lambda: zlib.decompressobj(47), data, most)
    if data[:3] == b"BZh":
        return _trial(bz2.BZ2Decompressor, data, most)
    if data[:6] == b"\xfd7zXZ\x00" or data[:3] == b"\x5d\x00\x00":
        return _trial(lambda: lzma.LZMADecompressor(memlimit=2**28), data, most)
    return False


def _trial(start: Callable[[], Any], data: bytes, most: int) -> bool:
    """Decompress piece by piece, keeping nothing, until the end or `most` bytes; one stream may follow another."""
    total = 0
    try:
        while data and total <= most:
            engine, piece = start(), data
            while not engine.eof and total <= most:
                made = len(engine.decompress(piece, 2**20))
                total += made
                piece = getattr(engine, "unconsumed_tail", b"")
                if not made and not piece:
                    return False  # cut short: its decompressor says so
            data = engine.unused_data if engine.eof else b""
    except (zlib.error, OSError, EOFError, lzma.LZMAError, ValueError):
        return total > most  # not what it looked like, or damaged: its decompressor says so
    return total > most


def _zstd(data: bytes, most: int) -> bool:
    """Return what the header of the first frame says; of a frame that says nothing, what it holds."""
    flag = data[4] if len(data) > 4 else 0
    single, size_code = flag >> 5 & 1, flag >> 6
    if not (single or size_code):
        import imagecodecs

        try:
            imagecodecs.zstd_decode(data, out=bytearray(most))
        except Exception:  # too large, or damaged
            return True
        return False
    start = 5 + (1 - single) + (0, 1, 2, 4)[flag & 3]
    length = (1, 2, 4, 8)[size_code]
    declared = int.from_bytes(data[start : start + length], "little") + (256 if length == 2 else 0)
    return declared > most
