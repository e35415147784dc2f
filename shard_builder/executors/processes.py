"""Processes of this machine. With one worker, this very process."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from gfm_pipeline.errors import GfmError
from shard_builder.build.write import TaskResult
from shard_builder.config import BuildConfig
from shard_builder.executors.executor import EXECUTORS
from shard_builder.executors.pool import end_with_parent, end_workers, without_ctrl_c
from shard_builder.executors.process import do_without_pandas
from shard_builder.executors.worker import Worker

AHEAD = 4
"""Tasks handed to the pool per worker: enough to keep all busy, few enough for a plan of any size."""

_worker: Worker | None = None  # of a worker process


@EXECUTORS.register("processes")
class Processes:
    """Spawned worker processes, `workers` of them."""

    def run(self, names: Sequence[str], config: BuildConfig) -> Iterator[TaskResult]:
        """Yield results as shards are committed; raise GfmError when a task fails or a worker dies."""
        if config.workers == 1 or len(names) < 2:
            worker = Worker(config)
            try:
                yield from map(worker.write, names)
            finally:
                worker.close()
            return
        workers = min(config.workers, len(names))
        pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(config,),
        )
        try:
            left = iter(names)
            with without_ctrl_c():  # submitting starts the workers
                running = {pool.submit(_write, name) for name in islice(left, AHEAD * workers)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(_write, name) for name in islice(left, len(done))}
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            # A worker that was starting while another died escapes the pool's own clean-up, which then waits for it.
            end_workers()
            raise GfmError(
                "a worker process died (killed, or out of memory?). Shards written so far are kept: run the same "
                "command again, with fewer workers if memory is short."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(config: BuildConfig) -> None:
    global _worker
    do_without_pandas()
    end_with_parent()
    _worker = Worker(config)
    multiprocessing.util.Finalize(None, _worker.close, exitpriority=1)  # atexit does not run in a worker


def _write(name: str) -> TaskResult:
    assert _worker is not None
    return _worker.write(name)
