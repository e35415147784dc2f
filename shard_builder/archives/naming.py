"""What the names in an archive mean: members of one name in a tar, and the litter that desktops leave beside files."""

from __future__ import annotations

import hashlib
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from shard_builder.archives.member import MemberRef, Refused, parts_of

LITTER = "left by macOS or Windows beside the files (._*, __MACOSX, .DS_Store, Thumbs.db)"
REPLACED = "replaced by a later member of the same name"
_LITTER_NAMES = frozenset({".ds_store", "thumbs.db"})
_IN_MEMORY = 16 * 2**20


@dataclass(frozen=True)
class Passed:
    """A member that does not count, and why: nothing is wrong with it."""

    name: str
    reason: str


def is_litter(name: str) -> bool:
    """Return whether a file is no data whatever its extension: an AppleDouble shadow, or a folder's bookkeeping."""
    parts = parts_of(name)
    if any(part.startswith("._") or part == "__MACOSX" for part in parts):
        return True
    return bool(parts) and parts[-1].lower() in _LITTER_NAMES


def last_of_each_name(
    entries: Iterable[MemberRef | Refused], like: MemberRef, most: int, scratch: Path
) -> Iterator[MemberRef | Refused | Passed]:
    """Yield the entries of a tar, copies of `like`, as unpacking it leaves them: of one name the last one counts.

    It is yielded where the first of its name stood, so that what belongs together stays together. All entries are
    read before the first is yielded, at most `most` and one: a file in `scratch` holds them, memory 24 bytes of each.
    """
    with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(scratch)) as spool:
        hashes, starts = array("Q"), array("Q")
        for entry in islice(entries, most + 1):
            starts.append(spool.tell())
            name = entry.member if isinstance(entry, MemberRef) else entry.name
            plain = "/".join(parts_of(name)).encode()
            hashes.frombytes(hashlib.blake2b(plain, digest_size=16).digest())
            spool.write(_line(entry))
        last = _last_of_each(np.frombuffer(hashes, np.uint64).reshape(-1, 2))
        spool.seek(0)
        for number, start in enumerate(starts):
            if last.get(number, number) is None:
                spool.seek(start)
                dropped = _entry(spool, like)
                name = dropped.member if isinstance(dropped, MemberRef) else dropped.name
                yield Passed(name, REPLACED)
                continue
            spool.seek(starts[last.get(number, number) or 0])
            yield _entry(spool, like)


def _last_of_each(hashes: np.ndarray[tuple[int, ...], np.dtype[np.uint64]]) -> dict[int, int | None]:
    """Return, for entries whose name occurs again, the number of its last entry; None where it is not the first."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: of equal ones the earlier comes first
    found: dict[int, int | None] = {}
    first = 0
    for at in np.flatnonzero((hashes[order][1:] == hashes[order][:-1]).all(axis=1)):
        earlier, later = int(order[at]), int(order[at + 1])
        first = first if earlier in found else earlier  # the name of the pair before, or another one
        found[first], found[later] = later, None
    return found


def _line(entry: MemberRef | Refused) -> bytes:
    """Return an entry as a line; names have no control characters, which are refused before."""
    if isinstance(entry, MemberRef):
        return f"{entry.size}\t{entry.offset}\t{entry.member}\n".encode()
    return f"\t{entry.reason}\t{entry.name}\n".encode()


def _entry(spool: IO[bytes], like: MemberRef) -> MemberRef | Refused:
    first, second, name = spool.readline().decode().rstrip("\n").split("\t", 2)
    return replace(like, member=name, size=int(first), offset=int(second)) if first else Refused(name, second)
