"""Files that make one raster together, wherever they lie in the input: bands and dates in files of their own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from shard_builder.archives import MemberRef
from shard_builder.build.scratch_tables import ScratchTables

_REFS = TypeAdapter(tuple[MemberRef, ...])
_TABLES = """
CREATE TABLE parts (id INTEGER PRIMARY KEY, key TEXT, sensor TEXT, date TEXT, band TEXT, refs BLOB, about BLOB,
    labels TEXT, UNIQUE (key, sensor, date, band))
"""
_BY_KEY = "SELECT key, sensor, date, band, refs, about, labels FROM parts ORDER BY key, sensor, date, id"
_BY_PLACE = """
SELECT key, sensor, date, band, refs, about, labels FROM parts
JOIN (SELECT key, MIN(id) AS first FROM parts GROUP BY key) USING (key)
JOIN (SELECT key, sensor, MIN(id) AS second FROM parts GROUP BY key, sensor) USING (key, sensor)
ORDER BY first, second, date, id
"""


class Part(NamedTuple):
    """One of the files of a raster."""

    date: str
    band: str
    refs: tuple[MemberRef, ...]
    about: bytes = b""
    """What its header says, as the source wrote it down."""


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
        row = (*place, _REFS.dump_json(part.refs), part.about, json.dumps(labels))
        insert = "INSERT INTO parts (key, sensor, date, band, refs, about, labels) VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._db.run(insert, row)
        return None

    def rasters(self, bands: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, list[Part], dict[str, Any]]]:
        """Yield (key, sensor, parts, labels) by key; parts by date and then in the order of the sensor's bands."""
        yield from self._grouped(_BY_KEY, bands)

    def places(self, bands: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, dict[str, list[Part]], dict[str, Any]]]:
        """Yield (key, parts by sensor, labels), what was filed first first; parts as above."""
        for key, rasters in groupby(self._grouped(_BY_PLACE, bands), key=lambda raster: raster[0]):
            found: dict[str, list[Part]] = {}
            labels: dict[str, Any] = {}
            for _, sensor, parts, said in rasters:
                found[sensor] = parts
                labels |= said
            yield key, found, labels

    def _grouped(
        self, query: str, bands: Mapping[str, Sequence[str]]
    ) -> Iterator[tuple[str, str, list[Part], dict[str, Any]]]:
        held: tuple[str, str] | None = None
        parts: list[Part] = []
        labels: dict[str, Any] = {}
        for key, sensor, date, band, refs, about, said in self._db.run(query):
            if held is not None and held != (key, sensor):
                yield (*held, _in_order(parts, bands.get(held[1], ())), labels)
                parts, labels = [], {}
            held = (key, sensor)
            parts.append(Part(date, band, _REFS.validate_json(refs), about))
            labels |= json.loads(said)
        if held is not None:
            yield (*held, _in_order(parts, bands.get(held[1], ())), labels)

    def close(self) -> None:
        """Remove the file."""
        self._db.close()
        self._folder.cleanup()


def trouble_of(parts: Sequence[Part], bands: Sequence[str]) -> str | None:
    """Return what is wrong with the files of a raster that has these bands in files of their own, or None."""
    there = {(part.date, part.band) for part in parts}
    dates = dict.fromkeys(part.date for part in parts)
    lacking = next(((date, band) for date in dates for band in bands if (date, band) not in there), None)
    if lacking:
        return f"lacks band {lacking[1]}{f' of {lacking[0]}' if lacking[0] else ''}"
    if any(len(part.refs) > 1 for part in parts):
        return "lies in zarr folders by band or date: zip each of them (.zarr.zip), or use one with a time axis"
    return None


def _in_order(parts: list[Part], bands: Sequence[str]) -> list[Part]:
    position = {band: i for i, band in enumerate(bands)}
    return sorted(parts, key=lambda part: (part.date, position.get(part.band, -1)))
