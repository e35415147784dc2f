"""Parquet read in the calling thread alone.

Arrow's own threads outlive what they read, and hold Python objects: one that lets go of them while the interpreter
ends aborts the process, after all its work is done and with the wrong exit code (apache/arrow issue 34314).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq


class ParquetReader:
    """An open Parquet file; all methods raise what pyarrow raises for damaged bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = pq.ParquetFile(file, pre_buffer=False)

    @property
    def metadata(self) -> pq.FileMetaData:
        """The footer."""
        return self._file.metadata

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._file.schema_arrow.names)

    def read(self) -> pa.Table:
        """Return everything."""
        return self._file.read(use_threads=False)

    def read_row_group(self, group: int) -> pa.Table:
        """Return one row group."""
        return self._file.read_row_group(group, use_threads=False)

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns, a limited number of rows at a time."""
        yield from self._file.iter_batches(columns=columns, use_threads=False)
