"""Byte ranges of one object: neighbours are read together, and long ones in parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

PART_BYTES = 8 * 2**20
"""Of one request at most: a client's timeout covers a whole body, and a part that failed costs no more than this."""


class ByteRange(NamedTuple):
    """Bytes [start, start + length) of an object."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The position after the last byte."""
        return self.start + self.length


def coalesce(ranges: Sequence[tuple[int, int]]) -> list[ByteRange]:
    """Return sorted ranges that cover all of `ranges`, (start, length), and nothing else: what lies between them is
    not wanted, be it another sensor's pixels."""
    runs: list[ByteRange] = []
    for start, length in sorted(ranges):
        if length <= 0:
            continue
        if runs and start <= runs[-1].end:
            first = runs[-1].start
            runs[-1] = ByteRange(first, max(runs[-1].end, start + length) - first)
        else:
            runs.append(ByteRange(start, length))
    return runs


def split(run: ByteRange, part: int = PART_BYTES) -> list[ByteRange]:
    """Return the parts, of `part` bytes at most, that make up `run`."""
    return [ByteRange(start, min(part, run.end - start)) for start in range(run.start, run.end, part)]


def pick(ranges: Sequence[tuple[int, int]], runs: Sequence[tuple[ByteRange, bytes]]) -> list[bytes]:
    """Return the bytes of each of `ranges`, which the `runs` with their bytes cover; fewer where the object ends."""
    found: list[bytes] = []
    for start, length in ranges:
        data = b""
        for run, held in runs:
            if run.start <= start and start + length <= run.end:
                data = held if (start, length) == run else held[start - run.start : start - run.start + length]
                break
        found.append(data)
    return found
