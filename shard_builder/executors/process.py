"""What the builder arranges in processes: how freed memory is kept, and, in its own, what is not imported."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from types import ModuleType

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


class _NoPandas:
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("shard-builder does without pandas", name=fullname)


def do_without_pandas() -> None:
    """Let no import of pandas succeed in this process, which must be one of the builder's own.

    Arrow imports pandas, where it is installed, to see that a list is no series: half a second of every process.
    """
    sys.meta_path.insert(0, _NoPandas())
