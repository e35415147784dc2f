"""What pools of spawned processes need: workers that neither Ctrl-C nor the end of their parent takes by surprise."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait as wait_for


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Hold Ctrl-C back. Processes started meanwhile never get it: it is the parent's to handle, which gets it after.

    A worker that ignores it by its own code is too late: importing that takes a while. A pool starts its workers when
    work is submitted, one with each until all are there.
    """
    resource_tracker.ensure_running()  # starting it would unblock the signal
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def end_with_parent() -> None:
    """End this process when its parent is gone: nobody would read its results, and it would wait for ever."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def end_workers() -> None:
    """End the child processes of this one, at whatever they are."""
    for process in multiprocessing.active_children():
        process.terminate()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os._exit(1)
