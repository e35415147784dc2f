"""A part of a file as a file of its own."""

from __future__ import annotations

import io
from typing import IO


def section(file: IO[bytes], start: int, length: int) -> IO[bytes]:
    """Return bytes [start, start + length) of `file` as a buffered file; `file` stays open and is moved about."""
    return io.BufferedReader(_Section(file, start, length))


class _Section(io.RawIOBase):
    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file = file
        self._start = start
        self._length = length
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} lies before the first byte")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def readall(self) -> bytes:
        """Return the rest in one piece; the inherited way goes by 8 KiB."""
        self._file.seek(self._start + self._at)
        data = self._file.read(max(0, self._length - self._at))
        self._at += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` as far as the section goes and return the number of bytes."""
        wanted = max(0, min(len(buffer), self._length - self._at))
        if not wanted:
            return 0
        self._file.seek(self._start + self._at)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
