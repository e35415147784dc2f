"""Object stores (s3, gs, az) and web servers (http, https) behind the storage protocol.

Everything is read in bounded parts, several at a time. A part whose body breaks off, stalls or is short is asked for
again from the byte it reached, after growing, jittered pauses (longer ones for a server that says it is busy), until
its deadline. The first answer fixes the version of an object, by ETag and size: bytes of two versions never mix.
"""

from __future__ import annotations

import io
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from gfm_pipeline.errors import StorageError
from gfm_pipeline.storage.body import Body, Version
from gfm_pipeline.storage.client import Client
from gfm_pipeline.storage.counters import StoreCounters
from gfm_pipeline.storage.diagnosis import diagnose
from gfm_pipeline.storage.local import TEMPORARY_PREFIX, ObjectStat
from gfm_pipeline.storage.options import StoreOptions
from gfm_pipeline.storage.range_file import SMALLEST_READ_BYTES, RangeFile
from gfm_pipeline.storage.ranges import PART_BYTES, ByteRange, coalesce, pick, split

FIRST_PAUSE_S = 0.2
FIRST_BUSY_PAUSE_S = 1.0
LONGEST_PAUSE_S = 15.0

_HADOOP_MARKER = "_$folder$"

_log = logging.getLogger(__name__)
T = TypeVar("T")


