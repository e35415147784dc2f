"""Local folders as an object store."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gfm_pipeline.errors import StorageError

TEMPORARY_PREFIX = ".tmp-"
"""Names that start so are unfinished writes; they are never listed as objects."""


class LocalStore:
    """A folder. Puts go through a temporary file in the same folder, an fsync and a rename."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def get(self, path: str) -> bytes:
        """Return the whole file."""
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            raise self._explain(path, "read", error) from error

    def get_range(self, path: str, start: int, length: int) -> bytes:
        """Return bytes [start, start + length); fewer only where the file ends."""
        try:
            with open(self.root / path, "rb", buffering=0) as file:
                return os.pread(file.fileno(), length, start)
        except OSError as error:
            raise self._explain(path, "read", error) from error

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

    def delete(self, path: str) -> None:
        """Remove the file if it is there."""
        try:
            (self.root / path).unlink(missing_ok=True)
        except OSError as error:
            raise self._explain(path, "delete", error) from error

    def _explain(self, path: str, verb: str, error: OSError) -> StorageError:
        return StorageError(f"cannot {verb} {self.root / path}: {error.strerror or error}.")
