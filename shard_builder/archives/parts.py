"""Archives that were split into parts for the way, `all.tar.gz.partaa`, `all.tar.gz.partab` ..., read as one file."""

from __future__ import annotations

import io
import re
from itertools import product
from string import ascii_lowercase
from typing import IO

from gfm_pipeline.errors import ArchiveError
from gfm_pipeline.storage import Store

_PART = re.compile(r"(?P<whole>.+\.(?:zip|tar|tar\.gz|tgz))(?P<sign>\.part|\.|)(?P<letters>[a-z]{2})", re.IGNORECASE)
_LETTERS = ["".join(pair) for pair in product(ascii_lowercase, repeat=2)]


def whole_name(name: str) -> str:
    """Return the name of the archive whose first part has this name; any other name as it is."""
    match = _PART.fullmatch(name)
    return match["whole"] if match and match["letters"] == "aa" else name


def is_later_part(name: str) -> bool:
    """Return whether a name is one of a part that belongs to a first one."""
    match = _PART.fullmatch(name)
    return match is not None and match["letters"] != "aa"


def open_archive(store: Store, path: str) -> IO[bytes]:
    """Open an archive of a store, with all of its parts where `path` is the first; raise ArchiveError for a gap."""
    if whole_name(path) == path:
        return store.open(path)
    folder, stem = path.rpartition("/")[0], path.rpartition("/")[2][:-2]
    there = {name for name, is_folder in store.names(folder) if not is_folder}
    names = [stem + letters for letters in _LETTERS if stem + letters in there]
    gap = next((stem + letters for name, letters in zip(names, _LETTERS, strict=False) if name != stem + letters), None)
    if gap:
        raise ArchiveError(
            f"{store.url}/{path}: part {gap} is missing, {names[-1]} is there. Copy or download it again."
        )
    return io.BufferedReader(_Joined([store.open(f"{folder}/{name}" if folder else name) for name in names]), 2**20)


class _Joined(io.RawIOBase):
    def __init__(self, files: list[IO[bytes]]) -> None:
        self._files = files
        self._ends: list[int] = []
        for file in files:
            self._ends.append(file.seek(0, io.SEEK_END) + (self._ends[-1] if self._ends else 0))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} lies before the first byte")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        number = next((i for i, end in enumerate(self._ends) if self._at < end), None)
        if number is None:
            return 0
        file, start = self._files[number], self._ends[number - 1] if number else 0
        file.seek(self._at - start)
        data = file.read(min(len(buffer), self._ends[number] - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()
