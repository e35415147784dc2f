"""What an executor is: it does shard tasks, any subset in any order, and reports each as it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from gfm_pipeline.registry import Registry
from shard_builder.build.write import TaskResult
from shard_builder.config import BuildConfig


class Executor(Protocol):
    """Runs tasks. A task that fails ends the run with its error; shards already committed stay."""

    def run(self, names: Sequence[str], config: BuildConfig) -> Iterator[TaskResult]:
        """Yield the result of every named shard, in any order; a shard may be written twice without harm."""
        ...


EXECUTORS: Registry[type[Executor]] = Registry("executor", "shard_builder.executors")
