"""A Dask cluster on loopback, started and stopped by the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import distributed

from tests.conftest import BIN, ROOT


@dataclass
class Cluster:
    """A running scheduler with two workers of one thread."""

    address: str
    scheduler: subprocess.Popen[bytes]
    nanny: subprocess.Popen[bytes]

    def worker_pids(self) -> list[int]:
        """Return the processes that do the work, once both are at it; the nanny starts new ones in their place."""
        with distributed.Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            return sorted(client.run(os.getpid).values())


@contextmanager
def dask_cluster(folder: Path) -> Iterator[Cluster]:
    """Start a scheduler and two workers that a nanny minds; stop them by id."""
    file = folder / "scheduler.json"
    scratch = ["--local-directory", str(folder)]
    quiet = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    place = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    scheduler = subprocess.Popen([BIN / "dask", "scheduler", "--port", "0", *place], cwd=folder, **quiet)  # type: ignore[call-overload]
    nanny = None
    try:
        _until(file.exists)
        words = [BIN / "dask", "worker", *place, "--nworkers", "2", "--nthreads", "1", *scratch]
        nanny = subprocess.Popen(words, cwd=folder, **quiet)  # type: ignore[call-overload]
        address = json.loads(file.read_text())["address"]
        cluster = Cluster(address, scheduler, nanny)
        cluster.worker_pids()
        yield cluster
    finally:
        workers = _children(nanny.pid) if nanny is not None else []
        for process in (nanny, scheduler):
            if process is not None:
                process.kill()
                process.wait()
        for pid in workers:
            with suppress(ProcessLookupError):  # they end with their nanny, some of them later
                os.kill(pid, signal.SIGKILL)


def _until(done: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise AssertionError("the Dask cluster of the tests did not start")
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
