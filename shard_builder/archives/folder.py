"""Loose files, in a local folder or below a prefix of an object store."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from gfm_pipeline.errors import ArchiveError
from gfm_pipeline.storage import Store
from gfm_pipeline.storage.local import open_regular
from shard_builder.archives.member import MemberRef, Refused, printable, unsafe_reason


def list_folder(store: Store, relative: str) -> Iterator[MemberRef | Refused]:
    """Yield the files below the folder `relative` of `store`, sorted; links and special files are refused."""
    root = store.local_path("")
    if root is not None:
        yield from _list_local(root, relative)
        return
    for path, size in store.walk(relative):
        reason = unsafe_reason(path)
        yield Refused(printable(path), reason) if reason else MemberRef("", "folder", path, size)


def read_local(path: str, most: int) -> bytes:
    """Return at most `most` bytes of a local file that is no link."""
    with open_regular(path, links=False) as file:
        return file.read(most)


def _list_local(root: Path, relative: str) -> Iterator[MemberRef | Refused]:
    top = root / relative if relative else root
    for folder, names, files in os.walk(top, followlinks=False, onerror=_raise):
        names.sort()
        prefix = Path(folder).relative_to(root).as_posix() + "/" if Path(folder) != root else ""
        for name in sorted([*files, *(n for n in names if os.path.islink(f"{folder}/{n}"))]):
            inside = prefix + name
            reason = unsafe_reason(inside)
            try:
                found = os.lstat(f"{folder}/{name}")
            except FileNotFoundError:
                yield Refused(printable(inside), "gone while the folder was read")
                continue
            except OSError as error:  # the folder may be listed, what is in it may not be looked at
                error.filename = folder
                _raise(error)
            if reason is None and not stat.S_ISREG(found.st_mode):
                reason = "link or special file"
            if reason is not None:
                yield Refused(printable(inside), reason)
            else:
                yield MemberRef("", "folder", inside, found.st_size)


def _raise(error: OSError) -> NoReturn:
    raise ArchiveError(f"cannot read the folder {error.filename}: {error.strerror}. Make it readable.") from error
