"""Members of raw archives: where the bytes of one item are, and which names are refused."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal

from gfm_pipeline.errors import ArchiveError
from shard_builder.archives.parts import whole_name

Kind = Literal["folder", "zip", "tar", "tar.gz"]


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
    packed: int = 0
    """Compressed bytes of a zip member."""
    deflated: bool = False
    """Whether a zip member is compressed."""
    crc32: int | None = None
    """Of the content, where the archive tells it."""
    within: MemberRef | None = None
    """The archive itself, when it is a member of another one."""
    beside: tuple[MemberRef, ...] = ()
    """Small files of the same name that say where it lies: a world file, a coordinate reference system (.prj)."""
    mask: MemberRef | None = None
    """The file beside an image that says where something was measured (GDAL's x.tif.msk)."""

    @property
    def source_file(self) -> str:
        """How messages and records name the item."""
        return f"{self.archive}!{self.member}" if self.archive else self.member


@dataclass(frozen=True)
class Refused:
    """A member that is not read, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Limits:
    """What an archive may claim before it is taken for a bomb."""

    max_member_bytes: int
    max_ratio: float
    """Of decompressed to compressed bytes, for what is larger than RATIO_FROM_BYTES."""
    max_members: int

    def check_members(self, count: int, where: str) -> None:
        """Raise ArchiveError when `where` holds more members than it may."""
        if count > self.max_members:
            raise ArchiveError(
                f"{where} holds more than {self.max_members} files. Set max_members higher if it is genuine."
            )


RATIO_FROM_BYTES = 16 * 2**20
"""Small members cannot hurt, and an empty mask compresses a thousandfold."""


def kind_of(name: str) -> Literal["zip", "tar", "tar.gz"] | None:
    """Return the kind of archive that a file name (of a split one: of its first part) says it is, or None."""
    name = whole_name(name).lower()
    if name.endswith(".zip"):
        return "zip"
    if name.endswith((".tar.gz", ".tgz")):
        return "tar.gz"
    return "tar" if name.endswith(".tar") else None


def parts_of(name: str) -> list[str]:
    """Return the folders and the file of a relative name, as PurePosixPath has them."""
    return [part for part in name.split("/") if part not in ("", ".")]


def unsafe_reason(name: str) -> str | None:
    """Return why a member name is refused, or None for a plain relative one."""
    parts = parts_of(name.replace("\\", "/"))
    if name.startswith(("/", "\\")) or (parts and parts[0].endswith(":")):
        return "absolute path"
    if ".." in parts:
        return "path that leaves the archive"
    if not name.strip():
        return "empty or damaged name"
    if not (name.isascii() and name.isprintable()) and any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        return "empty or damaged name"
    return None


def printable(name: str) -> str:
    """Return a name as messages and records may hold it: one line of text that can be encoded."""
    return "".join(
        ascii(character)[1:-1] if unicodedata.category(character) in ("Cc", "Cs") else character for character in name
    )
