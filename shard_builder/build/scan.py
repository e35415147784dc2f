"""All that a source found in its input, on disk: a scan of millions of places costs as much memory as one of ten.

It is a throw-away SQLite file in the work folder of the build. What was found first comes first.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.shards.manifest import InputFile, Rejected
from gfm_pipeline.shards.sample import is_key
from shard_builder.archives.member import MemberRef
from shard_builder.build.scratch_tables import ScratchTables
from shard_builder.planned import PlannedRaster, PlannedSample

MAX_SENSORS = 62
MAX_SLUG = 48
_REF = TypeAdapter(MemberRef)
_RASTER = TypeAdapter(PlannedRaster)

_TABLES = """
CREATE TABLE samples (id INTEGER PRIMARY KEY, key TEXT, folded TEXT UNIQUE, present INTEGER);
CREATE TABLE rasters (sample INTEGER, sensor INTEGER, raster BLOB, PRIMARY KEY (sample, sensor)) WITHOUT ROWID;
CREATE TABLE labels (folded TEXT PRIMARY KEY, labels TEXT) WITHOUT ROWID;
CREATE TABLE told (tab TEXT, folded TEXT, key TEXT, PRIMARY KEY (tab, folded)) WITHOUT ROWID;
CREATE TABLE named (id INTEGER PRIMARY KEY, name TEXT, folded TEXT, ref BLOB);
CREATE TABLE seen (digest BLOB PRIMARY KEY, key TEXT) WITHOUT ROWID;
CREATE TABLE doubles (id INTEGER PRIMARY KEY, key TEXT, first TEXT, source_file TEXT);
CREATE TABLE rejected (id INTEGER PRIMARY KEY, row BLOB);
CREATE TABLE masks (source_file TEXT PRIMARY KEY, ref BLOB) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Ignored:
    """Files of the input that a source does not pack, and why."""

    path: str
    reason: str
    files: int = 1


