"""Arrays in .npy files: plain numbers only. One that is pickled is refused before anything of it is loaded."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.lib import format as npy_format

from gfm_pipeline.errors import ItemError
from gfm_pipeline.shards.codec import Raster
from shard_builder.archives import MemberRef


def decode_npy(data: bytes, ref: MemberRef) -> Raster:
    """Return the array of a .npy file, in the byte order of this machine and of the shape that it says.

    float16, which shards do not know, becomes float32: every value is kept. Raises ItemError for what is no array of
    numbers, or does not hold as many as its header claims.
    """
    stream = io.BytesIO(data)
    try:
        version = npy_format.read_magic(stream)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"it has the version {version}, known are 1.0, 2.0 and 3.0")
        read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, by_column, dtype = read_header(stream)
    except Exception as error:  # a damaged header raises types of several modules
        raise ItemError(f"{ref.source_file} is no .npy file: {' '.join(str(error).split())[:200]}.") from error
    if dtype.kind not in "buif":
        raise ItemError(f"{ref.source_file} holds {dtype} values, expected numbers; pickled arrays are not read.")
    if any(length < 0 for length in shape):
        raise ItemError(f"{ref.source_file} claims the shape {shape}.")
    held = len(data) - stream.tell()
    if math.prod(shape) * dtype.itemsize != held:
        raise ItemError(f"{ref.source_file} claims {shape} of {dtype} and holds {held} bytes of them.")
    array: Raster = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if by_column else "C")
    return native(array)


def native(array: Raster) -> Raster:
    """Return numbers in the byte order of this machine; float16, which shards do not know, as float32."""
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
