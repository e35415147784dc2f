"""Processes of this machine. With one worker, this very process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path

from gfm_pipeline.errors import GfmError
from shard_builder.config import BuildConfig
from shard_builder.executors.executor import EXECUTORS
from shard_builder.plan import ShardTask
from shard_builder.write import ShardWriter, TaskResult

_writer: ShardWriter | None = None  # of a worker process


@EXECUTORS.register("processes")
class Processes:
    """Spawned worker processes, `workers` of them."""

    def run(
        self, tasks: Sequence[ShardTask], config: BuildConfig, root: Path, index_folder: Path
    ) -> Iterator[TaskResult]:
        """Yield results as shards are committed; raise GfmError when a task fails or a worker dies."""
        if config.workers == 1 or len(tasks) < 2:
            writer = ShardWriter(config, root, index_folder)
            try:
                yield from map(writer.write, tasks)
            finally:
                writer.close()
            return
        pool = ProcessPoolExecutor(
            min(config.workers, len(tasks)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(config, root, index_folder),
        )
        try:
            with _without_ctrl_c():
                futures = [pool.submit(_write, task) for task in tasks]  # this starts the workers
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            # A worker that was starting while another died escapes the pool's own clean-up, which then waits for it.
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise GfmError(
                "a worker process died (killed, or out of memory?). Shards written so far are kept: run the same "
                "command again, with fewer workers if memory is short."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Hold Ctrl-C back. Processes started meanwhile never get it: it is the parent's to handle, which gets it after.

    A worker that ignores it by its own code is too late: importing that takes a while.
    """
    resource_tracker.ensure_running()  # starting it would unblock the signal
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _start_worker(config: BuildConfig, root: Path, index_folder: Path) -> None:
    global _writer
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _writer = ShardWriter(config, root, index_folder)


def _exit_with_parent() -> None:
    """End this process when its parent is gone: nobody would read its results, and it would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _write(task: ShardTask) -> TaskResult:
    assert _writer is not None
    return _writer.write(task)
