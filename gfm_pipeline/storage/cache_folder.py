"""The folder behind a cache: entries on disk, a byte limit, the least recently used first to go.

Any number of threads, processes and hosts may share it. An entry appears by a rename and is never changed. Before an
entry is written its full size is reserved: by a temporary file of that size, made while the folder's lock is held, in
which room is made as well. So the files never hold more than the limit. A file beside them says how much they hold; it
may say too much, as files also go without the lock, and then a search of the folder puts it right. Only files whose
names and places are a cache's own are counted or removed. The time of last use is a file's own modification time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gfm_pipeline.errors import StorageError
from gfm_pipeline.storage.folder_lock import FolderLock

ROOT = "gfm-cache-v1"
ABANDONED_S = 3600.0
"""A temporary file that has not changed for so long belongs to a process that is gone."""
ROOM_SHARE = 0.05
"""Share of the limit that is freed at once when room is needed, so that the folder is rarely searched."""

_OWN = re.compile(r"[0-9a-f]{2}/[0-9a-f]{40}\.[0-9a-f]{40}(\.tmp-[0-9a-f]{32})?")
_log = logging.getLogger(__name__)

Ranges = Sequence[tuple[int, int]]


class _File(NamedTuple):
    used: float
    size: int
    path: Path
    inode: int


class CacheFolder:
    """Entries by object name and ranges, `max_bytes` of them at most."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Raise StorageError when the folder cannot be made or written to."""
        self._root = folder / ROOT
        self._max_bytes = max_bytes
        self._lock = FolderLock(self._root / "lock")
        self._told = False
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            probe = self._root / f"probe-{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StorageError(
                f"cannot write to the cache {self._root}: {error.strerror}. Set data.cache.folder to a folder you may "
                "write to, or leave data.cache out."
            ) from error

    def load(self, name: str, ranges: Ranges) -> list[bytes] | None:
        """Return the bytes of `ranges` of the object `name`; None when they are not held, or damaged."""
        path = self._entry(name, ranges)
        try:
            data = path.read_bytes()
        except OSError:  # not there, or removed by another process in this moment
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        header, _, body = data.partition(b"\n")
        try:
            told = json.loads(header)
            intact = told["crc32"] == zlib.crc32(body) and told["ranges"] == [list(one) for one in ranges]
            lengths = [int(length) for length in told["lengths"]]
        except (ValueError, KeyError, TypeError):
            intact = False
        if not intact or sum(lengths) != len(body):
            _log.warning("the cache entry %s is damaged; it is fetched again", path)
            path.unlink(missing_ok=True)
            return None
        ends = [sum(lengths[: index + 1]) for index in range(len(lengths))]
        return [body[end - length : end] for end, length in zip(ends, lengths, strict=True)]

    def keep(self, name: str, ranges: Ranges, bodies: Sequence[bytes]) -> None:
        """Write an entry; one that cannot be kept is left out, and the log says so once."""
        crc32 = 0
        for body in bodies:
            crc32 = zlib.crc32(body, crc32)
        told = {"ranges": [list(one) for one in ranges], "lengths": [len(body) for body in bodies], "crc32": crc32}
        header = json.dumps(told).encode() + b"\n"
        path = self._entry(name, ranges)
        temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(exist_ok=True)
            size = len(header) + sum(len(body) for body in bodies)
            with self._lock.hold():
                self._make_room(size)
                with temporary.open("wb") as file:
                    file.truncate(size)
            with temporary.open("r+b") as file:
                file.writelines([header, *bodies])
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not self._told:
                self._told = True
                _log.warning("the cache %s cannot keep what was fetched: %s", self._root, error)

    def drop(self, name: str, start: int, length: int) -> None:
        """Remove the entries of an object that hold a byte of [start, start + length)."""
        for path in (self._root / name[:2]).glob(f"{name}.*"):
            with contextlib.suppress(OSError, ValueError):
                with path.open("rb") as file:
                    ranges = json.loads(file.readline())["ranges"]
                if any(begin < start + length and start < begin + size for begin, size in ranges):
                    path.unlink(missing_ok=True)

    def _entry(self, name: str, ranges: Ranges) -> Path:
        asked = hashlib.sha256(json.dumps([list(one) for one in ranges]).encode()).hexdigest()[:40]
        return self._root / name[:2] / f"{name}.{asked}"

    def _make_room(self, size: int) -> None:
        """Reserve `size` bytes, with the lock held, by removing what was not used for longest.

        Raises OSError when they will never fit.
        """
        if size > self._max_bytes:
            raise OSError(f"{size} bytes are more than the cache's limit of {self._max_bytes}")
        total = self._told_usage()
        if total is None or total + size > self._max_bytes:
            total = self._shrink(self._max_bytes - size)
            if total + size > self._max_bytes:
                raise OSError("other readers are writing all that it may hold; give it a higher limit")
        descriptor = os.open(self._root / "usage", os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, b"%020d\n" % (total + size))
        finally:
            os.close(descriptor)

    def _told_usage(self) -> int | None:
        try:
            return int((self._root / "usage").read_bytes())
        except (OSError, ValueError):
            return None

    def _shrink(self, target: int) -> int:
        """Remove entries, if there are more than `target` bytes, until some room is left; return what remains."""
        # Entries get their names without the lock, and a search can miss one in that moment: the next one sees it.
        files = sorted({file.inode: file for _ in range(2) for file in self._files()}.values())
        total = sum(file.size for file in files)
        if total <= target:
            return total
        for file in files:
            if total <= target - ROOM_SHARE * self._max_bytes:
                break
            if ".tmp-" not in file.path.name:  # else somebody is writing it
                file.path.unlink(missing_ok=True)
                total -= file.size
        return total

    def _files(self) -> Iterator[_File]:
        """Yield the cache's own files; temporary ones that nobody writes any more are removed."""
        for folder in self._root.iterdir():
            if not folder.is_dir():
                continue
            for path in folder.iterdir():
                if not _OWN.fullmatch(f"{folder.name}/{path.name}"):
                    continue
                try:
                    found = path.stat()
                except FileNotFoundError:
                    continue
                if ".tmp-" in path.name and time.time() - found.st_mtime > ABANDONED_S:
                    path.unlink(missing_ok=True)
                    continue
                yield _File(found.st_mtime, found.st_size, path, found.st_ino)
