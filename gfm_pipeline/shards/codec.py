"""How one raster becomes the bytes of one tar member, and back.

The extension of a member names its codec. All are readable with public libraries: `npy` with numpy, `tif` with
tifffile, GDAL or QGIS, `jpg` with any image library, `jxl` with any JPEG XL library, `blosc2` with
`imagecodecs.blosc2_decode`, whose result is the C-ordered array described by `dtype` and `shape` in the sample's own
json member. No codec unpickles anything.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, TypeVar

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ShardError, nearest
from gfm_pipeline.shards.jxl import JXL_DTYPES, decode_jxl, encode_jxl
from gfm_pipeline.shards.tif import decode_tif, encode_tif

Raster = NDArray[np.generic]
"""A raster [C,H,W] or a series [T,C,H,W]."""


Encoded = bytes | memoryview
"""Contiguous bytes of a member."""
Room = Callable[[int], NDArray[np.uint8]]
"""Gives a buffer of so many bytes to decode into."""
R = TypeVar("R")
Window = tuple[int, int, int, int]
"""(row, column, height, width) in pixels."""


@dataclass(frozen=True)
class Codec:
    """A pair of pure functions between a raster and the bytes of a member."""

    encode: Callable[[Raster], bytes]
    decode: Callable[[Encoded, np.dtype[np.generic], tuple[int, ...]], Raster]
    decode_rows: Callable[[Encoded, np.dtype[np.generic], tuple[int, ...], tuple[int, int]], Raster] | None = None
    """Decodes only rows [first, last), where the encoding allows it."""
    decode_into: Callable[[Encoded, NDArray[np.uint8]], None] | None = None
    """Fills a buffer with the C-ordered pixels, where the encoding holds nothing else."""
    dtypes: tuple[str, ...] | None = None
    """Types that it holds without loss; None for all."""


def encode(raster: Raster, encoding: str) -> bytes:
    """Return `raster` [.., C,H,W] as the bytes of a member; the same raster always gives the same bytes.

    `encoding` is one of ENCODINGS: a codec's extension, or a variant of one.
    """
    if encoding not in ENCODINGS:
        raise ShardError(f"no encoding '{encoding}'. {nearest(encoding, ENCODINGS)}")
    return ENCODINGS[encoding][1](np.ascontiguousarray(raster))


def decode_window(data: Encoded, extension: str, dtype: str, shape: tuple[int, ...], window: Window) -> Raster:
    """Return the part of a member's raster inside `window`, decoding no more than the encoding makes necessary.

    Raises ShardError when the bytes do not hold an array of `dtype` and `shape`, or the window leaves it.
    """
    row, column, height, width = window
    if min(window) < 0 or row + height > shape[-2] or column + width > shape[-1]:
        raise ShardError(f"window {window} leaves a raster of {shape[-2]} x {shape[-1]} pixels.")
    some_rows = _codec(extension).decode_rows
    if some_rows is None or not height:
        rows = decode(data, extension, dtype, shape)[..., row : row + height, :]
    else:
        rows = _guarded(extension, data, lambda: some_rows(data, np.dtype(dtype), shape, (row, row + height)))
    return np.ascontiguousarray(rows[..., column : column + width])


def decode(data: Encoded, extension: str, dtype: str, shape: tuple[int, ...], room: Room | None = None) -> Raster:
    """Return the raster of a member as an array of exactly `dtype` and `shape`, not to be written to.

    It may be a view of `data`, or of the buffer that `room` gives. Raises ShardError when the bytes do not hold such an
    array.
    """
    codec, kind = _codec(extension), np.dtype(dtype)
    fill = codec.decode_into
    if fill is not None and room is not None:
        out = room(math.prod(shape) * kind.itemsize)
        _guarded(extension, data, lambda: fill(data, out))
        return out.view(kind).reshape(shape)
    raster = _guarded(extension, data, lambda: codec.decode(data, kind, shape))
    if raster.shape != shape or raster.dtype != np.dtype(dtype):
        raise ShardError(
            f"decoded {extension} holds {raster.dtype}{list(raster.shape)}, the record says {dtype}{list(shape)}."
        )
    return raster


def _guarded(extension: str, data: Encoded, action: Callable[[], R]) -> R:
    try:
        return action()
    except ShardError:
        raise
    except Exception as error:  # codecs raise their own types: all of them mean damaged bytes
        raise ShardError(f"cannot decode {len(data)} bytes as {extension}: {error}") from error


def _codec(extension: str) -> Codec:
    if extension not in CODECS:
        raise ShardError(f"no codec for members of type '{extension}'. {nearest(extension, CODECS)}")
    return CODECS[extension]


def _blosc2_encode(raster: Raster, compressor: Literal["zstd", "lz4hc"] = "zstd") -> bytes:
    encode_any: Any = imagecodecs.blosc2_encode  # takes every buffer, its annotations name a few
    return bytes(
        encode_any(
            raster.reshape(-1).view(np.uint8),
            level=1,
            compressor=compressor,
            shuffle="shuffle",
            typesize=raster.dtype.itemsize,
            numthreads=1,
        )
    )


def _blosc2_decode(data: Encoded, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Raster:
    out = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
    _blosc2_decode_into(data, out)
    return out.view(dtype).reshape(shape)


def _blosc2_decode_into(data: Encoded, out: NDArray[np.uint8]) -> None:
    # The output buffer has the recorded size, so bytes that claim more cannot allocate more.
    decode_any: Any = imagecodecs.blosc2_decode  # takes every buffer, its annotations name a few
    decoded = decode_any(data, numthreads=1, out=out)
    if len(decoded) != len(out):
        raise ShardError(f"blosc2 member holds {len(decoded)} bytes, the record says {len(out)}.")


def _npy_encode(raster: Raster) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, raster, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _npy_decode(data: Encoded, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Raster:
    start = _npy_start(bytes(data[: _npy_header_bytes(data)]), dtype, shape)
    return np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape)


def _npy_decode_rows(
    data: Encoded, dtype: np.dtype[np.generic], shape: tuple[int, ...], rows: tuple[int, int]
) -> Raster:
    return _npy_decode(data, dtype, shape)[..., rows[0] : rows[1], :]  # a view: nothing else is touched


def _npy_header_bytes(data: Encoded) -> int:
    """Return the length of magic, version, length and header of an npy member of format 1.0."""
    return 10 + int.from_bytes(data[8:10], "little")


@lru_cache(maxsize=256)  # a collection has a handful of different headers, and parsing one takes longer than a crop
def _npy_start(head: bytes, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> int:
    """Return where the pixels of an npy member begin; raise ShardError when its header promises other pixels."""
    header = io.BytesIO(head)
    if np.lib.format.read_magic(header) != (1, 0):
        raise ShardError("the npy member is not of format 1.0.")
    found, by_column, held = np.lib.format.read_array_header_1_0(header)
    if held.hasobject:
        raise ShardError("the npy member holds a pickle, which is never loaded.")
    if (found, by_column, held) != (shape, False, dtype):
        raise ShardError(f"the npy member holds {held}{list(found)}, the record says {dtype}{list(shape)}.")
    return header.tell()


def _jpeg_encode(raster: Raster) -> bytes:
    raise ShardError("jpg members hold the original bytes of an archive; encode arrays otherwise.")


def _jpeg_decode(data: Encoded, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Raster:
    image: Raster = imagecodecs.jpeg8_decode(bytes(data))
    return image[None] if image.ndim == 2 else np.ascontiguousarray(image.transpose(2, 0, 1))


CODECS: dict[str, Codec] = {
    "blosc2": Codec(_blosc2_encode, _blosc2_decode, decode_into=_blosc2_decode_into),
    "npy": Codec(_npy_encode, _npy_decode, _npy_decode_rows),
    "tif": Codec(encode_tif, decode_tif, decode_tif),
    "jxl": Codec(encode_jxl, decode_jxl, dtypes=JXL_DTYPES),
    "jpg": Codec(_jpeg_encode, _jpeg_decode, dtypes=("uint8",)),
}

ENCODINGS: dict[str, tuple[str, Callable[[Raster], bytes]]] = {
    **{extension: (extension, one.encode) for extension, one in CODECS.items()},
    "blosc2-lz4": ("blosc2", partial(_blosc2_encode, compressor="lz4hc")),
}
"""By name, the extension of its members and what makes them. blosc2-lz4 decodes about three times as fast as blosc2 and
takes 4% (Sentinel-1) to 25% (Sentinel-2) more bytes; either is read without knowing which it is."""
