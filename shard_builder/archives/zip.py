"""Zip archives: listed from their directory at the end, members read on their own.

A member is read from the place the directory names, without opening the directory again: a worker's memory does not
grow with the number of members.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from gfm_pipeline.errors import ArchiveError, GfmError, ItemError
from shard_builder.archives.member import RATIO_FROM_BYTES, Limits, MemberRef, Refused, printable, unsafe_reason
from shard_builder.archives.naming import REPLACED, Passed
from shard_builder.archives.section import section

_LOCAL_HEADER = struct.Struct("<4s22xHH")
PIECE_BYTES = 2**20
_WINDOWS = 0
"""`create_system` of MS-DOS and Windows."""


def list_zip(file: IO[bytes], like: MemberRef, where: str, limits: Limits) -> Iterator[MemberRef | Refused | Passed]:
    """Yield the members of the zip in `file`, each a copy of `like` with its own name, place and size.

    Of one name the last one counts, as unpacking leaves it: zarr writes the metadata of a store twice and more.
    Raises ArchiveError for what is no readable zip.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if archive.infolist() and min(info.header_offset for info in archive.infolist()) > 0:
                # A cut zip whose last whole member is a zip itself would be taken for that one.
                raise zipfile.BadZipFile("it does not begin with its first member, so it is cut short or no plain zip")
            limits.check_members(sum(not info.is_dir() for info in archive.infolist()), where)
            last = {_name(info): info for info in archive.infolist()}
            for listed in archive.infolist():
                name = _name(listed)
                if name.endswith("/"):
                    continue
                info = last.pop(name, None)  # where the first of its name stands, so that what goes together stays so
                if info is None:
                    yield Passed(printable(name), REPLACED)
                    continue
                reason = unsafe_reason(name) or _zip_reason(info, limits)
                if reason is not None:
                    yield Refused(printable(name), reason)
                    continue
                yield replace(
                    like,
                    member=name,
                    size=info.file_size,
                    offset=info.header_offset,
                    packed=info.compress_size,
                    deflated=info.compress_type == zipfile.ZIP_DEFLATED,
                    crc32=info.CRC,
                )
    except GfmError:
        raise
    except PermissionError as error:
        raise ArchiveError(f"cannot read {where}: {error.strerror}. Make it readable.") from error
    except Exception as error:  # zipfile raises many types for what is no zip
        raise ArchiveError(f"{where} is no readable zip archive: {error}. Copy or download it again.") from error


def _name(info: zipfile.ZipInfo) -> str:
    """Return the name of a member: Windows tools write "a\\b" for b in the folder a, others mean the character."""
    return info.filename.replace("\\", "/") if info.create_system == _WINDOWS else info.filename


def open_stored(file: IO[bytes], ref: MemberRef) -> IO[bytes]:
    """Return the bytes of `ref` as the zip stores them, packed or not; raise ItemError when they are not there."""
    file.seek(ref.offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
        raise ItemError(f"{ref.source_file} does not begin where its archive says. Copy or download it again.")
    _, name, extra = _LOCAL_HEADER.unpack(header)
    return section(file, ref.offset + _LOCAL_HEADER.size + name + extra, ref.packed)


def read_stored(packed: IO[bytes], ref: MemberRef) -> bytes:
    """Return the bytes of a member that is not compressed; raise ItemError when they have another checksum."""
    data = packed.read()
    if zlib.crc32(data) != ref.crc32:
        raise ItemError(f"{ref.source_file} has crc32 {zlib.crc32(data):08x}, its archive says {ref.crc32 or 0:08x}.")
    return data


def inflate(packed: IO[bytes], ref: MemberRef, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """Yield the decompressed bytes of a member piece by piece.

    Raises ItemError when they are not exactly as many as announced, or have another checksum: what goes on beyond its
    announced size is a lie and not decompressed further.
    """
    engine = zlib.decompressobj(-15)
    left, crc = ref.size, 0
    data = b""
    while not engine.eof:
        data = engine.unconsumed_tail or packed.read(PIECE_BYTES)
        piece = engine.decompress(data, min(left + 1, piece_bytes))
        if len(piece) > left or (not data and not piece):
            break
        left -= len(piece)
        crc = zlib.crc32(piece, crc)
        yield piece
    if left or not engine.eof:
        raise ItemError(f"{ref.source_file} does not hold the {ref.size} bytes its archive says.")
    if crc != ref.crc32:
        raise ItemError(f"{ref.source_file} has crc32 {crc:08x}, its archive says {ref.crc32 or 0:08x}.")


def _zip_reason(info: zipfile.ZipInfo, limits: Limits) -> str | None:
    if (info.external_attr >> 16) & 0o170000 == 0o120000:
        return "link"
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compressed by method {info.compress_type}, expected stored or deflated"
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        return "stored with two different sizes"
    if info.file_size > RATIO_FROM_BYTES and info.file_size > limits.max_ratio * max(info.compress_size, 1):
        return f"decompresses to more than {limits.max_ratio:g} times its size (max_ratio)"
    return None
