"""The storage protocol and the choice of an implementation by URL."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import urlsplit

from gfm_pipeline.errors import StorageError
from gfm_pipeline.storage.counters import StoreCounters
from gfm_pipeline.storage.local import LocalStore, ObjectStat
from gfm_pipeline.storage.options import CacheConfig, StorageConfig


class Store(Protocol):
    """Objects under one URL prefix. Errors are StorageError and name the full URL."""

    url: str
    counters: StoreCounters
    """What went over the network so far; of a local folder, nothing."""

    def get(self, path: str) -> bytes:
        """Return the whole object."""
        ...

    def get_range(self, path: str, start: int, length: int) -> bytes:
        """Return bytes [start, start + length); fewer only where the object ends."""
        ...

    def get_ranges(
        self, path: str, ranges: Sequence[tuple[int, int]], stop: threading.Event | None = None
    ) -> Sequence[bytes]:
        """Return the bytes of each (start, length), read together; fewer only where the object ends.

        Another thread may set `stop`: a read that has to be repeated then raises StorageError at once.
        """
        ...

    def forget(self, path: str, start: int, length: int) -> None:
        """Drop what a cache holds of a range that turned out damaged: the next read comes from where it lives."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write the object atomically."""
        ...

    def put_file(self, path: str, source: Path) -> None:
        """Move a finished local file into the store atomically; the file is gone afterwards."""
        ...

    def exists(self, path: str) -> bool:
        """Return whether the object exists."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the paths of all objects whose path starts with the folder `prefix`, sorted."""
        ...

    def walk(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield (path, size) of all objects below the folder `prefix`, sorted."""
        ...

    def names(self, prefix: str = "") -> Sequence[tuple[str, bool]]:
        """Return (name, whether it is a folder) of what lies directly in the folder `prefix`, sorted."""
        ...

    def stat(self, path: str) -> ObjectStat:
        """Return size and version of an object."""
        ...

    def open(self, path: str) -> IO[bytes]:
        """Open an object as a seekable binary file, for the caller to close."""
        ...

    def local_path(self, path: str) -> Path | None:
        """Return where the object lies on a local disk; None for an object that does not."""
        ...

    def delete(self, path: str) -> None:
        """Remove the object; one that is not there is no error."""
        ...


REMOTE = ("s3", "s3a", "gs", "az", "abfs", "abfss", "http", "https")
"""URL schemes of object stores and web servers."""


def open_store(url: str, storage: StorageConfig | None = None, cache: CacheConfig | None = None) -> Store:
    """Return the store for a local path, a file:// URL or the URL of an object store or web server.

    `storage` says how remote ones are reached, `cache` where what is read of them is kept; local ones need neither.
    Raises StorageError for any other scheme; nothing is run, as `pipe:` would elsewhere.
    """
    scheme, colon, _ = url.partition("://")
    if scheme == "file" and colon:
        return LocalStore(Path(urlsplit(url).path))
    if colon and scheme.lower() in REMOTE:
        from gfm_pipeline.storage.remote import ObjectStore  # here: local work needs no client

        remote = ObjectStore(url, storage.for_url(url) if storage else None)
        if cache is None:
            return remote
        from gfm_pipeline.storage.cached import CachedStore

        return CachedStore(remote, cache)
    if colon or url.startswith("pipe:"):
        shown = re.sub(r"//[^/@]*@", "//***@", url)
        known = ", ".join(f"{name}://" for name in REMOTE)
        raise StorageError(f"cannot open {shown}: give a local path or a URL of {known}.")
    return LocalStore(Path(url))
