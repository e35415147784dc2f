"""Tar and tar.gz archives.

A tar.gz cannot be entered in the middle. Listing it reads it once and keeps an index of points to resume
decompression from (the indexed_gzip library); readers start from the nearest point.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO, Any, cast

import indexed_gzip

from gfm_pipeline.errors import ArchiveError, GfmError
from shard_builder.archives.member import RATIO_FROM_BYTES, Limits, MemberRef, Refused, printable, unsafe_reason

MAX_HEADER_BYTES = 2**20
"""Of a long name or the records of a pax header: a thousand times what they are."""
MAX_PADDING_BYTES = 2**30
MAX_PADDING_SECONDS = 60.0
"""What is read of the zeros behind an archive's end: a sparse file can hold any number of them."""
SEEK_POINT_BYTES = 4 * 2**20
"""Decompressed bytes between two points of a tar.gz index."""


def list_tar(
    file: IO[bytes], like: MemberRef, where: str, limits: Limits, keep_index: Callable[[Any], None]
) -> Iterator[MemberRef | Refused]:
    """Yield the members of the tar or tar.gz in `file`, each a copy of `like` with its own name, place and size.

    `keep_index` is given the decompressor of a tar.gz that was read to its end. Raises ArchiveError for an archive
    that is damaged, cut short or a bomb.
    """
    last, at, number, files = "none", 0, 0, 0
    zipped = like.kind == "tar.gz"
    try:
        packed_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        stream = _gunzip(file) if zipped else file
        with tarfile.open(fileobj=cast(Any, _Headers(stream)), mode="r:") as archive:
            for info in archive:
                last, at, number = info.name, info.offset, number + 1
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
                if zipped and info.offset > max(RATIO_FROM_BYTES, limits.max_ratio * file.tell()):
                    raise ArchiveError(
                        f"{where} decompresses to more than {limits.max_ratio:g} times its size: refused as a bomb. "
                        "Set max_ratio higher if it is genuine."
                    )
                if info.isdir():
                    continue
                files += 1
                limits.check_members(files, where)
                if info.size < 0:
                    raise ValueError("a header with a negative size")
                reason = unsafe_reason(info.name) or (None if info.isreg() else "link or device")
                if reason is None and info.issparse():
                    reason = "sparse file"  # its bytes in the tar are not its content
                if reason is not None:
                    yield Refused(printable(info.name), reason)
                else:
                    yield replace(like, member=info.name, size=info.size, offset=info.offset_data)
            end = archive.offset
        _check_end(stream, end, limits.max_ratio * packed_bytes if zipped else None)
        if zipped:
            stream.build_full_index()  # type: ignore[attr-defined]  # to the end, which checks the checksum there
            _check_gzip_end(file, stream.seek(0, os.SEEK_END))
            keep_index(stream)
    except GfmError:
        raise
    except PermissionError as error:
        raise ArchiveError(f"cannot read {where}: {error.strerror}. Make it readable.") from error
    except Exception as error:  # tarfile and zlib raise many types for what is no tar
        raise ArchiveError(
            f"{where} is damaged or cut short: {error} (in or after its member {printable(last)}, number "
            f"{number}, at byte {at} of the {'decompressed ' if zipped else ''}tar). Copy or download it again."
        ) from error


def gzip_trailer(file: IO[bytes]) -> bytes:
    """Return the checksum and size that a gzip file ends with."""
    file.seek(-8, os.SEEK_END)
    return file.read(8)


def _gunzip(file: IO[bytes]) -> IO[bytes]:
    if file.seek(0, os.SEEK_END) == 0:
        raise EOFError("the file is empty")
    file.seek(0)
    stream: IO[bytes] = indexed_gzip.IndexedGzipFile(fileobj=file, spacing=SEEK_POINT_BYTES)
    return stream


class _Headers:
    """A tar for `tarfile`, which believes what a header says of the length of its extension and reads it at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; raise ValueError for more than any header needs."""
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise ValueError(f"a header claims an extension of {size} bytes, at most {MAX_HEADER_BYTES} are read")
        return self._file.read(size)


def _check_end(stream: IO[bytes], end: int, most: float | None) -> None:
    """Raise EOFError unless a zero block, tar's end mark, stands where the last member ends, and only zeros follow.

    Raises ValueError for more zeros than the limits of padding allow, or than the `most` bytes of a tar.gz.

    tarfile takes a file that stops between two members, or whose next header is damaged, for a complete one.
    """
    stream.seek(end)
    mark = stream.read(tarfile.BLOCKSIZE)
    if mark != bytes(tarfile.BLOCKSIZE):
        raise EOFError("the end-of-archive mark is missing")
    begun, at = time.monotonic(), end + len(mark)
    while rest := stream.read(2**20):
        if rest.count(0) != len(rest):
            raise EOFError("there is more after the end-of-archive mark")
        at += len(rest)
        if at - end > MAX_PADDING_BYTES or time.monotonic() - begun > MAX_PADDING_SECONDS:
            raise ValueError(
                f"more than {at - end >> 20} MiB of zeros follow the end-of-archive mark; cut it with truncate "
                f"--size {end + 2 * tarfile.BLOCKSIZE} if it is genuine"
            )
        if most is not None and at > max(RATIO_FROM_BYTES, most):
            raise ValueError("it decompresses to more than max_ratio times its size: refused as a bomb")


def _check_gzip_end(file: IO[bytes], num_bytes: int) -> None:
    """Raise EOFError unless the gzip file ends with the trailer of what was decompressed from it.

    A file cut inside its trailer decompresses without complaint. The trailer holds the size modulo 2^32; that of a
    file of several gzip members is the last one's, so only a full pass tells such a file from a cut one.
    """
    if int.from_bytes(gzip_trailer(file)[4:], "little") == num_bytes % 2**32:
        return
    file.seek(0)
    with gzip.GzipFile(fileobj=file) as stream:
        while stream.read(2**20):
            pass
