"""The files of published archives, wherever a user left them: packed, unpacked, or packed in one archive."""

from __future__ import annotations

import re
from collections.abc import Iterator

from shard_builder.archives import MemberRef, kind_of
from shard_builder.source import InputView


def files_of(view: InputView, names: re.Pattern[str], parts: re.Pattern[str]) -> Iterator[tuple[str, MemberRef]]:
    """Yield (name in the input, file) of the archives and folders that `names` matches; archives in them are entered.

    Where none is there, but a folder or archive that `parts` matches, the input is an unpacked archive itself: its
    files come with "" for a name. All else is taken note of.
    """
    used = [name for name in view.names() if view.kind(name) and (view.only or names.fullmatch(name))]
    inside = [name for name in view.names() if view.kind(name) and parts.fullmatch(name)] if not used else []
    for name in used or inside:
        for ref in view.open(name):
            for file in _entered(view, ref):
                yield (name if used else ""), file
    view.ignore_rest([*used, *inside], f"not part of {view.config.source}")


def _entered(view: InputView, ref: MemberRef) -> Iterator[MemberRef]:
    """Yield a file, or the files of the archive that it is; a loose archive is opened where it lies."""
    if kind_of(ref.member) is None or ref.within is not None:
        yield ref
    elif ref.archive:
        yield from view.enter(ref)
    else:
        yield from view.open(ref.member)
