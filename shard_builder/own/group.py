"""Files that make one raster together, wherever they lie in the input: bands and dates in files of their own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from shard_builder.archives import MemberRef

_REFS = TypeAdapter(tuple[MemberRef, ...])


class Part(NamedTuple):
    """One of the files of a raster."""

    date: str
    band: str
    refs: tuple[MemberRef, ...]


class Gathered:
    """Files by key and sensor. On disk, in a file that SQLite removes: they may be millions."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode=OFF; CREATE TABLE parts (id INTEGER PRIMARY KEY, key TEXT, sensor TEXT, date TEXT,"
            "band TEXT, refs BLOB, labels TEXT, UNIQUE (key, sensor, date, band)); BEGIN;"
        )

    def add(self, key: str, sensor: str, part: Part, labels: dict[str, Any]) -> MemberRef | None:
        """File a part of the raster of a sensor; return the file that is this part already, or None."""
        place = (key, sensor, part.date, part.band)
        query = "SELECT refs FROM parts WHERE key = ? AND sensor = ? AND date = ? AND band = ?"
        known = self._db.execute(query, place).fetchone()
        if known:
            return _REFS.validate_json(known[0])[0]
        row = (*place, _REFS.dump_json(part.refs), json.dumps(labels))
        self._db.execute("INSERT INTO parts (key, sensor, date, band, refs, labels) VALUES (?, ?, ?, ?, ?, ?)", row)
        return None

    def rasters(self, bands: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, list[Part], dict[str, Any]]]:
        """Yield (key, sensor, parts, labels) by key; parts by date and then in the order of the sensor's bands."""
        query = "SELECT key, sensor, date, band, refs, labels FROM parts ORDER BY key, sensor, date, id"
        held: tuple[str, str] | None = None
        parts: list[Part] = []
        labels: dict[str, Any] = {}
        for key, sensor, date, band, refs, said in self._db.execute(query):
            if held is not None and held != (key, sensor):
                yield (*held, _in_order(parts, bands[held[1]]), labels)
                parts, labels = [], {}
            held = (key, sensor)
            parts.append(Part(date, band, _REFS.validate_json(refs)))
            labels |= json.loads(said)
        if held is not None:
            yield (*held, _in_order(parts, bands[held[1]]), labels)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def _in_order(parts: list[Part], bands: Sequence[str]) -> list[Part]:
    position = {band: i for i, band in enumerate(bands)}
    return sorted(parts, key=lambda part: (part.date, position.get(part.band, -1)))
