"""How the C library keeps the memory that arrays leave behind."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_BYTES = 2**25
"""Arrays up to this size use memory that was freed before."""
_SPARE_BYTES = 2**26
"""As much unused memory stays with the process."""


def keep_freed_memory() -> bool:
    """Have glibc use the memory of freed arrays for the next ones; return whether that can be had here.

    By default it may give the rasters of every sample back to the kernel, which zeroes their pages again at the first
    touch of the next: a third of the processor time of a build of JPEGs. Other C libraries have their own ways.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES) and mallopt(_M_TRIM_THRESHOLD, _SPARE_BYTES))
