"""The files of published archives, wherever a user left them: packed, unpacked, or packed in one archive."""

from __future__ import annotations

import re
from collections.abc import Iterator

from shard_builder.archives import MemberRef, kind_of
from shard_builder.sources.base import InputView


def files_of(view: InputView, names: re.Pattern[str], parts: re.Pattern[str]) -> Iterator[tuple[str, MemberRef]]:
    """Yield (name in the input, file) of the archives and folders that `names` matches; archives in them are entered.

    Folders and archives that `parts` matches, and loose files, are parts of the input as an unpacked archive itself:
    they come with "" for a name. All else is taken note of.
    """
    used = {name: bool(view.only or names.fullmatch(name)) for name in view.names() if view.kind(name)}
    used = {name: packed for name, packed in used.items() if packed or parts.fullmatch(name)}
    for name, packed in used.items():
        for ref in view.open(name):
            for file in _entered(view, ref):
                yield (name if packed else ""), file
    loose = [name for name in view.names() if view.kind(name) is None and not view.only]
    for name in loose:
        local = view.store.local_path(name)
        # Of a link itself, which may lead nowhere: it is refused when it is read.
        size = view.store.stat(name).size if local is None else local.lstat().st_size
        yield "", MemberRef("", "folder", name, size)
    view.ignore_rest([*used, *loose], f"not part of {view.config.source}")


def _entered(view: InputView, ref: MemberRef) -> Iterator[MemberRef]:
    """Yield a file, or the files of the archive that it is; a loose archive is opened where it lies."""
    if kind_of(ref.member) is None or ref.within is not None:
        yield ref
    elif ref.archive:
        yield from view.enter(ref)
    else:
        yield from view.open(ref.member)
