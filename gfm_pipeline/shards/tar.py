"""Write a shard: a plain, byte-reproducible WebDataset tar, and the offsets and checksums of what is in it.

Reproducible means: fixed time, owner and mode, members of a sample in sorted order, samples in the order given.
Names are ASCII and at most 100 bytes, so that every header is one 512-byte ustar block and offsets are arithmetic.

Importing webdataset imports torch, some 600 MB in every process of a build; its TarWriter is `tarfile` with these
settings, so `tarfile` writes here, and tests read with webdataset.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections.abc import Mapping
from typing import IO, cast

from gfm_pipeline.errors import ShardError
from gfm_pipeline.shards.manifest import Member
from gfm_pipeline.shards.sample import check_key

BLOCK = 512


class _HashingFile:
    """A write-only stream that passes bytes on and keeps their sha256 and count."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self.sha256.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()


class ShardTar:
    """One shard being written to an open binary file, which stays the caller's to close."""

    def __init__(self, file: IO[bytes]) -> None:
        self._stream = _HashingFile(file)
        output = cast(IO[bytes], self._stream)  # a tar stream only writes
        self._tar = tarfile.open(fileobj=output, mode="w|", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._keys: set[str] = set()

    def add(self, key: str, members: Mapping[str, bytes]) -> dict[str, Member]:
        """Append the sample `key`; `members` maps "json" and "<sensor>.<ext>" to their bytes.

        Returns the record of each member under the same names. Raises ShardError for a name no reader would take.
        """
        check_key(key)
        if key in self._keys:
            raise ShardError(f"key {key} is in the shard already: readers would take two samples for one.")
        for name in members:  # all of them before the first byte is written
            if len(f"{key}.{name}") > 100 or not name.isascii() or name != name.lower() or name.startswith("_"):
                raise ShardError(f"{key}.{name} cannot be a member: lower-case ASCII of at most 100 bytes in all.")
        records: dict[str, Member] = {}
        for name in sorted(members):
            data = members[name]
            records[name] = Member(
                extension=name.rpartition(".")[2],
                offset=self._tar.offset + BLOCK,
                size=len(data),
                crc32=zlib.crc32(data),
            )
            self._append(f"{key}.{name}", data)
        self._keys.add(key)
        return records

    def _append(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), 0o444, 0
        info.uname = info.gname = "gfm"
        end = self._tar.offset + BLOCK + -(-len(data) // BLOCK) * BLOCK
        self._tar.addfile(info, io.BytesIO(data))
        assert self._tar.offset == end, "a tar header was not one block"
        self._tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header otherwise

    def close(self) -> tuple[int, str]:
        """Finish the tar; return its size in bytes and its sha256."""
        self._tar.close()
        self._stream.flush()
        return self._stream.size, self._stream.sha256.hexdigest()

    def abandon(self) -> None:
        """Give up: nothing more is written, and the tar is left without its end mark."""
        self._tar.fileobj.closed = True  # type: ignore[attr-defined]  # else tarfile writes to the closed file when collected
