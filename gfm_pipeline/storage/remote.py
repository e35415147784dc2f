"""Object stores (s3, gs, az) and web servers (http, https), through the obstore library.

Reads are bounded ranges: a client's timeout covers a whole body, and a long stream that is consumed slowly dies of it.
A failed request is repeated with growing, jittered pauses until nothing has come through for RETRY_SECONDS. Clients
are opened by the process that uses them; what is pickled is the URL. Credentials come from the environment, profile
or instance as each cloud's own tools find them, and appear in no message.
"""

from __future__ import annotations

import io
import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from gfm_pipeline.errors import StorageError
from gfm_pipeline.storage.local import TEMPORARY_PREFIX, ObjectStat

RETRY_SECONDS = 120.0
"""How long requests may fail before an error is given up to the caller."""
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 15.0
REQUEST_SECONDS = 60
PART_BYTES = 8 * 2**20
"""Of one range read or one part of an upload."""
SMALLEST_READ_BYTES = 2**16

_SECRETS = ("SECRET", "TOKEN", "ACCESS_KEY", "ACCOUNT_KEY", "SAS", "PASSWORD", "CREDENTIAL")
_log = logging.getLogger(__name__)
T = TypeVar("T")


class ObjectStore:
    """Objects below one URL prefix."""

    def __init__(self, url: str) -> None:
        """Raise StorageError for a URL with credentials in it, which would end up in messages and manifests."""
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise StorageError(
                f"the URL {parts.scheme}://...@{parts.hostname} holds credentials. Leave them out and set them as "
                "the store's own tools want them, in the environment or a profile."
            )
        self.url = url.rstrip("/")
        self._web = parts.scheme in ("http", "https")
        self._client: Any = None
        self._owner = 0

    def __getstate__(self) -> dict[str, Any]:
        """A client holds connections and secrets: it stays in its process."""
        return {**self.__dict__, "_client": None, "_owner": 0}

    def get(self, path: str) -> bytes:
        """Return the whole object."""
        with self.open(path) as file:
            return file.read()

    def get_range(self, path: str, start: int, length: int) -> bytes:
        """Return bytes [start, start + length); fewer only where the object ends."""
        return self._range(path, start, length, None)

    def put(self, path: str, data: bytes) -> None:
        """Write the object; it appears when it is complete."""
        self._refuse_web(path)
        self._run("write", path, lambda obstore, client: obstore.put(client, path, data, use_multipart=False))

    def put_file(self, path: str, source: Path) -> None:
        """Upload a local file in parts and remove it; the object appears when it is complete."""
        self._refuse_web(path)
        if source.stat().st_size <= PART_BYTES:
            self.put(path, source.read_bytes())
        else:
            self._run("write", path, lambda obstore, client: obstore.put(client, path, source, chunk_size=PART_BYTES))
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
        yield from sorted(entry for entry in found if not _is_temporary(entry[0]))

    def names(self, prefix: str = "") -> Sequence[tuple[str, bool]]:
        """Return (name, whether it is a folder) of what lies directly in the folder `prefix`, sorted."""
        self._refuse_listing()
        found = self._run(
            "list", prefix, lambda obstore, client: obstore.list_with_delimiter(client, prefix=prefix or None)
        )
        folders = {(str(path).rstrip("/").rpartition("/")[2], True) for path in found["common_prefixes"]}
        files = {(str(item["path"]).rpartition("/")[2], False) for item in found["objects"]}
        return sorted(entry for entry in folders | files if not entry[0].startswith(TEMPORARY_PREFIX))

    def stat(self, path: str) -> ObjectStat:
        """Return size and ETag of an object."""
        meta = self._run("read", path, lambda obstore, client: obstore.head(client, path))
        return ObjectStat(int(meta["size"]), str(meta.get("e_tag") or meta["last_modified"]))

    def open(self, path: str) -> IO[bytes]:
        """Open an object as a seekable file that reads ranges, more at a time the longer it is read in sequence.

        An object that is replaced meanwhile is an error at the next read.
        """
        meta = self._run("read", path, lambda obstore, client: obstore.head(client, path))
        reader = _RangeReader(self._range, path, int(meta["size"]), meta.get("e_tag"))
        return io.BufferedReader(reader, SMALLEST_READ_BYTES)

    def local_path(self, path: str) -> Path | None:
        """Return None: no object lies on a local disk."""
        return None

    def delete(self, path: str) -> None:
        """Remove the object if it is there."""
        self._refuse_web(path)
        if self.exists(path):
            self._run("delete", path, lambda obstore, client: obstore.delete(client, path))

    def _range(self, path: str, start: int, length: int, etag: str | None) -> bytes:
        """Return a range, part by part; each part that comes through starts the clock anew."""
        parts = []
        while length > 0:
            wanted = min(length, PART_BYTES)
            part = self._run("read", path, partial(_get_part, path=path, start=start, length=wanted, etag=etag))
            parts.append(part)
            if len(part) < wanted:
                break
            start, length = start + wanted, length - wanted
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _open_client(self) -> Any:
        if self._client is None or self._owner != os.getpid():
            self._client, self._owner = _make_client(self.url), os.getpid()
        return self._client

    def _run(self, verb: str, path: str, action: Callable[[Any, Any], T]) -> T:
        """Return what `action` returns, trying again while there is hope; raise StorageError when there is none."""
        import obstore

        started, pause, tries = time.monotonic(), FIRST_PAUSE_S, 0
        while True:
            tries += 1
            try:
                return action(obstore, self._open_client())
            except Exception as error:  # obstore's errors, and those of the runtime below it
                reason, hopeless = _diagnose(error)
                elapsed = time.monotonic() - started
                if hopeless or elapsed + pause > RETRY_SECONDS:
                    where = f"{self.url}/{path}".rstrip("/")
                    after = f" after {tries} tries in {elapsed:.0f} s" if tries > 1 else ""
                    raise StorageError(f"cannot {verb} {where}: {reason}{after}.") from error
                _log.info("%s %s/%s failed (%s), trying again", verb, self.url, path, reason)
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _refuse_web(self, path: str) -> None:
        if self._web:
            raise StorageError(f"cannot write {self.url}/{path}: a web server is read-only. Use s3://, gs:// or az://.")

    def _refuse_listing(self) -> None:
        if self._web:
            raise StorageError(
                f"cannot list {self.url}: a web server tells no names. Give the URL of one archive or collection."
            )


