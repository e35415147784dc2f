"""Raw archives read in place: folders, zip, tar and tar.gz, member by member, without unpacking.

Archives are hostile until proven otherwise. Only regular files are listed; links, devices and names that leave the
archive are refused with a reason, and a read is bounded by a limit whatever a header claims. Nothing is written to
disk under a name taken from an archive.

A tar.gz cannot be entered in the middle. The plan reads it once, which lists its members, and keeps an index of
points to resume decompression from (the indexed_gzip library); workers start from the nearest point.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import indexed_gzip

from gfm_pipeline.errors import ArchiveError, ItemError, StorageError

Kind = Literal["folder", "zip", "tar", "tar.gz"]
SEEK_POINT_BYTES = 4 * 2**20
"""Decompressed bytes between two points of a tar.gz index."""


@dataclass(frozen=True)
class MemberRef:
    """Where the bytes of one item are."""

    archive: str
    """Path of the archive relative to the build's input; "" for a loose file."""
    kind: Kind
    member: str
    """Name inside the archive; for a loose file its path relative to the input."""
    size: int
    offset: int = 0
    """Of the content in the (decompressed) tar; of the local header in a zip."""

    @property
    def source_file(self) -> str:
        """How messages and records name the item."""
        return f"{self.archive}!{self.member}" if self.archive else self.member


@dataclass
class Listing:
    """What an archive holds: readable members, and the ones refused with the reason."""

    members: list[MemberRef] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


def archive_kind(path: Path) -> Kind | None:
    """Return the kind of archive that the name of `path` says it is, or None."""
    name = path.name.lower()
    if path.is_dir():
        return "folder"
    if name.endswith(".zip"):
        return "zip"
    if name.endswith((".tar.gz", ".tgz")):
        return "tar.gz"
    return "tar" if name.endswith(".tar") else None


def list_archive(root: Path, relative: str, index_folder: Path) -> Listing:
    """List the archive or folder `root / relative`; raise ArchiveError when it cannot be read to its end."""
    path = root / relative if relative else root
    kind = archive_kind(path)
    if kind == "folder":
        return _list_folder(root, relative)
    if kind == "zip":
        return _list_zip(path, relative)
    if kind in ("tar", "tar.gz"):
        return _list_tar(path, relative, kind, index_folder)
    raise ArchiveError(f"{path} is neither a folder nor a .zip, .tar or .tar.gz archive.")


class ArchiveReader:
    """Reads members of the archives below `root`; keeps the last few archives open. For one process."""

    def __init__(self, root: Path, index_folder: Path, max_member_bytes: int) -> None:
        self._root = root
        self._index_folder = index_folder
        self._limit = max_member_bytes
        self._open: dict[str, Any] = {}

    def read(self, ref: MemberRef) -> bytes:
        """Return the bytes of a member; raise ItemError when it is too large, cut short or damaged."""
        if ref.size > self._limit:
            raise ItemError(
                f"{ref.source_file} has {ref.size} bytes, the limit is {self._limit}. Set max_member_bytes higher if "
                "the file is genuine."
            )
        try:
            data = self._read(ref)
        except Exception as error:  # damaged zip members raise types of several libraries
            raise ItemError(f"cannot read {ref.source_file}: {error}. Copy or download the archive again.") from error
        if len(data) != ref.size:
            raise ItemError(f"{ref.source_file} holds {len(data)} bytes, its archive says {ref.size}.")
        return data

    def close(self) -> None:
        """Close all archives."""
        for handle in self._open.values():
            handle.close()
        self._open.clear()

    def _read(self, ref: MemberRef) -> bytes:
        if ref.kind == "folder":
            return _read_regular(self._root / ref.member, ref.size)
        handle = self._handle(ref)
        if ref.kind == "zip":
            with handle.open(_zip_entry(handle, ref)) as file:
                # One byte more than announced: a member that goes on is a lie, not to be decompressed further.
                data: bytes = file.read(ref.size + 1)
                return data
        handle.seek(ref.offset)
        found: bytes = handle.read(ref.size)
        return found

    def _handle(self, ref: MemberRef) -> Any:
        if ref.archive not in self._open:
            path = self._root / ref.archive if ref.archive != "." else self._root
            while len(self._open) >= 8:
                self._open.pop(next(iter(self._open))).close()
            self._open[ref.archive] = _open_archive(path, ref, self._index_folder)
        return self._open[ref.archive]


def index_path(index_folder: Path, relative: str) -> Path:
    """Return where the seek points of the tar.gz `relative` are kept."""
    return index_folder / f"{hashlib.sha256(relative.encode()).hexdigest()[:16]}.gzidx"


