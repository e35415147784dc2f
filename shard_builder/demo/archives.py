"""Archives written one member at a time, with fixed times and owners, that appear under their name only when whole.

`tarfile` keeps a list of every member it wrote; here only the member at hand is in memory, so an archive may hold any
number. `zipfile` must keep its directory (about half a kilobyte per member) until it is closed.
"""

from __future__ import annotations

import contextlib
import gzip
import tarfile
import zipfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

from gfm_pipeline.storage.local import TEMPORARY_PREFIX
from shard_builder.archives.origin import SYNTHETIC_MARK

_MODE = 0o644
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip can tell."""


class Archive(Protocol):
    """A file of members under construction."""

    def add(self, name: str, data: bytes) -> None:
        """Append a member."""
        ...

    def close(self) -> None:
        """Write what the format needs at its end."""
        ...


class TarGz:
    """A gzipped tar. The members are compressed already, so the outer compression is the fastest one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._gzip = gzip.GzipFile(filename=SYNTHETIC_MARK, mode="wb", fileobj=file, compresslevel=1, mtime=0)

    def add(self, name: str, data: bytes) -> None:
        """Append a member."""
        header = tarfile.TarInfo(name)
        header.size, header.mode, header.mtime = len(data), _MODE, 0
        self._gzip.write(header.tobuf(tarfile.USTAR_FORMAT))
        self._gzip.write(data)
        self._gzip.write(bytes(-len(data) % tarfile.BLOCKSIZE))

    def close(self) -> None:
        """Write the two empty blocks that end a tar."""
        self._gzip.write(bytes(2 * tarfile.BLOCKSIZE))
        self._gzip.close()


class Zip:
    """A zip of stored members; images in it are compressed already."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)

    def add(self, name: str, data: bytes) -> None:
        """Append a member."""
        info = zipfile.ZipInfo(name, _EPOCH)
        info.create_system, info.external_attr = 3, _MODE << 16
        self._zip.writestr(info, data)

    def close(self) -> None:
        """Write the directory."""
        self._zip.comment = SYNTHETIC_MARK.encode()
        self._zip.close()


class Lines:
    """A text file of lines; `add` ignores the name."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, name: str, data: bytes) -> None:
        """Append a line."""
        self._file.write(data + b"\n")

    def close(self) -> None:
        """Nothing more to write."""


class ArchiveSet:
    """Archives of one folder that are written together and renamed to their names together at the end.

    Leaving the `with` block by an exception removes what was written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = ExitStack()
        self._archives: dict[str, Archive] = {}
        self.members: dict[str, int] = {}
        """Number of members written to each archive."""

    def add(self, archive: str, member: str, data: bytes) -> None:
        """Append a member to the archive called `archive`, which is begun with its first one.

        A line without a member name, the header of a table, is not counted.
        """
        if archive not in self._archives:
            path = self._folder / (TEMPORARY_PREFIX + archive)
            file = self._files.enter_context(path.open("wb"))
            self._archives[archive] = _begin(archive, file)
            self.members[archive] = 0
        self._archives[archive].add(member, data)
        self.members[archive] += bool(member)

    def __enter__(self) -> ArchiveSet:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish and rename the archives, or remove them."""
        for archive in self._archives.values():
            with contextlib.nullcontext() if kind is None else contextlib.suppress(Exception):
                archive.close()  # after an error too, or the writers complain when they are collected
        self._files.close()
        for name in self._archives:
            temporary = self._folder / (TEMPORARY_PREFIX + name)
            if kind is None:
                temporary.replace(self._folder / name)
            else:
                temporary.unlink(missing_ok=True)


def _begin(name: str, file: IO[bytes]) -> Archive:
    if name.endswith(".tar.gz"):
        return TarGz(file)
    if name.endswith(".zip"):
        return Zip(file)
    return Lines(file)
