"""Where the time of a build goes: functions at its seams wrapped with a stopwatch, in the process that asks for it.

Times are exclusive: while one wrapped function calls another, only the inner one's clock runs. Nothing of this is
there in a build that is not profiled.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

SEAMS: tuple[tuple[str, str, str], ...] = (
    ("plan", "shard_builder.build.build", "_plan"),
    ("read", "shard_builder.archives.reader", "ArchiveReader.read"),
    ("read", "shard_builder.archives.reader", "ArchiveReader.head"),
    ("read", "shard_builder.archives.reader", "list_folder"),
    ("read", "shard_builder.archives.reader", "list_tar"),
    ("read", "shard_builder.archives.reader", "list_zip"),
    ("decode", "shard_builder.rasters.images", "decode_tiff"),
    ("decode", "shard_builder.rasters.images", "decode_rgb"),
    ("check", "shard_builder.sources.shared.image_archive", "original_jpeg"),
    ("check", "shard_builder.build.pack", "prepare"),
    ("check", "shard_builder.build.write", "_check_one_place"),
    ("encode", "gfm_pipeline.shards.codec", "encode"),
    ("statistics", "gfm_pipeline.shards.stats", "measure"),
    ("statistics", "gfm_pipeline.shards.stats", "merge"),
    ("records", "shard_builder.build.write", "_record"),
    ("records", "shard_builder.build.write", "dump_document"),
    ("records", "shard_builder.build.write", "dump_rows"),
    ("records", "shard_builder.build.write", "load_task"),
    ("hash", "gfm_pipeline.shards.tar", "crc32"),
    ("hash", "gfm_pipeline.shards.tar", "ShardTar._hash"),
    ("write", "gfm_pipeline.shards.tar", "ShardTar._write"),
    ("write", "shard_builder.build.write", "_sync"),
    ("write", "gfm_pipeline.storage.local", "LocalStore.put"),
    ("write", "gfm_pipeline.storage.local", "LocalStore.put_file"),
    ("merge", "shard_builder.build.build", "merge_shards"),
)
"""(phase, module, function or Class.method). A name that is gone is an error: the profile would lie."""

WORK = ("read", "decode", "encode", "hash", "write")
"""What any way to make such tars has to do; the rest is the builder's own overhead."""


class Stopwatch:
    """Seconds by phase; time outside every seam is "other"."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running = ["other"]
        self._since = time.perf_counter()

    def install(self) -> None:
        """Wrap the seams of this process, for good."""
        for phase, module, path in SEAMS:
            owner: Any = import_module(module)
            *outer, name = path.split(".")
            for part in outer:
                owner = getattr(owner, part)
            setattr(owner, name, self.wrap(phase, getattr(owner, name)))

    def start(self) -> None:
        """Begin anew."""
        self.seconds.clear()
        self._since = time.perf_counter()

    def stop(self) -> dict[str, float]:
        """Return the seconds of every phase since the start."""
        self._charge()
        return dict(self.seconds)

    def wrap(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` with its time charged to `phase`; that of an iterator it returns too."""

        def timed(*arguments: Any, **named: Any) -> Any:
            self._enter(phase)
            try:
                result = function(*arguments, **named)
            finally:
                self._leave()
            return self._each(phase, result) if isinstance(result, Iterator) else result

        return timed

    def _each(self, phase: str, items: Iterator[Any]) -> Iterator[Any]:
        while True:
            self._enter(phase)
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self._leave()
            yield item

    def _enter(self, phase: str) -> None:
        self._charge()
        self._running.append(phase)

    def _leave(self) -> None:
        self._charge()
        self._running.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now
