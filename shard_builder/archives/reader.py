"""Lists archives and reads their members; keeps the last few archives open. For one process."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import indexed_gzip

from gfm_pipeline.errors import ArchiveError, ItemError, StorageError
from gfm_pipeline.shards.manifest import InputFile
from gfm_pipeline.storage import Store
from gfm_pipeline.storage.local import open_regular
from shard_builder.archives.folder import list_folder, read_local
from shard_builder.archives.item_error import item_error
from shard_builder.archives.listing import Listing
from shard_builder.archives.member import Limits, MemberRef, Refused, kind_of
from shard_builder.archives.naming import Passed, last_of_each_name
from shard_builder.archives.origin import is_synthetic
from shard_builder.archives.parts import open_archive
from shard_builder.archives.section import section
from shard_builder.archives.tar import gzip_trailer, list_tar
from shard_builder.archives.zip import inflate, list_zip, open_stored, read_stored

INDEX_PREFIX = ".build/index"
"""Where, below the output, the seek points of tar.gz archives are kept for the workers."""
OPEN_ARCHIVES = 8
T = TypeVar("T")


class ArchiveReader:
    """Reads the archives below one store. `scratch` is a local folder for what has to be decompressed to disk.

    `trusted`: whether the user lets files lead their readers to others.
    """

    def __init__(self, store: Store, indexes: Store, scratch: Path, limits: Limits, trusted: bool = False) -> None:
        self._store = store
        self._trusted = trusted
        self._root = store.local_path("")
        self._indexes = indexes
        self._scratch = scratch
        self._limits = limits
        self._open: dict[tuple[str, int], IO[bytes]] = {}
        self._kept: dict[str, tuple[MemberRef, Any]] = {}

    def list(self, relative: str) -> Listing:
        """List an archive of the input, or a folder ("" for all of it).

        Reading it to its end raises ArchiveError when it is damaged, cut short or a bomb.
        """
        kind = kind_of(relative)
        where = f"{self._store.url}/{relative}" if relative else self._store.url
        if kind is None or self._is_folder(relative):
            return Listing(relative, where, list_folder(self._store, relative), self._limits)
        listing = Listing(relative, where, (), self._limits)
        listing.entries = self._list_archive(listing, MemberRef(relative, kind, "", 0), where)
        return listing

    def list_inside(self, ref: MemberRef) -> Listing:
        """List an archive that is a member of another one; raise ArchiveError for one that is nested deeper."""
        kind = kind_of(ref.member)
        if kind is None or ref.within is not None:
            raise ArchiveError(f"{ref.source_file} is no archive, or nested too deep: unpack it first.")
        listing = Listing(ref.source_file, ref.source_file, (), self._limits)
        like = MemberRef(ref.source_file, kind, "", 0, within=ref)
        listing.entries = self._list_archive(listing, like, ref.source_file)
        return listing

    def is_as_recorded(self, recorded: InputFile) -> bool:
        """Return whether an input still is what it was, as far as that shows without decompressing it."""
        if "!" in recorded.path:
            return True  # its outer archive is asked
        relative = "" if recorded.path == "." else recorded.path
        kind = kind_of(relative)
        if kind in ("tar", "tar.gz") and not self._is_folder(relative):
            with open_archive(self._store, relative) as file:
                known = recorded.fingerprint.partition(":")[2]
                same = file.seek(0, 2) == recorded.bytes
                return same and (kind == "tar" or gzip_trailer(file).hex() == known)
        listing = self.list(relative)
        for _ in listing:
            pass
        return listing.provenance == recorded

    def read(self, ref: MemberRef) -> bytes:
        """Return the bytes of a member; raise ItemError when it is too large, cut short or damaged."""
        self._check_size(ref)
        try:
            data = self._read(ref)
        except (ItemError, StorageError):
            raise
        except Exception as error:  # damaged archives raise types of several libraries
            raise ItemError(f"cannot read {ref.source_file}: {error}. Copy or download the archive again.") from error
        if len(data) != ref.size:
            raise ItemError(f"{ref.source_file} holds {len(data)} bytes, its archive says {ref.size}.")
        return data

    def head(self, ref: MemberRef, length: int) -> bytes:
        """Return the first `length` bytes of a member, unchecked: for a look at its header."""
        try:
            if ref.kind == "folder" and self._root is not None:
                return read_local(f"{self._root}/{ref.member}", length)
            if ref.kind == "zip" and ref.deflated:
                pieces = inflate(open_stored(self._archive(ref), ref), ref, min(length, ref.size))
                return next(pieces, b"")[:length]
            with self.open(ref) as file:
                return file.read(length)
        except StorageError:
            raise
        except Exception as error:  # damaged archives raise types of several libraries
            raise ItemError(f"cannot read {ref.source_file}: {error}. Copy or download the archive again.") from error

    def trusted_path(self, ref: MemberRef) -> Path | None:
        """Return the local path of a file that may lead its reader to other files; None for all others."""
        if not self._trusted or ref.kind != "folder" or self._root is None:
            return None
        return Path(self._root) / ref.member

    def open(self, ref: MemberRef) -> IO[bytes]:
        """Return a member as a seekable file, for the caller to close; its bytes are not held in memory.

        A compressed member of a zip is decompressed to the scratch folder first. Raises ItemError when it is damaged.
        """
        if ref.kind == "folder":
            if self._root is None:
                return self._store.open(ref.member)
            try:
                return open_regular(f"{self._root}/{ref.member}", links=False)
            except OSError as error:  # gone, not to be read, or a pipe: the fault of this file alone
                raise item_error(error, ref.source_file) from error
        if ref.kind != "zip":
            return section(self._archive(ref), ref.offset, ref.size)
        packed = open_stored(self._archive(ref), ref)
        if not ref.deflated:
            return packed
        self._check_size(ref)
        try:
            spilled = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115
            for piece in inflate(packed, ref):
                spilled.write(piece)
        except OSError as error:
            raise StorageError(
                f"cannot decompress {ref.source_file} to {self._scratch}: {error.strerror}. Make room there."
            ) from error
        spilled.seek(0)
        return spilled

    def keep(self, slot: str, ref: MemberRef, make: Callable[[MemberRef], T]) -> T:
        """Return what `make` makes of a member. The last one of a slot is kept: tiles of an image follow each other.

        What has a `close` is closed when the next one of its slot is asked for.
        """
        if slot not in self._kept or self._kept[slot][0] != ref:
            self._drop(slot)  # before the next one is opened: it may be gigabytes
            self._kept[slot] = ref, make(ref)
        found: T = self._kept[slot][1]
        return found

    def close(self) -> None:
        """Close all archives, and what is kept of them."""
        for slot in list(self._kept):
            self._drop(slot)
        for file in self._open.values():
            file.close()
        self._open.clear()

    def _drop(self, slot: str) -> None:
        _, kept = self._kept.pop(slot, (None, None))
        close = getattr(kept, "close", None)
        if close is not None:
            close()

    def _is_folder(self, relative: str) -> bool:
        local = self._store.local_path(relative)
        return local is not None and local.is_dir()

    def _check_size(self, ref: MemberRef) -> None:
        if ref.size > self._limits.max_member_bytes:
            raise ItemError(
                f"{ref.source_file} has {ref.size} bytes, the limit is {self._limits.max_member_bytes}. Set "
                "max_member_bytes higher if the file is genuine."
            )

    def _list_archive(self, listing: Listing, like: MemberRef, where: str) -> Iterator[MemberRef | Refused | Passed]:
        file = self._file(like)
        try:
            listing.archive_bytes = file.seek(0, 2)
            listing.synthetic = is_synthetic(file, like.kind)
            file.seek(0)
            if like.kind == "zip":
                yield from list_zip(file, like, where, self._limits)
            else:
                listed = list_tar(file, like, where, self._limits, lambda stream: self._keep_index(like, stream))
                yield from last_of_each_name(listed, like, self._limits.max_members, self._scratch)
            if like.kind == "tar.gz":
                listing.checksum = gzip_trailer(file)
        finally:
            file.close()

    def _read(self, ref: MemberRef) -> bytes:
        if ref.kind == "folder":
            if self._root is None:
                return self._store.get(ref.member)
            return read_local(f"{self._root}/{ref.member}", ref.size + 1)  # one more than it had tells a longer one
        archive = self._archive(ref)
        if ref.kind == "zip":
            packed = open_stored(archive, ref)
            return b"".join(inflate(packed, ref)) if ref.deflated else read_stored(packed, ref)
        archive.seek(ref.offset)
        return archive.read(ref.size)

    def _file(self, ref: MemberRef) -> IO[bytes]:
        """Open the archive that holds `ref`, as it is."""
        return self.open(ref.within) if ref.within else open_archive(self._store, ref.archive)

    def _archive(self, ref: MemberRef) -> IO[bytes]:
        """Return the archive that holds `ref`, decompressed if it is a tar.gz."""
        name = (ref.archive, ref.within.offset if ref.within else -1)
        if name not in self._open:
            while len(self._open) >= OPEN_ARCHIVES:
                self._open.pop(next(iter(self._open)))  # closed with the last member that is read from it
            file = self._file(ref)
            self._open[name] = self._gunzipped(ref, file) if ref.kind == "tar.gz" else file
        return self._open[name]

    def _gunzipped(self, ref: MemberRef, file: IO[bytes]) -> IO[bytes]:
        index = _index_path(ref)
        stream: IO[bytes]
        if not self._indexes.exists(index):
            stream = indexed_gzip.IndexedGzipFile(fileobj=file)  # slower: it starts at the beginning
            return stream
        local = self._indexes.local_path(index)
        if local is None:
            local = self._scratch / Path(index).name
            local.write_bytes(self._indexes.get(index))
        stream = indexed_gzip.IndexedGzipFile(fileobj=file, index_file=str(local))
        return stream

    def _keep_index(self, ref: MemberRef, stream: Any) -> None:
        path = self._scratch / f"{Path(_index_path(ref)).name}.new"
        try:
            stream.export_index(str(path))
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error}. Make room on that disk.") from error
        self._indexes.put_file(_index_path(ref), path)


def _index_path(ref: MemberRef) -> str:
    return f"{INDEX_PREFIX}/{hashlib.sha256(ref.archive.encode()).hexdigest()[:16]}.gzidx"
