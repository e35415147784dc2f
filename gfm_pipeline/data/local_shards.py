"""Shards on a local disk, read in place: one `pread` per sample, into memory that the thread keeps.

Nothing encoded is held between samples: the system's page cache does that better. The whole chunk is announced to the
kernel when its first sample is wanted, so a cold disk is read in chunks and ahead.

Not by memory map: a shard cut short under a map kills the process with SIGBUS where a read returns fewer bytes, which
the reader names. On decoded pairs the two measured alike (the map saves a copy, and pays a page fault per 64 KB).
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.errors import StorageError

OPEN_FILES = 128
"""Shards kept open, the least recently used are closed."""


class _File:
    """An open file that closes when the last thread that uses it lets go of it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class LocalShards:
    """Reads ranges of local files, from any number of threads."""

    def __init__(self) -> None:
        self._open = lru_cache(maxsize=OPEN_FILES)(_File)

    def read_into(self, path: Path, start: int, target: NDArray[np.uint8]) -> int:
        """Fill `target` from byte `start` of a file and return how many bytes came: fewer where the file ends.

        Raises StorageError when the file cannot be read.
        """
        try:
            file, done = self._open(path), 0
            while done < len(target):
                got = os.preadv(file.descriptor, [target[done:].data], start + done)
                if not got:
                    break
                done += got
            return done
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}.") from error

    def announce(self, path: Path, start: int, length: int) -> None:
        """Let the kernel read ahead what will be wanted soon; says nothing of errors, which the read will meet."""
        try:
            os.posix_fadvise(self._open(path).descriptor, start, length, os.POSIX_FADV_WILLNEED)
        except OSError:
            return

    def close(self) -> None:
        """Close the files; reading on opens them again."""
        self._open.cache_clear()
