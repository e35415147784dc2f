"""The bytes of one tar in their order, fetched in ranges of bounded size and hashed on the way."""

from __future__ import annotations

import hashlib

from gfm_pipeline.storage import Store

RANGE_BYTES = 8 * 2**20


class TarStream:
    """Reads an object once from its start to its end."""

    def __init__(self, store: Store, path: str, size: int) -> None:
        self._store = store
        self._path = path
        self._size = size
        self._fetched = b""
        self._start = 0
        """Offset of the first fetched byte."""
        self.position = 0
        self._sha256 = hashlib.sha256()

    def read(self, length: int) -> bytes:
        """Return the next `length` bytes; fewer only where the object ends."""
        parts: list[bytes] = []
        while length > 0:
            part = self._some(length)
            if not part:
                break
            parts.append(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> tuple[bool, str]:
        """Read what is left; return whether all of that is zero, and the sha256 of the whole object."""
        zero = True
        while part := self._some(RANGE_BYTES):
            zero = zero and not any(part)
        return zero, self._sha256.hexdigest()

    def _some(self, length: int) -> bytes:
        begin = self.position - self._start
        if begin == len(self._fetched) and self.position < self._size:
            wanted = min(RANGE_BYTES, self._size - self.position)
            self._fetched = self._store.get_range(self._path, self.position, wanted)
            self._start, begin = self.position, 0
            self._sha256.update(self._fetched)
        part = self._fetched[begin : begin + length]
        self.position += len(part)
        return part
