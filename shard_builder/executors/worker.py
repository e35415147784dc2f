"""What a worker process does: shards of one build, by name, with archives that stay open in between."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from gfm_pipeline.storage import Store, open_store
from shard_builder.build.workspace import open_reader, scratch_folder
from shard_builder.build.write import ShardWriter, TaskResult
from shard_builder.config import BuildConfig
from shard_builder.executors.process import keep_freed_memory


class Worker:
    """One process's hands on a build. Clients and files are opened here, never inherited."""

    def __init__(self, config: BuildConfig) -> None:
        keep_freed_memory()
        self._stack = ExitStack()
        output: Store = open_store(config.output, config.storage)
        scratch: Path = self._stack.enter_context(scratch_folder(output))
        self._reader = open_reader(config, output, scratch)
        self._stack.callback(self._reader.close)
        self._writer = ShardWriter(config, output, self._reader, scratch)

    def write(self, name: str) -> TaskResult:
        """Write and commit the planned shard `name`; doing it twice does no harm."""
        return self._writer.write(name)

    def close(self) -> None:
        """Close the archives and remove the scratch folder."""
        self._stack.close()
