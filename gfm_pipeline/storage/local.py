"""Local folders as an object store."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from gfm_pipeline.errors import StorageError
from gfm_pipeline.storage.counters import StoreCounters

TEMPORARY_PREFIX = ".tmp-"
"""Names that start so are unfinished writes; they are never listed as objects."""


class ObjectStat(NamedTuple):
    """What is known of an object without reading it."""

    size: int
    version: str
    """Changes when the object does: its ETag, or the time of the last change of a local file."""


def open_regular(path: str | Path, links: bool = True, buffering: int = -1) -> IO[bytes]:
    """Open a file for reading; raise OSError for a pipe, a socket or a device, which could keep its reader for ever.

    Without `links` a symbolic link is refused, too.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file, but a pipe, a socket or a device")
        return open(descriptor, "rb", buffering=buffering)
    except BaseException:
        os.close(descriptor)
        raise


class LocalStore:
    """A folder. Puts go through a temporary file in the same folder, an fsync and a rename."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)
        self.counters = StoreCounters()

    def get(self, path: str) -> bytes:
        """Return the whole file."""
        try:
            with open_regular(self.root / path) as file:
                return file.read()
        except OSError as error:
            raise self._explain(path, "read", error) from error

    def get_range(self, path: str, start: int, length: int) -> bytes:
        """Return bytes [start, start + length); fewer only where the file ends."""
        try:
            with open_regular(self.root / path, buffering=0) as file:
                held = os.fstat(file.fileno()).st_size - start  # pread allocates what is asked for, be it there or not
                return os.pread(file.fileno(), max(0, min(length, held)), start)
        except OSError as error:
            raise self._explain(path, "read", error) from error

    def get_ranges(
        self, path: str, ranges: Sequence[tuple[int, int]], stop: threading.Event | None = None
    ) -> Sequence[bytes]:
        """Return the bytes of each (start, length); fewer only where the file ends."""
        return [self.get_range(path, start, length) for start, length in ranges]

    def forget(self, path: str, start: int, length: int) -> None:
        """Do nothing: every read comes from the file."""

    def put(self, path: str, data: bytes) -> None:
        """Write the file atomically."""
        target = self.root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=target.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(name, 0o644)
                os.replace(name, target)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise self._explain(path, "write", error) from error

    def put_file(self, path: str, source: Path) -> None:
        """Rename `source`, which must lie on the same file system, to `path`."""
        target = self.root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)
        except OSError as error:
            raise self._explain(path, "write", error) from error

    def exists(self, path: str) -> bool:
        """Return whether the file exists."""
        return (self.root / path).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the files below the folder `prefix`, sorted; unfinished writes are left out."""
        folder = self.root / prefix
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith(TEMPORARY_PREFIX):
                yield path.relative_to(self.root).as_posix()

    def walk(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield (path, size) of the files below the folder `prefix`, sorted; unfinished writes are left out."""
        for path in self.list(prefix):
            yield path, (self.root / path).stat().st_size

    def names(self, prefix: str = "") -> Sequence[tuple[str, bool]]:
        """Return (name, whether it is a folder) of what lies directly in the folder `prefix`, sorted."""
        try:
            found = [(path.name, path.is_dir()) for path in (self.root / prefix).iterdir()]
        except OSError as error:
            raise self._explain(prefix, "list", error) from error
        return sorted(entry for entry in found if not entry[0].startswith(TEMPORARY_PREFIX))

    def stat(self, path: str) -> ObjectStat:
        """Return size and time of the last change of a file."""
        try:
            found = (self.root / path).stat()
        except OSError as error:
            raise self._explain(path, "read", error) from error
        return ObjectStat(found.st_size, str(found.st_mtime_ns))

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading."""
        try:
            return open_regular(self.root / path)
        except OSError as error:
            raise self._explain(path, "read", error) from error

    def local_path(self, path: str) -> Path | None:
        """Return the path of a file or folder."""
        return self.root / path

    def delete(self, path: str) -> None:
        """Remove the file if it is there."""
        try:
            (self.root / path).unlink(missing_ok=True)
        except OSError as error:
            raise self._explain(path, "delete", error) from error

    def _explain(self, path: str, verb: str, error: OSError) -> StorageError:
        return StorageError(f"cannot {verb} {self.root / path}: {error.strerror or error}.")
