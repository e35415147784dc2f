"""Raw archives read in place: folders, zip, tar and tar.gz, member by member, without unpacking.

Archives are hostile until proven otherwise. Only regular files are listed; links, devices and names that leave the
archive are refused with a reason, and a read is bounded by a limit whatever a header claims. Nothing is written to
disk under a name taken from an archive. They may lie in a local folder or in an object store, which is read by ranges.
"""

from shard_builder.archives.item_error import item_error
from shard_builder.archives.listing import Listing
from shard_builder.archives.member import Kind, Limits, MemberRef, Refused, kind_of
from shard_builder.archives.naming import LITTER, Passed, is_litter
from shard_builder.archives.reader import ArchiveReader

__all__ = [
    "LITTER",
    "ArchiveReader",
    "Kind",
    "Limits",
    "Listing",
    "MemberRef",
    "Passed",
    "Refused",
    "is_litter",
    "item_error",
    "kind_of",
]
