"""Workers of a Dask cluster: somebody's running one, or two and more processes started here for the build.

Every worker reads the input and writes shards to the output itself, so both must be at the same paths or URLs for all
of them. A worker that dies loses the shard it was at; Dask gives it to another one, which writes the same bytes.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import gfm_pipeline
from gfm_pipeline.errors import ConfigError, GfmError
from shard_builder.build.write import TaskResult
from shard_builder.config import BuildConfig
from shard_builder.executors.executor import EXECUTORS
from shard_builder.executors.worker import Worker

AHEAD = 3
"""Shards handed to the cluster per thread: enough to keep all busy, few enough for a plan of any size."""
PATIENCE_S = 30.0
"""How long a build waits for the scheduler, for a first worker, or for any worker after all have gone."""
POLL_S = 1.0

_workers: dict[tuple[str, int], tuple[str, Worker]] = {}  # of a process of the cluster: (session, worker) by output
_lock = threading.Lock()  # and thread


@EXECUTORS.register("dask")
class Dask:
    """Dask workers, with `scheduler` those of a running cluster, else `workers` of this machine."""

    def run(self, names: Sequence[str], config: BuildConfig) -> Iterator[TaskResult]:
        """Yield results as shards are committed; raise GfmError when a task fails or the cluster is gone."""
        if not names:
            return
        distributed = _distributed()
        session = uuid.uuid4().hex
        with _connected(distributed, config) as client:
            try:
                yield from _results(distributed, client, names, config, session)
            finally:
                with suppress(Exception):  # the cluster may be what is gone; its processes clean up at their next build
                    client.run(_close, session)


def _distributed() -> Any:
    try:
        import distributed  # an extra; a second to import
    except ImportError as error:
        raise ConfigError(
            "--executor dask needs Dask, which is not installed here: pip install 'gfm-pipeline[dask]', on every "
            "machine of the cluster."
        ) from error
    return distributed


@contextmanager
def _connected(distributed: Any, config: BuildConfig) -> Iterator[Any]:
    """Give a client of the configured cluster, which has a worker."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised below
    cluster = None
    if config.scheduler is None:
        cluster = _local_cluster(distributed, config.workers)
    try:
        client = distributed.Client(cluster or config.scheduler, set_as_default=False, timeout=PATIENCE_S)
    except (OSError, ValueError, TimeoutError) as error:
        raise GfmError(
            f"no Dask scheduler answers at {config.scheduler}: {error or type(error).__name__}. Start one (dask "
            "scheduler), or give its address as --scheduler tcp://HOST:8786."
        ) from error
    try:
        try:
            client.wait_for_workers(1, timeout=PATIENCE_S)
        except TimeoutError as error:
            raise GfmError(_without_workers(config)) from error
        yield client
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def _local_cluster(distributed: Any, workers: int) -> Any:
    try:
        return distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
    except (OSError, RuntimeError, TimeoutError) as error:
        raise GfmError(
            f"cannot start {workers} Dask workers on this machine: {error or type(error).__name__}. Start a cluster "
            "yourself and give --scheduler, or build with --executor processes."
        ) from error


def _results(
    distributed: Any, client: Any, names: Sequence[str], config: BuildConfig, session: str
) -> Iterator[TaskResult]:
    left = iter(names)
    running: dict[Any, str] = {}
    try:
        while True:
            ahead = AHEAD * max(1, sum(client.nthreads().values()))
            for name in islice(left, max(0, ahead - len(running))):
                words = (name, config, session, gfm_pipeline.__version__)
                running[client.submit(write_shard, *words, key=f"{name}-{session}", pure=False)] = name
            if not running:
                return
            for future in _some_done(distributed, client, running, config):
                yield _result(distributed, future, running.pop(future), config)
    finally:
        with suppress(Exception):
            client.cancel(list(running), force=True)


def _some_done(distributed: Any, client: Any, running: dict[Any, str], config: BuildConfig) -> list[Any]:
    """Wait for at least one future and return those that are done; raise GfmError when nobody works at them."""
    since = time.monotonic()
    while True:
        try:
            with suppress(TimeoutError), client.as_current():
                return list(distributed.wait(list(running), POLL_S, return_when="FIRST_COMPLETED").done)
        except distributed.client.FuturesCancelledError as error:
            raise GfmError(_lost(config)) from error
        if client.status != "running":
            raise GfmError(_lost(config))
        if client.nthreads():
            since = time.monotonic()
        elif time.monotonic() - since > PATIENCE_S:
            raise GfmError(_without_workers(config))


def _result(distributed: Any, future: Any, name: str, config: BuildConfig) -> TaskResult:
    if future.cancelled():
        raise GfmError(_lost(config))
    error = future.exception()
    if error is None:
        result: TaskResult = future.result()
        return result
    if isinstance(error, distributed.scheduler.KilledWorker):
        raise GfmError(
            f"shard {name} was the work of several workers that died (out of memory?). Shards written so far are kept: "
            "run the same command again, with more memory per worker or fewer samples in a shard."
        ) from error
    if isinstance(error, ImportError):
        raise GfmError(
            f"a Dask worker cannot import this product: {error}. Install version {gfm_pipeline.__version__} of it "
            "where the workers run."
        ) from error
    raise error


def _lost(config: BuildConfig) -> str:
    return (
        f"the Dask scheduler {config.scheduler or 'of this build'} is gone. Shards written so far are kept: start it "
        "again and run the same command."
    )


def _without_workers(config: BuildConfig) -> str:
    return (
        f"the Dask scheduler {config.scheduler or 'of this build'} has had no worker for {PATIENCE_S:g} s. Start some "
        "(dask worker ADDRESS) and run the same command again; shards written so far are kept."
    )


def write_shard(name: str, config: BuildConfig, session: str, version: str) -> TaskResult:
    """Write a shard of the plan in the configured output; runs in a process of the cluster."""
    if version != gfm_pipeline.__version__:
        raise GfmError(
            f"a Dask worker has version {gfm_pipeline.__version__} of this product, the build {version}: their bytes "
            "may differ. Install one version everywhere."
        )
    return _worker(config, session).write(name)


def _worker(config: BuildConfig, session: str) -> Worker:
    """Return this thread's open archives of the build; those of an earlier build that was killed are closed."""
    mine = (config.output, threading.get_ident())
    with _lock:
        known = _workers.get(mine)
        if known is not None and known[0] == session:
            return known[1]
        stale = _workers.pop(mine, None)
    if stale is not None:
        stale[1].close()
    worker = Worker(config)
    with _lock:
        _workers[mine] = (session, worker)
    return worker


def _close(session: str) -> None:
    with _lock:
        mine = [key for key, (owner, _) in _workers.items() if owner == session]
        closing = [_workers.pop(key)[1] for key in mine]
    for worker in closing:
        worker.close()
