"""A remote store with a local cache in front: what was fetched once is read from a folder afterwards.

An entry is one read: the ranges of one chunk, or a whole small object. Its name says URL, ETag, size and ranges, so an
object that was replaced is another entry, and two objects of one name never meet. An entry carries a checksum that is
verified on the way out. A cache never ends a run: what cannot be kept is fetched again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from gfm_pipeline.storage.cache_folder import CacheFolder
from gfm_pipeline.storage.local import ObjectStat
from gfm_pipeline.storage.options import CacheConfig
from gfm_pipeline.storage.store import Store


class CachedStore:
    """Reads of `store` through a folder; everything else goes to `store`."""

    def __init__(self, store: Store, config: CacheConfig) -> None:
        """Raise StorageError when the folder cannot be made or written to."""
        self.url = store.url
        self.counters = store.counters
        self._store = store
        self._folder = CacheFolder(Path(config.folder), config.max_bytes)
        self._objects: dict[str, ObjectStat] = {}

    def get(self, path: str) -> bytes:
        """Return the whole object."""
        found = self._objects[path] = self._store.stat(path)
        return self._read(path, [(0, found.size)], None)[0] if found.size else b""

    def get_range(self, path: str, start: int, length: int) -> bytes:
        """Return bytes [start, start + length); fewer only where the object ends."""
        return self.get_ranges(path, [(start, length)])[0]

    def get_ranges(
        self, path: str, ranges: Sequence[tuple[int, int]], stop: threading.Event | None = None
    ) -> Sequence[bytes]:
        """Return the bytes of each (start, length), read together; fewer only where the object ends."""
        return self._read(path, ranges, stop)

    def forget(self, path: str, start: int, length: int) -> None:
        """Drop all entries with a byte of the range."""
        if path in self._objects:
            self._folder.drop(self._object_name(path), start, length)

    def put(self, path: str, data: bytes) -> None:
        """Write the object."""
        self._objects.pop(path, None)
        self._store.put(path, data)

    def put_file(self, path: str, source: Path) -> None:
        """Move a finished local file into the store."""
        self._objects.pop(path, None)
        self._store.put_file(path, source)

    def exists(self, path: str) -> bool:
        """Return whether the object exists."""
        return self._store.exists(path)

    def walk(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield (path, size) of all objects below the folder `prefix`, sorted."""
        return self._store.walk(prefix)

    def names(self, prefix: str = "") -> Sequence[tuple[str, bool]]:
        """Return (name, whether it is a folder) of what lies directly in the folder `prefix`, sorted."""
        return self._store.names(prefix)

    def stat(self, path: str) -> ObjectStat:
        """Return size and version of an object."""
        return self._store.stat(path)

    def open(self, path: str) -> IO[bytes]:
        """Open an object as a seekable binary file; what is read so is not kept."""
        return self._store.open(path)

    def local_path(self, path: str) -> Path | None:
        """Return None: an entry of the cache is no object."""
        return None

    def delete(self, path: str) -> None:
        """Remove the object."""
        self._objects.pop(path, None)
        self._store.delete(path)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the paths of all objects below the folder `prefix`, sorted."""
        return self._store.list(prefix)

    def _read(self, path: str, ranges: Sequence[tuple[int, int]], stop: threading.Event | None) -> Sequence[bytes]:
        if path not in self._objects:
            self._objects[path] = self._store.stat(path)
        name = self._object_name(path)
        held = self._folder.load(name, ranges)
        if held is not None:
            self.counters.add(cache_hits=1)
            return held
        self.counters.add(cache_misses=1)
        fetched = self._store.get_ranges(path, ranges, stop)
        self._folder.keep(name, ranges, fetched)
        return fetched

    def _object_name(self, path: str) -> str:
        known = self._objects[path]
        named = json.dumps([self.url, path, known.version, known.size])
        return hashlib.sha256(named.encode()).hexdigest()[:40]