class ObjectStore:
    """Objects below one URL prefix."""

    def __init__(self, url: str, options: StoreOptions | None = None) -> None:
        """Raise StorageError for a URL with credentials in it, which would end up in messages and manifests."""
        parts = urlsplit(url)
        if parts.username or parts.password or parts.query:
            raise StorageError(
                f"the URL {parts.scheme}://...@{parts.hostname} holds credentials or a query. Leave them out and set "
                "credentials as the store's own tools want them, in the environment or a profile."
            )
        self.url = url.rstrip("/")
        self.counters = StoreCounters()
        self._options = options or StoreOptions()
        self._web = parts.scheme in ("http", "https")
        self._client = Client(self.url, self._options)
        self._versions: dict[str, Version] = {}

    def get(self, path: str) -> bytes:
        """Return the whole object."""
        return self._whole(path)[0]

    def get_range(self, path: str, start: int, length: int, stop: threading.Event | None = None) -> bytes:
        """Return bytes [start, start + length); fewer only where the object ends."""
        return self.get_ranges(path, [(start, length)], stop)[0]

    def get_ranges(
        self, path: str, ranges: Sequence[tuple[int, int]], stop: threading.Event | None = None
    ) -> Sequence[bytes]:
        """Return the bytes of each (start, length), read together; fewer only where the object ends.

        All reads of ranges through one store are of one version of the object: a StorageError says that it was
        replaced. Another thread may set `stop` to end the repetition of failed requests.
        """
        runs = coalesce(ranges)
        parts = [part for run in runs for part in split(run)]
        read = partial(self._part, path, stop=stop or threading.Event())
        if len(parts) <= 1:
            fetched = [read(part) for part in parts]
        else:
            first = [read(parts[0])] if path not in self._versions else []  # it fixes the version for all others
            fetched = [*first, *self._together(read, parts[len(first) :])]
        bodies = iter(fetched)
        return pick(ranges, [(run, b"".join(next(bodies) for _ in split(run))) for run in runs])

    def forget(self, path: str, start: int, length: int) -> None:
        """Do nothing: every read comes from the server."""

    def put(self, path: str, data: bytes) -> None:
        """Write the object; it appears when it is complete."""
        self._refuse_web(path)
        self._run("write", path, lambda obstore, client: obstore.put(client, path, data, use_multipart=False))
        self._versions.pop(path, None)

    def put_file(self, path: str, source: Path) -> None:
        """Upload a local file in parts and remove it; the object appears when it is complete."""
        self._refuse_web(path)
        if source.stat().st_size <= PART_BYTES:
            self.put(path, source.read_bytes())
        else:
            self._run("write", path, lambda obstore, client: obstore.put(client, path, source, chunk_size=PART_BYTES))
            self._versions.pop(path, None)
        source.unlink()

    def exists(self, path: str) -> bool:
        """Return whether the object exists."""
        try:
            self.stat(path)
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return False
            raise
        return True

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the paths of all objects below the folder `prefix`, sorted."""
        for path, _ in self.walk(prefix):
            yield path

    def walk(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield (path, size) of all objects below the folder `prefix`, sorted."""
        self._refuse_listing()
        found = self._run(
            "list",
            prefix,
            lambda obstore, client: [
                (str(item["path"]), int(item["size"]))
                for part in obstore.list(client, prefix=prefix or None)
                for item in part
            ],
        )
        markers = self._folder_markers(prefix, found)
        yield from sorted(entry for entry in found if entry[0] not in markers and not _is_temporary(entry[0]))

    def names(self, prefix: str = "") -> Sequence[tuple[str, bool]]:
        """Return (name, whether it is a folder) of what lies directly in the folder `prefix`, sorted."""
        self._refuse_listing()
        folders, objects = self._names(prefix)
        files = {name for name, size in objects if size or not (name in folders or name.endswith(_HADOOP_MARKER))}
        entries = {*((name, True) for name in folders), *((name, False) for name in files)}
        return sorted(entry for entry in entries if not entry[0].startswith(TEMPORARY_PREFIX))

    def _names(self, prefix: str) -> tuple[set[str], set[tuple[str, int]]]:
        """Return the names of the folders in a folder, and (name, size) of its objects without that of its own name."""
        found = self._run(
            "list", prefix, lambda obstore, client: obstore.list_with_delimiter(client, prefix=prefix or None)
        )
        home = prefix.strip("/")
        folders = {str(path).rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]}
        objects = {
            (str(item["path"]).rpartition("/")[2], int(item["size"]))
            for item in found["objects"]
            if str(item["path"]).strip("/") != home
        }
        return folders, objects

    def _folder_markers(self, prefix: str, found: Sequence[tuple[str, int]]) -> set[str]:
        """Return the empty objects that stand for folders: consoles and file systems make them, as "shards/".

        The client leaves out the slash at the end of their names; one that holds nothing shows in its parent alone.
        """
        empty = [path for path, size in found if not size]
        if not empty:
            return set()
        parents = {path[:i] for path, _ in found for i in _slashes(path)}
        markers = {path for path in empty if path in parents or path.endswith(_HADOOP_MARKER)}
        markers |= {"", prefix.strip("/")} & set(empty)
        inside: dict[str, list[str]] = {}
        for path in empty:
            if path not in markers:
                inside.setdefault(path.rpartition("/")[0], []).append(path)
        for parent, paths in inside.items():
            folders, _ = self._names(parent)
            markers |= {path for path in paths if path.rpartition("/")[2] in folders}
        return markers

    def stat(self, path: str) -> ObjectStat:
        """Return size and ETag of an object."""
        return ObjectStat(*self._head(path))

    def open(self, path: str) -> IO[bytes]:
        """Open an object as a seekable file that reads ranges, more at a time the longer it is read in sequence.

        An object that is replaced meanwhile is an error at the next read.
        """
        version = self._head(path)

        def read(start: int, length: int) -> bytes:
            return b"".join(
                self._part(path, part, threading.Event(), version) for part in split(ByteRange(start, length))
            )

        return io.BufferedReader(RangeFile(read, path, version.size), SMALLEST_READ_BYTES)

    def local_path(self, path: str) -> Path | None:
        """Return None: no object lies on a local disk."""
        return None

    def delete(self, path: str) -> None:
        """Remove the object if it is there."""
        self._refuse_web(path)
        if self.exists(path):
            self._run("delete", path, lambda obstore, client: obstore.delete(client, path))
        self._versions.pop(path, None)

    def _head(self, path: str) -> Version:
        return Version.of(self._run("read", path, lambda obstore, client: obstore.head(client, path)))

    def _whole(self, path: str) -> tuple[bytes, Version | None]:
        """Return an object as it is now: one request when it is no longer than a part."""
        first = Body(path, ByteRange(0, PART_BYTES), None)
        self._run("read", path, first.take, first.count)
        data, version = first.data(), first.version
        if version is None or version.size <= len(data):
            return data, version
        rest = split(ByteRange(len(data), version.size - len(data)))
        read = partial(self._part, path, stop=threading.Event(), version=version)
        return b"".join([data, *self._together(read, rest)]), version

    def _together(self, read: Callable[[ByteRange], bytes], parts: Sequence[ByteRange]) -> Sequence[bytes]:
        with ThreadPoolExecutor(max(1, min(self._options.in_flight, len(parts))), "gfm-fetch") as pool:
            try:
                return list(pool.map(read, parts))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _part(self, path: str, part: ByteRange, stop: threading.Event, version: Version | None = None) -> bytes:
        body = Body(path, part, version or self._versions.get(path))
        self._run("read", path, body.take, body.count, stop)
        if version is None and body.version is not None:
            self._versions[path] = body.version
        return body.data()

    def _run(
        self,
        verb: str,
        path: str,
        action: Callable[[Any, Any], T],
        count: Callable[[], int] = lambda: 0,
        stop: threading.Event | None = None,
    ) -> T:
        """Return what `action` returns, trying again while there is hope; raise StorageError when there is none.

        `count` tells how many bytes an action has brought so far, over all tries.
        """
        import obstore

        started, pause, tries, counted = time.monotonic(), 0.0, 0, 0
        stop = stop or threading.Event()
        while True:
            tries += 1
            try:
                return action(obstore, self._client.open())
            except Exception as error:  # obstore's errors, and those of the runtime below it
                found = diagnose(error)
                grown = 2 * pause if count() == counted else 0.0  # after progress, from the beginning
                pause = min(max(grown, FIRST_BUSY_PAUSE_S if found.busy else FIRST_PAUSE_S), LONGEST_PAUSE_S)
                elapsed = time.monotonic() - started
                where = f"{self.url}/{path}".rstrip("/")
                if found.hopeless or elapsed + pause > self._options.deadline_s:
                    after = f" after {tries} tries in {elapsed:.0f} s" if tries > 1 else ""
                    raise StorageError(f"cannot {verb} {where}: {found.reason}{after}.") from error
                _log.info("cannot %s %s (%s), trying again", verb, where, found.reason)
            finally:
                self.counters.add(requests=1, retries=int(tries > 1), bytes_fetched=count() - counted)
                counted = count()
            if stop.wait(pause * random.uniform(0.5, 1.0)):
                raise StorageError(f"cannot {verb} {where}: stopped while a failed request was to be repeated.")

    def _refuse_web(self, path: str) -> None:
        if self._web:
            raise StorageError(f"cannot write {self.url}/{path}: a web server is read-only. Use s3://, gs:// or az://.")

    def _refuse_listing(self) -> None:
        if self._web:
            raise StorageError(
                f"cannot list {self.url}: a web server tells no names. Give the URL of one archive or collection."
            )


def _slashes(path: str) -> Iterator[int]:
    return (i for i, character in enumerate(path) if character == "/" and i)


def _is_temporary(path: str) -> bool:
    return path.rpartition("/")[2].startswith(TEMPORARY_PREFIX)
