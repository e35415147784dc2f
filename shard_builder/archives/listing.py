"""What an archive or folder holds, told one member at a time, and its provenance once all is told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from gfm_pipeline.shards.manifest import InputFile
from shard_builder.archives.member import Limits, MemberRef, Refused
from shard_builder.archives.naming import Passed


class Listing:
    """An iterable of members; read once, to its end, for the provenance."""

    def __init__(
        self, relative: str, where: str, entries: Iterable[MemberRef | Refused | Passed], limits: Limits
    ) -> None:
        self._relative = relative
        self._where = where
        self.entries = entries
        self._limits = limits
        self._hash = hashlib.sha256()
        self._files = 0
        self._bytes = 0
        self.checksum = b""
        """What the archive itself says of all its content together, if it does."""
        self.archive_bytes: int | None = None
        """Size of the archive; None for a folder, which counts as all of its files."""
        self.synthetic = False
        """Whether the archive says that its images show no real place."""

    def __iter__(self) -> Iterator[MemberRef | Refused | Passed]:
        """Yield members, refusals and what does not count.

        Raises ArchiveError for more members than the limit allows.
        """
        for entry in self.entries:
            self._files += 1
            self._limits.check_members(self._files, self._where)
            if isinstance(entry, MemberRef):
                self._bytes += entry.size
                self._hash.update(f"{entry.member}\0{entry.size}\0{entry.crc32}\n".encode())
            yield entry

    @property
    def provenance(self) -> InputFile:
        """The record of what was listed: names, sizes and whatever checksums the archive carries."""
        size = self._bytes if self.archive_bytes is None else self.archive_bytes
        told = f"{self._hash.hexdigest()}:{self.checksum.hex()}"
        return InputFile(path=self._relative or ".", bytes=size, items=self._files, fingerprint=told)