def slug(name: str) -> str:
    """Return a file name without its extension as a key may hold it."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name.rpartition(".")[0]).strip("_") or "image"


def unique_key(name: str, ambiguous: bool = False) -> str:
    """Return the key of a file: its name, with a digest where that is ambiguous or too long."""
    readable = slug(name)
    if not ambiguous and len(readable) <= MAX_SLUG:
        return readable
    return f"{readable[: MAX_SLUG - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


class Scan:
    """Planned samples, provenance, and everything that was left out."""

    def __init__(self, path: Path, sensors: tuple[str, ...]) -> None:
        """Start an empty scan in the new file `path`, for samples of `sensors`."""
        if len(sensors) > MAX_SENSORS:
            raise ConfigError(f"a source has {len(sensors)} sensors, at most {MAX_SENSORS} can be told apart.")
        self.sensors = sensors
        self.inputs: list[InputFile] = []
        self.versions: dict[str, str] = {}
        """By archive, what changes when it is replaced."""
        self.ignored: list[Ignored] = []
        self.warnings: list[str] = []
        """What the configuration asks for and the input does not have."""
        self.synthetic = False
        """Whether an input says that it shows no real place."""
        self.num_items = 0
        """Files of the input that belong to this source, rejected ones included."""
        self.num_samples = 0
        self.num_rejected = 0
        self.num_duplicates = 0
        """Samples left out because an earlier one has the same bytes."""
        self._has_masks = False
        self._last: dict[str, object] = {}
        self._db = ScratchTables(path, _TABLES)

    def add(self, key: str, sensor: str, raster: PlannedRaster, labels: Mapping[str, Any]) -> str | None:
        """File one sensor of a sample; return why that cannot be, or None."""
        self._count(sensor, raster)
        if not is_key(key):
            return f"{key!r} cannot be a sample key"
        number, folded = self.sensors.index(sensor), key.lower()
        insert = "INSERT OR IGNORE INTO samples (key, folded, present) VALUES (?, ?, ?)"
        inserted = self._db.run(insert, (key, folded, 1 << number))
        if inserted.rowcount:
            sample = inserted.lastrowid
            self.num_samples += 1
        else:
            query = "SELECT id, key, present FROM samples WHERE folded = ?"
            sample, first, present = self._db.run(query, (folded,)).fetchone()
            if first != key or present >> number & 1:
                return f"its key {key} is that of {self._source_file(sample, number)} already"
            self._db.run("UPDATE samples SET present = ? WHERE id = ?", (present | 1 << number, sample))
        self._db.run("INSERT INTO rasters VALUES (?, ?, ?)", (sample, number, _RASTER.dump_json(raster)))
        if labels:
            self.label(key, labels)
        return None

    def label(self, key: str, labels: Mapping[str, Any]) -> None:
        """File what is said of a sample's content; later words on the same label win."""
        folded = key.lower()
        if self._db.run("INSERT OR IGNORE INTO labels VALUES (?, ?)", (folded, json.dumps(dict(labels)))).rowcount:
            return
        (known,) = self._db.run("SELECT labels FROM labels WHERE folded = ?", (folded,)).fetchone()
        merged = json.dumps({**json.loads(known), **labels})
        self._db.run("UPDATE labels SET labels = ? WHERE folded = ?", (merged, folded))

    def tell(self, table: str, key: str) -> None:
        """File that a table of the input says something of a sample."""
        self._db.run("INSERT OR IGNORE INTO told VALUES (?, ?, ?)", (table, key.lower(), key))

    def strangers(self) -> Iterator[tuple[str, int, int, str]]:
        """Yield, for every table with keys of no sample: its name, its keys, how many are of none, one of those."""
        query = (
            "SELECT tab, COUNT(*), SUM(s.id IS NULL), MIN(CASE WHEN s.id IS NULL THEN told.key END) FROM told "
            "LEFT JOIN samples AS s ON s.folded = told.folded GROUP BY tab HAVING SUM(s.id IS NULL) ORDER BY tab"
        )
        yield from self._db.run(query)

    def keyed(self, files: Iterable[tuple[str, MemberRef]]) -> Iterator[tuple[str, str, MemberRef]]:
        """Yield (key, name, file) for every (name, file), in order, with one key per name.

        A key is readable, and has a digest of the name where that alone tells two apart.
        """
        self._db.run("DELETE FROM named")
        for name, ref in files:
            row = (name, slug(name).lower(), _REF.dump_json(ref))
            self._db.run("INSERT INTO named (name, folded, ref) VALUES (?, ?, ?)", row)
        # Compared without case: two keys should not collide on a file system that ignores it.
        self._db.run("CREATE INDEX IF NOT EXISTS by_slug ON named (folded)")
        query = (
            "SELECT name, ref, (SELECT COUNT(*) FROM named AS o WHERE o.folded = n.folded) FROM named AS n ORDER BY id"
        )
        for name, ref, count in self._db.run(query):
            yield unique_key(name, count > 1), name, _REF.validate_json(ref)

    def ignore(self, ignored: Ignored) -> None:
        """File what is not packed; the same path and reason are one entry."""
        last = self.ignored[-1] if self.ignored else None
        if last and (last.path, last.reason) == (ignored.path, ignored.reason):
            self.ignored[-1] = Ignored(last.path, last.reason, last.files + ignored.files)
        else:
            self.ignored.append(ignored)

    def mask(self, source_file: str, mask: MemberRef) -> None:
        """File the mask beside an image, which may be found before or after it."""
        self._db.run("INSERT OR REPLACE INTO masks VALUES (?, ?)", (source_file, _REF.dump_json(mask)))
        self._has_masks = True
        self.num_items += 1

    def reject(self, item: str, source_file: str, reason: str, policy: str, members: int) -> None:
        """File what cannot be packed."""
        self.num_items += members
        self.num_rejected += 1
        self._file_rejected(item, source_file, reason, policy)

    def drop_duplicates(self, digest: Callable[[PlannedRaster], bytes]) -> None:
        """Leave out samples whose rasters all have the `digest` of an earlier sample's."""
        for present in self.sensor_sets():
            for sample in self.samples(present):
                joined = hashlib.blake2b(repr(present).encode(), digest_size=16)
                for raster in sample.rasters.values():
                    joined.update(digest(raster))
                first = self._db.run("SELECT key FROM seen WHERE digest = ?", (joined.digest(),)).fetchone()
                if first is None:
                    self._db.run("INSERT INTO seen VALUES (?, ?)", (joined.digest(), sample.key))
                    continue
                source_file = next(iter(sample.rasters.values())).source_file
                insert = "INSERT INTO doubles (key, first, source_file) VALUES (?, ?, ?)"
                self._db.run(insert, (sample.key, first[0], source_file))
        for key, earlier, source_file in self._db.run("SELECT key, first, source_file FROM doubles ORDER BY id"):
            self._file_rejected(key, source_file, f"same bytes as {earlier}", "duplicates=drop")
            self.num_duplicates += 1
        self._db.run("DELETE FROM samples WHERE key IN (SELECT key FROM doubles)")
        self.num_samples -= self.num_duplicates

    def listed(self, provenance: InputFile, synthetic: bool = False) -> None:
        """File an archive or folder that was read to its end, and whether it says that it shows no real place."""
        self.inputs.append(provenance)
        self.synthetic |= synthetic

    def finish(self) -> None:
        """Make ready for reading, once everything is filed."""
        self._db.run("CREATE INDEX by_sensors ON samples (present, id)")

    def rejected(self) -> Iterator[Rejected]:
        """Yield what was rejected, in order."""
        for (row,) in self._db.run("SELECT row FROM rejected ORDER BY id"):
            yield Rejected.model_validate_json(row)

    def sensor_sets(self) -> dict[tuple[str, ...], int]:
        """Return the number of samples of every set of sensors that occurs."""
        rows = self._db.run("SELECT present, COUNT(*) FROM samples GROUP BY present")
        return {tuple(s for i, s in enumerate(self.sensors) if present >> i & 1): count for present, count in rows}

    def samples(self, present: tuple[str, ...]) -> Iterator[PlannedSample]:
        """Yield the samples of exactly these sensors, in order."""
        mask = sum(1 << self.sensors.index(sensor) for sensor in present)
        query = (
            "SELECT key, labels FROM samples LEFT JOIN labels USING (folded) WHERE present = ? ORDER BY id",
            "SELECT raster FROM samples JOIN rasters ON sample = id WHERE present = ? ORDER BY id, sensor",
        )
        keys, rasters = (self._db.run(text, (mask,)) for text in query)
        for key, labels in keys:
            found = {sensor: self._masked(_RASTER.validate_json(next(rasters)[0])) for sensor in present}
            yield PlannedSample(key, found, json.loads(labels) if labels else {})

    def close(self) -> None:
        """Close the file, which is the caller's to remove."""
        self._db.close()

    def _masked(self, raster: PlannedRaster) -> PlannedRaster:
        """Return a raster whose files know the masks beside them."""
        if not self._has_masks:
            return raster
        query = "SELECT ref FROM masks WHERE source_file = ?"
        rows = [(ref, self._db.run(query, (ref.source_file,)).fetchone()) for ref in raster.files]
        files = tuple(replace(ref, mask=_REF.validate_json(row[0])) if row else ref for ref, row in rows)
        return replace(raster, files=files)

    def _count(self, sensor: str, raster: PlannedRaster) -> None:
        """Count the files of a raster once, however many tiles it becomes: tiles of one follow each other."""
        if self._last.get(sensor) != raster.files:
            self._last[sensor] = raster.files
            self.num_items += len(raster.files)

    def _source_file(self, sample: int, sensor: int) -> str:
        query = "SELECT raster FROM rasters WHERE sample = ? ORDER BY sensor != ? LIMIT 1"
        (raster,) = self._db.run(query, (sample, sensor)).fetchone()
        return _RASTER.validate_json(raster).files[0].source_file

    def _file_rejected(self, item: str, source_file: str, reason: str, policy: str) -> None:
        row = Rejected(item=item, source_file=source_file, reason=reason, policy=policy)
        self._db.run("INSERT INTO rejected (row) VALUES (?)", (row.model_dump_json(),))
