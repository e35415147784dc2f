"""Processes of this machine. With one worker, this very process."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import wait as wait_for

from gfm_pipeline.errors import GfmError
from shard_builder.config import BuildConfig
from shard_builder.executors.executor import EXECUTORS
from shard_builder.worker import Worker
from shard_builder.write import TaskResult

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
            with _without_ctrl_c():  # submitting starts the workers
                running = {pool.submit(_write, name) for name in islice(left, AHEAD * workers)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(_write, name) for name in islice(left, len(done))}
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            # A worker that was starting while another died escapes the pool's own clean-up, which then waits for it.
            for process in multiprocessing.active_children():
                process.terminate()
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


def _start_worker(config: BuildConfig) -> None:
    global _worker
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _worker = Worker(config)
    multiprocessing.util.Finalize(None, _worker.close, exitpriority=1)  # atexit does not run in a worker


def _exit_with_parent() -> None:
    """End this process when its parent is gone: nobody would read its results, and it would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os._exit(1)


def _write(name: str) -> TaskResult:
    assert _worker is not None
    return _worker.write(name)
