"""A remote object as a seekable file that reads ranges, more at a time the longer it is read in sequence."""

from __future__ import annotations

import io
from collections.abc import Callable

SMALLEST_READ_BYTES = 2**16
LARGEST_READ_BYTES = 8 * 2**20


class RangeFile(io.RawIOBase):
    """Reads `size` bytes through `read(start, length)`; asks for twice as much each time it is read on in sequence."""

    def __init__(self, read: Callable[[int, int], bytes], name: str, size: int) -> None:
        self._read = read
        self._name = name
        self._size = size
        self._at = 0
        self._ahead = SMALLEST_READ_BYTES
        self._start = 0
        self._held = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} lies before the first byte")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` as far as the object goes and return the number of bytes."""
        wanted = max(0, min(len(buffer), self._size - self._at))
        if not wanted:
            return 0
        inside = self._at - self._start
        if not 0 <= inside < len(self._held):
            sequential = self._at == self._start + len(self._held)
            self._ahead = min(2 * self._ahead, LARGEST_READ_BYTES) if sequential else SMALLEST_READ_BYTES
            length = min(max(wanted, self._ahead), self._size - self._at)
            self._held = self._read(self._at, length)
            self._start, inside = self._at, 0
            if len(self._held) < length:
                raise OSError(f"{self._name} ends after {self._at + len(self._held)} of {self._size} bytes")
        data = self._held[inside : inside + wanted]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