class _RangeReader(io.RawIOBase):
    """A seekable file over ranges; it asks for twice as much each time it is read on from where it stopped."""

    def __init__(
        self, read: Callable[[str, int, int, str | None], bytes], path: str, size: int, etag: str | None
    ) -> None:
        self._read = read
        self._path = path
        self._size = size
        self._etag = etag
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
            self._ahead = min(2 * self._ahead, PART_BYTES) if sequential else SMALLEST_READ_BYTES
            length = min(max(wanted, self._ahead), self._size - self._at)
            self._held = self._read(self._path, self._at, length, self._etag)
            self._start, inside = self._at, 0
            if len(self._held) < length:
                raise OSError(f"{self._path} ends after {self._at + len(self._held)} of {self._size} bytes")
        data = self._held[inside : inside + wanted]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _make_client(url: str) -> Any:
    from obstore.store import from_url

    options: dict[str, Any] = {"timeout": timedelta(seconds=REQUEST_SECONDS)}
    endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
    if (endpoint or url).startswith("http://"):
        options["allow_http"] = True
    if endpoint:
        _log.info("%s is served by %s", url, endpoint)
    retries = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}  # repeated here, where progress is known
    try:
        make: Any = from_url  # its overloads tell the clouds apart, which the URL does here
        return make(url, client_options=options, retry_config=retries)
    except Exception as error:  # a bad URL or an incomplete configuration
        raise StorageError(f"cannot open {url}: {_one_line(error)}.") from error


_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "GOOGLE_BASE_URL")


def _get_part(obstore: Any, client: Any, path: str, start: int, length: int, etag: str | None) -> bytes:
    """Return bytes [start, start + length) of an object, fewer only where it ends."""
    options: dict[str, Any] = {"range": (start, start + length)}
    if etag:
        options["if_match"] = etag
    try:
        answer = obstore.get(client, path, options=options)
    except Exception as error:
        if "416" in str(error) or "Range" in type(error).__name__ or "range" in str(error).lower():
            size = int(obstore.head(client, path)["size"])
            if start >= size:
                return b""
        raise
    data = bytes(answer.bytes())
    expected = min(start + length, int(answer.meta["size"])) - start
    if len(data) != expected:
        raise OSError(f"{len(data)} of {expected} bytes came")
    return data


def _diagnose(error: Exception) -> tuple[str, bool]:
    """Return what went wrong, in words, and whether trying again is hopeless."""
    from obstore import exceptions

    if isinstance(error, StorageError):
        return str(error).rstrip("."), True
    if isinstance(error, FileNotFoundError):
        return "there is no such object", True
    if isinstance(error, exceptions.UnauthenticatedError | exceptions.PermissionDeniedError):
        return "access is denied; check the credentials in the environment, profile or instance", True
    if isinstance(error, exceptions.PreconditionError):
        return "it was replaced while it was read; start again", True
    if isinstance(error, exceptions.NotSupportedError | exceptions.InvalidPathError):
        return _one_line(error), True
    return _one_line(error), False


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).partition("Debug source:")[0].split())  # the rest is the library's own structures
    for name, value in os.environ.items():
        if len(value) >= 4 and any(word in name.upper() for word in _SECRETS):
            text = text.replace(value, "***")
    return text[:300].rstrip(".: ") or type(error).__name__


def _is_temporary(path: str) -> bool:
    return path.rpartition("/")[2].startswith(TEMPORARY_PREFIX)
