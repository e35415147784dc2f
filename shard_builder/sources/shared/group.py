"""Files that make one raster together, wherever they lie in the input: bands and dates in files of their own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from shard_builder.archives import MemberRef
from shard_builder.build.scratch_tables import ScratchTables

_REFS = TypeAdapter(tuple[MemberRef, ...])
_TABLES = """
CREATE TABLE parts (id INTEGER PRIMARY KEY, key TEXT, sensor TEXT, date TEXT, band TEXT, refs BLOB, labels TEXT,
    UNIQUE (key, sensor, date, band))
"""


class Part(NamedTuple):
    """One of the files of a raster."""

    date: str
    band: str
    refs: tuple[MemberRef, ...]


class Gathered:
    """Files by key and sensor, on disk: they may be millions."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="shard-builder-")
        self._db = ScratchTables(Path(self._folder.name) / "parts.sqlite", _TABLES)

    def add(self, key: str, sensor: str, part: Part, labels: dict[str, Any]) -> MemberRef | None:
        """File a part of the raster of a sensor; return the file that is this part already, or None."""
        place = (key, sensor, part.date, part.band)
        query = "SELECT refs FROM parts WHERE key = ? AND sensor = ? AND date = ? AND band = ?"
        known = self._db.run(query, place).fetchone()
        if known:
            return _REFS.validate_json(known[0])[0]
        row = (*place, _REFS.dump_json(part.refs), json.dumps(labels))
        self._db.run("INSERT INTO parts (key, sensor, date, band, refs, labels) VALUES (?, ?, ?, ?, ?, ?)", row)
        return None

    def rasters(self, bands: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, list[Part], dict[str, Any]]]:
        """Yield (key, sensor, parts, labels) by key; parts by date and then in the order of the sensor's bands."""
        query = "SELECT key, sensor, date, band, refs, labels FROM parts ORDER BY key, sensor, date, id"
        held: tuple[str, str] | None = None
        parts: list[Part] = []
        labels: dict[str, Any] = {}
        for key, sensor, date, band, refs, said in self._db.run(query):
            if held is not None and held != (key, sensor):
                yield (*held, _in_order(parts, bands[held[1]]), labels)
                parts, labels = [], {}
            held = (key, sensor)
            parts.append(Part(date, band, _REFS.validate_json(refs)))
            labels |= json.loads(said)
        if held is not None:
            yield (*held, _in_order(parts, bands[held[1]]), labels)

    def close(self) -> None:
        """Remove the file."""
        self._db.close()
        self._folder.cleanup()


def _in_order(parts: list[Part], bands: Sequence[str]) -> list[Part]:
    position = {band: i for i, band in enumerate(bands)}
    return sorted(parts, key=lambda part: (part.date, position.get(part.band, -1)))
