"""How an archive says that nobody took its images: in a place that every reader of the published layout passes over."""

from __future__ import annotations

import os
from typing import IO

from shard_builder.archives.member import Kind

SYNTHETIC_MARK = "synthetic-by-shard-builder-demo"
"""Comment of a zip; name in the header of a gzip."""
DEMO_RECORD = "demo.json"
"""File that lies beside such archives, packed or not."""


def is_synthetic(file: IO[bytes], kind: Kind) -> bool:
    """Return whether a zip or tar.gz carries the mark; moves about in `file`, and believes nothing else of it."""
    mark = SYNTHETIC_MARK.encode()
    if kind == "zip":
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(mark) - 2))
        tail = file.read()
        return tail.endswith(mark) and tail[-len(mark) - 2 : -len(mark)] == len(mark).to_bytes(2, "little")
    if kind == "tar.gz":
        file.seek(0)
        head = file.read(10 + len(mark) + 1)
        return len(head) > 10 and head[:3] == b"\x1f\x8b\x08" and bool(head[3] & 8) and head[10:] == mark + b"\0"
    return False
