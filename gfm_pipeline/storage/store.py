"""The storage protocol and the choice of an implementation by URL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import urlsplit

from gfm_pipeline.errors import StorageError
from gfm_pipeline.storage.local import LocalStore, ObjectStat


class Store(Protocol):
    """Objects under one URL prefix. Errors are StorageError and name the full URL."""

    url: str

    def get(self, path: str) -> bytes:
        """Return the whole object."""
        ...

    def get_range(self, path: str, start: int, length: int) -> bytes:
        """Return bytes [start, start + length); fewer only where the object ends."""
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


def open_store(url: str) -> Store:
    """Return the store for a local path or a file:// URL; raise StorageError for any other scheme."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalStore(Path(parts.path))
    if "://" in url:
        raise StorageError(f"cannot open {url}: this version reads and writes local folders; give a local path.")
    return LocalStore(Path(url))
