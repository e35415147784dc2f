"""How large a compressed chunk becomes, before it is: decompressors allocate what a chunk says or holds."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from gfm_pipeline.errors import ItemError

SAFE_BYTES = 2**26
"""Whatever it says of itself, a chunk that cannot become larger than this is left to its decompressor."""
COMPRESSORS = frozenset({"blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"})
"""The codecs of zarr that make bytes of fewer bytes, by their names in both formats of its metadata."""
MOST_DEFLATE = 1032
"""Deflate makes at most so many bytes of one."""
_MOST_LZMA = 7100
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK = 2**17
"""What a block of a zstd frame unpacks to at most."""


def unpacks_to_more(data: bytes, most: int, codec: str | None = None) -> bool:
    """Return whether compressed bytes would become more than `most` bytes, judging by how they begin.

    `codec` is the one of COMPRESSORS that will unpack them, where that is known; else blosc, zstd, gzip, zlib, bzip2,
    xz and lzma are known by their first bytes, and bytes that are none of these are taken for plain ones.
    """
    most = max(most, SAFE_BYTES)
    codec = codec or _codec_of(data)
    if codec == "zstd":
        return _zstd(data, most)
    if codec == "blosc":  # a header with both sizes
        return int.from_bytes(data[4:8], "little") > most
    if codec == "lz4":  # as numcodecs writes it: the size, and one block
        return int.from_bytes(data[:4], "little") > most
    if codec in ("gzip", "zlib"):
        return len(data) * MOST_DEFLATE > most and _trial(lambda: zlib.decompressobj(47), data, most)
    if codec == "bz2":
        return _trial(bz2.BZ2Decompressor, data, most)
    if codec == "lzma":
        if _codec_of(data) != "lzma":  # a stream without a header, of filters that only its metadata name
            return len(data) * _MOST_LZMA > most
        return _trial(lambda: lzma.LZMADecompressor(memlimit=2**28), data, most)
    return False


def compressor_of(codecs: Iterable[Any], where: str) -> str | None:
    """Return the one compressor among the codecs of an array, as its metadata (of zarr 2 or 3) list them.

    Raises ItemError for more than one: what such a chunk becomes cannot be known before it is unpacked.
    """
    found: list[str] = []
    inner: str | None = None
    for codec in codecs:
        if not isinstance(codec, dict):
            continue
        name = str(codec.get("id") or codec.get("name")).removeprefix("numcodecs.")
        if name in COMPRESSORS:
            found.append(name)
        parts = codec.get("configuration")
        if name == "sharding_indexed" and isinstance(parts, dict) and isinstance(parts.get("codecs"), Iterable):
            inner = compressor_of(parts["codecs"], where)
    found += [inner] if inner else []
    if len(found) > 1:
        raise ItemError(f"{where} is compressed by {' and '.join(found)}, one after the other: refused as a bomb.")
    return found[0] if found else None


def _codec_of(data: bytes) -> str | None:
    if data[:4] == _ZSTD_MAGIC or _is_skippable(data[:4]):
        return "zstd"
    if len(data) >= 16 and data[0] in (2, 3, 4, 5) and int.from_bytes(data[12:16], "little") == len(data):
        return "blosc"
    if data[:2] == b"\x1f\x8b" or (data[:1] == b"\x78" and len(data) > 1 and int.from_bytes(data[:2], "big") % 31 == 0):
        return "zlib"
    if data[:3] == b"BZh":
        return "bz2"
    return "lzma" if data[:6] == b"\xfd7zXZ\x00" or data[:3] == b"\x5d\x00\x00" else None


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


def _is_skippable(magic: bytes) -> bool:
    return magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5


def _zstd(data: bytes, most: int) -> bool:
    """Return what the headers of the frames say; of frames that say nothing, what their blocks can hold, or do."""
    at, total, unsaid = 0, 0, False
    while at < len(data):
        if _is_skippable(data[at : at + 4]):
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            continue
        if data[at : at + 4] != _ZSTD_MAGIC or at + 4 >= len(data):
            break  # its decompressor says what is wrong
        flag = data[at + 4]
        single, size_code = flag >> 5 & 1, flag >> 6
        start = at + 5 + (1 - single) + (0, 1, 2, 4)[flag & 3]
        length = (single, 2, 4, 8)[size_code]
        declared = int.from_bytes(data[start : start + length], "little") + (256 if length == 2 else 0)
        at, blocks = _frame_end(data, start + length)
        at += 4 if flag >> 2 & 1 else 0
        unsaid |= not length
        total += declared if length else blocks * _ZSTD_BLOCK
        if total > most:
            return not unsaid or _holds_more(data, most)
    return False


def _frame_end(data: bytes, at: int) -> tuple[int, int]:
    """Return where the blocks of a frame end that begin at `at`, and how many they are."""
    blocks = 0
    while at + 3 <= len(data):
        header = int.from_bytes(data[at : at + 3], "little")
        at += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)  # one byte that is repeated, or as many as it says
        blocks += 1
        if header & 1:
            break
    return at, blocks


def _holds_more(data: bytes, most: int) -> bool:
    import imagecodecs

    try:
        imagecodecs.zstd_decode(data, out=bytearray(most))
    except Exception:  # too large, or damaged
        return True
    return False
