"""Write a shard: a plain, byte-reproducible WebDataset tar, and the offsets and checksums of what is in it.

Reproducible means: fixed time, owner and mode, members of a sample in sorted order, samples in the order given.
Names are ASCII and at most 100 bytes, so that every header is one 512-byte ustar block and offsets are arithmetic.

Importing webdataset imports torch, some 600 MB in every process of a build; its TarWriter is `tarfile` with these
settings. Here `tarfile` makes one header, of which each member's differs in name, size and checksum; tests compare the
bytes with those of webdataset.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Mapping
from typing import IO

from gfm_pipeline.errors import ShardError
from gfm_pipeline.shards.checksum import crc32
from gfm_pipeline.shards.manifest import Member
from gfm_pipeline.shards.sample import check_key

BLOCK = tarfile.BLOCKSIZE
_MAX_SIZE = 8**11 - 1
"""What the eleven octal digits of a ustar header can tell."""
_SMALL_BYTES = 2**14
"""Shorter pieces are written together."""


def _common_header() -> bytes:
    info = tarfile.TarInfo()
    info.mode, info.mtime = 0o444, 0
    info.uname = info.gname = "gfm"
    return info.tobuf(tarfile.USTAR_FORMAT)


_HEADER = _common_header()
_NAME, _SIZE, _SUM = slice(0, 100), slice(124, 136), slice(148, 156)


class ShardTar:
    """One shard being written to an open binary file, which stays the caller's to close."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._small = bytearray()
        self._keys: set[str] = set()

    def add(self, key: str, members: Mapping[str, bytes]) -> dict[str, Member]:
        """Append the sample `key`; `members` maps "json" and "<sensor>.<ext>" to their bytes.

        Returns the record of each member under the same names. Raises ShardError for a name no reader would take.
        """
        check_key(key)
        if key in self._keys:
            raise ShardError(f"key {key} is in the shard already: readers would take two samples for one.")
        for name, data in members.items():  # all of them before the first byte is written
            if len(f"{key}.{name}") > 100 or not name.isascii() or name != name.lower() or name.startswith("_"):
                raise ShardError(f"{key}.{name} cannot be a member: lower-case ASCII of at most 100 bytes in all.")
            if len(data) > _MAX_SIZE:
                raise ShardError(f"{key}.{name} has {len(data)} bytes, a tar member at most {_MAX_SIZE}. Cut tiles.")
        records: dict[str, Member] = {}
        for name in sorted(members):
            data = members[name]
            records[name] = Member(
                extension=name.rpartition(".")[2], offset=self._size + BLOCK, size=len(data), crc32=crc32(data)
            )
            self._append(_header(f"{key}.{name}", len(data)))
            self._append(data)
            self._append(bytes(-len(data) % BLOCK))
        self._keys.add(key)
        return records

    def close(self) -> tuple[int, str]:
        """Finish the tar; return its size in bytes and its sha256."""
        self._append(bytes(2 * BLOCK))
        self._append(bytes(-self._size % tarfile.RECORDSIZE))
        self._pass_on_small()
        self._file.flush()
        return self._size, self._sha256.hexdigest()

    def _append(self, data: bytes) -> None:
        self._size += len(data)
        if len(data) < _SMALL_BYTES:
            self._small += data
            if len(self._small) >= _SMALL_BYTES:
                self._pass_on_small()
            return
        self._pass_on_small()
        self._write(data)
        self._hash(data)

    def _pass_on_small(self) -> None:
        """Write and hash what was gathered: headers, padding and records, most of the pieces and few of the bytes."""
        small, self._small = self._small, bytearray()
        self._write(small)
        self._hash(small)

    def _write(self, data: bytes | bytearray) -> None:
        self._file.write(data)

    def _hash(self, data: bytes | bytearray) -> None:
        self._sha256.update(data)


def _header(name: str, size: int) -> bytes:
    header = bytearray(_HEADER)
    header[_NAME] = name.encode("ascii").ljust(100, b"\0")
    header[_SIZE] = b"%011o\0" % size
    header[_SUM] = b" " * 8  # what the checksum counts for its own field
    header[_SUM] = b"%06o\0 " % sum(header)
    return bytes(header)
