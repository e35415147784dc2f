"""Antialiased bilinear resizing of images [C,H,W], as torch's `interpolate(..., antialias=True)` and Pillow do it.

Each output row is a weighted mean of a few neighbouring input rows, likewise each column. A run of output rows needs
a short band of input rows, so both passes are products with small dense blocks of the banded weight matrix, which BLAS
does in vector instructions: in one thread, half of the time of torch's kernel. Blocks are small enough that
BLAS starts no threads of its own; the loader's threads work on different samples.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.scratch import Scratch

_BLOCK = 24
"""Of outputs. Smaller ones waste less, and hand Python's lock over more often: with two threads, 24 was best."""
_MAX_PRODUCT = 2**18
"""OpenBLAS multiplies (m x k)(k x n) in the calling thread up to this m*k*n."""
Image = NDArray[np.float32]


class Taps(NamedTuple):
    """Weights of the outputs [first, last) on the inputs [low, high)."""

    first: int
    last: int
    low: int
    high: int
    weights: Image
    """[last - first, high - low]"""


@lru_cache(maxsize=2048)
def resize_taps(size: int, wanted: int, mirrored: bool = False) -> tuple[Taps, ...]:
    """Return the blocks of weights that turn `size` pixels into `wanted`; `mirrored` reverses their order."""
    scale = size / wanted
    support = max(scale, 1.0)
    centre = scale * (np.arange(wanted) + 0.5)  # [wanted]
    low = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    high = np.minimum((centre + support + 0.5).astype(np.int64), size)
    blocks = []
    for first in range(0, wanted, _BLOCK):
        last = min(first + _BLOCK, wanted)
        inputs = np.arange(low[first], high[last - 1])  # [k]
        distance = np.abs(inputs + 0.5 - centre[first:last, None]) / support  # [n,k]
        inside = (inputs >= low[first:last, None]) & (inputs < high[first:last, None])
        weights = np.where(inside, np.maximum(1 - distance, 0), 0)
        weights /= weights.sum(axis=1, keepdims=True)
        place = (wanted - last, wanted - first) if mirrored else (first, last)
        ordered = weights[::-1] if mirrored else weights
        blocks.append(Taps(*place, int(inputs[0]), int(inputs[-1]) + 1, ordered.astype(np.float32, order="C")))
    return tuple(blocks)


def resize_into(out: Image, image: Image, mirror: bool, scratch: Scratch) -> None:
    """Fill `out` [C,h,w] with `image` [C,H,W] in its size, mirrored left to right if `mirror`."""
    channels, height, width = image.shape
    between = scratch.floats("resized rows", (channels, out.shape[1], width))
    for taps in resize_taps(height, out.shape[1]):
        span = max(1, _MAX_PRODUCT // (_BLOCK * (taps.high - taps.low)))
        for left in range(0, width, span):
            part = slice(left, min(left + span, width))
            np.matmul(taps.weights, image[:, taps.low : taps.high, part], out=between[:, taps.first : taps.last, part])
    for taps in resize_taps(width, out.shape[2], mirror):
        span = max(1, _MAX_PRODUCT // (_BLOCK * (taps.high - taps.low)))
        for top in range(0, out.shape[1], span):
            part = slice(top, min(top + span, out.shape[1]))
            np.matmul(between[:, part, taps.low : taps.high], taps.weights.T, out=out[:, part, taps.first : taps.last])


def resize_missing(missing: NDArray[np.bool_], side: int, mirror: bool, scratch: Scratch) -> Image:
    """Return the share of each resized pixel's weight that falls on `missing` [C,H,W]: [C,side,side], in `scratch`.

    [1,side,side] where all bands are missing together. It is exactly 0 where no missing pixel has a weight.
    """
    once = missing[:1] if (missing == missing[:1]).all() else missing
    source = scratch.floats("missing", once.shape)
    np.copyto(source, once)
    share = scratch.floats("missing share", (len(once), side, side))
    resize_into(share, source, mirror, scratch)
    return share
