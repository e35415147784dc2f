"""How one raster becomes the bytes of one tar member, and back.

The extension of a member names its codec. All are readable with public libraries: `npy` with numpy, `jpg` with any
image library, `blosc2` with `imagecodecs.blosc2_decode`, whose result is the C-ordered array described by `dtype`
and `shape` in the sample's own json member. No codec unpickles anything.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import ShardError, nearest

Raster = NDArray[np.generic]
"""A raster [C,H,W] or a series [T,C,H,W]."""


@dataclass(frozen=True)
class Codec:
    """A pair of pure functions between a raster and the bytes of a member."""

    encode: Callable[[Raster], bytes]
    decode: Callable[[bytes, np.dtype[np.generic], tuple[int, ...]], Raster]


def encode(raster: Raster, extension: str) -> bytes:
    """Return `raster` [.., C,H,W] as the bytes of a member; the same raster always gives the same bytes."""
    return _codec(extension).encode(np.ascontiguousarray(raster))


def decode(data: bytes, extension: str, dtype: str, shape: tuple[int, ...]) -> Raster:
    """Return the raster of a member as a read-only or fresh array of exactly `dtype` and `shape`.

    Raises ShardError when the bytes do not hold such an array.
    """
    try:
        raster = _codec(extension).decode(data, np.dtype(dtype), shape)
    except ShardError:
        raise
    except Exception as error:  # codecs raise their own types: all of them mean damaged bytes
        raise ShardError(f"cannot decode {len(data)} bytes as {extension}: {error}") from error
    if raster.shape != shape or raster.dtype != np.dtype(dtype):
        raise ShardError(
            f"decoded {extension} holds {raster.dtype}{list(raster.shape)}, the record says {dtype}{list(shape)}."
        )
    return raster


def _codec(extension: str) -> Codec:
    if extension not in CODECS:
        raise ShardError(f"no codec for members of type '{extension}'. {nearest(extension, CODECS)}")
    return CODECS[extension]


def _blosc2_encode(raster: Raster) -> bytes:
    return bytes(
        imagecodecs.blosc2_encode(
            raster.tobytes(),
            level=1,
            compressor="zstd",
            shuffle="shuffle",
            typesize=raster.dtype.itemsize,
            numthreads=1,
        )
    )


def _blosc2_decode(data: bytes, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Raster:
    # The output buffer has the recorded size, so bytes that claim more cannot allocate more.
    out = bytearray(math.prod(shape) * dtype.itemsize)
    decoded = imagecodecs.blosc2_decode(data, numthreads=1, out=out)
    if len(decoded) != len(out):
        raise ShardError(f"blosc2 member holds {len(decoded)} bytes, the record says {len(out)}.")
    return np.frombuffer(out, dtype).reshape(shape)


def _npy_encode(raster: Raster) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, raster, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _npy_decode(data: bytes, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Raster:
    raster: Raster = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return raster


def _jpeg_encode(raster: Raster) -> bytes:
    raise ShardError("jpg members hold the original bytes of an archive; encode arrays as blosc2 or npy.")


def _jpeg_decode(data: bytes, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Raster:
    image: Raster = imagecodecs.jpeg8_decode(data)
    return image[None] if image.ndim == 2 else np.ascontiguousarray(image.transpose(2, 0, 1))


CODECS: dict[str, Codec] = {
    "blosc2": Codec(_blosc2_encode, _blosc2_decode),
    "npy": Codec(_npy_encode, _npy_decode),
    "jpg": Codec(_jpeg_encode, _jpeg_decode),
}
