"""A throw-away SQLite file: tables of millions of rows that memory need not hold."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from gfm_pipeline.errors import StorageError


class ScratchTables:
    """Tables in a new local file, which is the caller's to remove; what is left by a crash is worth nothing."""

    def __init__(self, path: Path, tables: str) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        for statement in ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", "BEGIN", *tables.split(";")):
            self.run(statement)

    def run(self, text: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        """Run one statement and return its cursor; raise StorageError when the disk is full."""
        try:
            return self._db.execute(text, values)
        except sqlite3.OperationalError as error:
            raise StorageError(f"cannot write {self._path}: {error}. Make room on that disk.") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()
