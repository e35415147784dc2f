"""The rows of a catalog, shard by shard: the footer says where they are, and no more than a shard's are in memory."""

from __future__ import annotations

from typing import Any

from gfm_pipeline.errors import ShardError
from gfm_pipeline.shards import CATALOG_PATH
from gfm_pipeline.shards.parquet import ParquetReader
from gfm_pipeline.storage import Store
from shard_builder.catalog import SCHEMA


class CatalogRows:
    """An open catalog; raises ShardError when it cannot be read as one."""

    def __init__(self, store: Store) -> None:
        self._url = f"{store.url}/{CATALOG_PATH}"
        file = store.open(CATALOG_PATH)
        try:
            self._file = ParquetReader(file)
        except Exception as error:  # pyarrow raises types of its own and OSError for damaged bytes
            file.close()
            raise ShardError(
                f"{self._url} is no readable Parquet file: {error}. Build the collection again."
            ) from error
        if self._file.columns != SCHEMA.names:
            raise ShardError(
                f"{self._url} has the columns {', '.join(self._file.columns)}, expected "
                f"{', '.join(SCHEMA.names)}. Build the collection again."
            )
        column = SCHEMA.names.index("shard")
        groups = range(self._file.metadata.num_row_groups)
        self._ranges = [self._file.metadata.row_group(group).column(column).statistics for group in groups]

    @property
    def num_rows(self) -> int:
        """Rows of the whole catalog."""
        return int(self._file.metadata.num_rows)

    def of_shard(self, shard: str) -> list[dict[str, Any]]:
        """Return the rows of one shard; raise ShardError for damaged bytes."""
        held = [
            group
            for group, found in enumerate(self._ranges)
            if found is None or not found.has_min_max or found.min <= shard <= found.max
        ]
        try:
            rows = [row for group in held for row in self._file.read_row_group(group).to_pylist()]
        except Exception as error:
            raise ShardError(f"{self._url} is damaged: {error}. Build the collection again.") from error
        return [row for row in rows if row["shard"] == shard]
