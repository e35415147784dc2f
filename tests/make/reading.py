"""Short ways to list and read raw archives in tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gfm_pipeline.storage import LocalStore
from shard_builder.archives import ArchiveReader, Limits, MemberRef, Refused


@dataclass
class Listed:
    """What an archive holds: readable members, and the ones refused with the reason."""

    members: list[MemberRef] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


def reader(root: Path, work: Path, **limits: float) -> ArchiveReader:
    """Return a reader of the archives in `root` that keeps its indexes below `work`."""
    known = {"max_member_bytes": 10**9, "max_ratio": 200.0, "max_members": 10**6}
    return ArchiveReader(LocalStore(root), LocalStore(work), work, Limits(**known | limits))  # type: ignore[arg-type]


def list_archive(root: Path, name: str, work: Path, **limits: float) -> Listed:
    """List an archive or folder of `root` to its end."""
    if not work.exists():
        work.mkdir()
    listed = Listed()
    for entry in reader(root, work, **limits).list(name):
        if isinstance(entry, MemberRef):
            listed.members.append(entry)
        elif isinstance(entry, Refused):
            listed.refused.append((entry.name, entry.reason))
    return listed