def unsafe_reason(name: str) -> str | None:
    """Return why a member name is refused, or None for a plain relative one."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or (parts and parts[0].endswith(":")):
        return "absolute path"
    if ".." in parts:
        return "path that leaves the archive"
    if not name.strip() or any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "empty or damaged name"
    return None


def printable(name: str) -> str:
    """Return a name as messages and records may hold it: one line of text that can be encoded."""
    return "".join(
        ascii(character)[1:-1] if unicodedata.category(character) in ("Cc", "Cs") else character for character in name
    )


def _open_archive(path: Path, ref: MemberRef, index_folder: Path) -> Any:
    if ref.kind == "zip":
        return zipfile.ZipFile(path)
    if ref.kind == "tar":
        return path.open("rb")
    return indexed_gzip.IndexedGzipFile(str(path), index_file=str(index_path(index_folder, ref.archive)))


def _zip_entry(archive: zipfile.ZipFile, ref: MemberRef) -> zipfile.ZipInfo:
    """Return the entry that was listed; a name alone would give the last of several."""
    entry = archive.getinfo(ref.member)
    if entry.header_offset == ref.offset:
        return entry
    return next(other for other in archive.infolist() if other.header_offset == ref.offset)


def _read_regular(path: Path, limit: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(limit + 1)


def _list_folder(root: Path, relative: str) -> Listing:
    listing = Listing()
    top = root / relative if relative else root
    for folder, names, files in os.walk(top, followlinks=False, onerror=_raise):
        names.sort()
        for name in sorted([*files, *(n for n in names if (Path(folder) / n).is_symlink())]):
            path = Path(folder) / name
            inside = path.relative_to(root).as_posix()
            reason = unsafe_reason(inside)
            if reason is None and (path.is_symlink() or not path.is_file()):
                reason = "link or special file"
            if reason is not None:
                listing.refused.append((printable(inside), reason))
            else:
                listing.members.append(MemberRef("", "folder", inside, path.stat().st_size))
    return listing


def _raise(error: OSError) -> None:
    raise ArchiveError(f"cannot read the folder {error.filename}: {error.strerror}. Make it readable.") from error


def _list_zip(path: Path, relative: str) -> Listing:
    listing = Listing()
    seen: set[str] = set()
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                reason = unsafe_reason(info.filename)
                if reason is None and (info.external_attr >> 16) & 0o170000 == 0o120000:
                    reason = "link"
                if reason is None and info.flag_bits & 1:
                    reason = "encrypted"
                if reason is None and info.filename in seen:
                    reason = "second member of this name"
                seen.add(info.filename)
                if reason is not None:
                    listing.refused.append((printable(info.filename), reason))
                else:
                    listing.members.append(
                        MemberRef(relative, "zip", info.filename, info.file_size, info.header_offset)
                    )
    except PermissionError as error:
        raise ArchiveError(f"cannot read {path}: {error.strerror}. Make it readable.") from error
    except (OSError, zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{path} is no readable zip archive: {error}. Copy or download it again.") from error
    return listing


def _list_tar(path: Path, relative: str, kind: Literal["tar", "tar.gz"], index_folder: Path) -> Listing:
    listing = Listing()
    last, at = "none", 0
    try:
        with _tar_stream(path, kind) as stream:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for info in archive:
                    last, at = info.name, info.offset
                    if info.isdir():
                        continue
                    if info.size < 0:
                        raise ValueError("a header with a negative size")
                    reason = unsafe_reason(info.name) or (None if info.isreg() else "link or device")
                    if reason is None and info.issparse():
                        reason = "sparse file"  # its bytes in the tar are not its content
                    if reason is not None:
                        listing.refused.append((printable(info.name), reason))
                    else:
                        listing.members.append(MemberRef(relative, kind, info.name, info.size, info.offset_data))
                    archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
                end = archive.offset
            _check_end(stream, end)
            if isinstance(stream, indexed_gzip.IndexedGzipFile):
                stream.build_full_index()  # reads to the end of the file, which checks its checksum if it is there
                _check_gzip_end(path, stream.seek(0, os.SEEK_END))
                _keep_index(stream, index_path(index_folder, relative))
    except StorageError:
        raise
    except PermissionError as error:
        raise ArchiveError(f"cannot read {path}: {error.strerror}. Make it readable.") from error
    except (OSError, EOFError, tarfile.TarError, zlib.error, RuntimeError, ValueError, OverflowError) as error:
        raise ArchiveError(
            f"{path} is damaged or cut short: {error} (in or after its member {printable(last)}, number "
            f"{len(listing.members)}, at byte {at} of the {'decompressed ' if kind == 'tar.gz' else ''}tar). "
            "Copy or download it again."
        ) from error
    return listing


def _keep_index(stream: indexed_gzip.IndexedGzipFile, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream.export_index(str(path))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}. Make room, or set output to another folder.") from error


def _tar_stream(path: Path, kind: Literal["tar", "tar.gz"]) -> IO[bytes]:
    if kind == "tar":
        return path.open("rb")
    if path.stat().st_size == 0:
        raise EOFError("the file is empty")
    stream: IO[bytes] = indexed_gzip.IndexedGzipFile(str(path), spacing=SEEK_POINT_BYTES)
    return stream


def _check_end(stream: IO[bytes], end: int) -> None:
    """Raise EOFError unless a zero block, tar's end mark, stands where the last member ends, and only zeros follow.

    tarfile takes a file that stops between two members, or whose next header is damaged, for a complete one.
    """
    stream.seek(end)
    mark = stream.read(tarfile.BLOCKSIZE)
    if mark != bytes(tarfile.BLOCKSIZE):
        raise EOFError("the end-of-archive mark is missing")
    while rest := stream.read(2**20):
        if rest.count(0) != len(rest):
            raise EOFError("there is more after the end-of-archive mark")


def _check_gzip_end(path: Path, num_bytes: int) -> None:
    """Raise EOFError unless the gzip file ends with the trailer of what was decompressed from it.

    A file cut inside its trailer decompresses without complaint. The trailer holds the size modulo 2^32; that of a
    file of several gzip members is the last one's, so only a full pass tells such a file from a cut one.
    """
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        if int.from_bytes(file.read(4), "little") == num_bytes % 2**32:
            return
    with gzip.open(path) as stream:
        while stream.read(2**20):
            pass
