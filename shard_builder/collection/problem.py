"""What `verify` finds: one problem is one line that says where, what was expected and what is there."""

from __future__ import annotations

from typing import NamedTuple

from gfm_pipeline.config import StrictModel


class Problem(StrictModel):
    """One thing in a collection that is not as its records say."""

    url: str
    """The object at fault."""
    what: str
    """The property that is wrong, e.g. "crc32"."""
    expected: str
    found: str
    shard: str | None = None
    key: str | None = None
    member: str | None = None
    """"json", or the sensor whose raster it is."""
    offset: int | None = None
    """Byte offset in the object."""

    def __str__(self) -> str:
        place = [
            f"shard {self.shard}" if self.shard else "",
            f"sample {self.key}" if self.key else "",
            f"member {self.member}" if self.member else "",
            f"byte {self.offset}" if self.offset is not None else "",
        ]
        where = ", ".join(part for part in place if part)
        return f"{self.url}: {where + ': ' if where else ''}{self.what}: expected {self.expected}, found {self.found}"


class Place(NamedTuple):
    """Where in a shard a problem is; `path` when it is not the object that is being looked at."""

    key: str | None = None
    member: str | None = None
    offset: int | None = None
    path: str | None = None


class ProblemList:
    """The problems of one object, the path of which is below a collection's URL; all are counted, the first kept."""

    KEPT = 20

    def __init__(self, url: str, path: str, shard: str | None = None) -> None:
        self._url = url
        self._path = path
        self._shard = shard
        self.kept: list[Problem] = []
        self.count = 0

    def add(self, what: str, expected: object, found: object, at: Place = Place()) -> None:  # noqa: B008  # immutable
        """Note a problem."""
        self.count += 1
        if len(self.kept) < self.KEPT:
            self.kept.append(
                Problem(
                    url=f"{self._url}/{at.path or self._path}",
                    what=what,
                    expected=_short(expected),
                    found=_short(found),
                    shard=self._shard,
                    key=at.key,
                    member=at.member,
                    offset=at.offset,
                )
            )

    def compare(self, what: str, expected: object, found: object, at: Place = Place()) -> bool:  # noqa: B008
        """Note a problem unless `found` equals `expected`; return whether it does."""
        if found != expected:
            self.add(what, expected, found, at)
        return found == expected


def _short(value: object, length: int = 300) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= length else text[: length - 3] + "..."
