"""The loader of one rank: the plan's samples, read, checked and prepared by threads, delivered in order.

Each optimizer step gives one heterogeneous batch per lane of the rank. The consumer's thread decides what comes next
and hands samples to a pool, a few steps ahead; a sample's row in its batch is fixed beforehand, so the timing of the
threads changes nothing. Threads, not processes: decoding, checksums and resizing all release Python's lock, and
nothing has to be forked, pickled or shared. A failure in any thread is raised by the next `next()`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

from gfm_pipeline.data.batch import HeterogeneousBatch, StreamBatch
from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.data.mixture import Mixture, make_plan
from gfm_pipeline.data.plan import Pick
from gfm_pipeline.data.prepare import Preparer, Rows
from gfm_pipeline.data.reader import StreamReader
from gfm_pipeline.data.state import LoaderState
from gfm_pipeline.errors import DamageError

_log = logging.getLogger(__name__)


class Skipped(NamedTuple):
    """A sample that was left out because its bytes are damaged."""

    step: int
    lane: int
    stream: str
    shard: str
    key: str
    reason: str


@dataclass(frozen=True)
class _SubBatch:
    """A sub-batch under way; the result of each future is the key of its row."""

    lane: int
    stream: str
    picks: list[Pick]
    rows: Rows
    keys: list[Future[str]]

    def result(self) -> StreamBatch:
        """Return the finished sub-batch, or raise what a thread raised."""
        return self.rows.finished([key.result() for key in self.keys], self.picks)


class Loader:
    """An endless iterator over the optimizer steps of one rank, from `start_step` on.

    Each item is a tuple of batches, one for each lane of the rank, of all streams or of the one whose turn it is.
    Use it as a context manager, or call `close`. It is to be consumed by one thread. `state_dict` and
    `load_state_dict` are the protocol of `torch.distributed.checkpoint` and torchdata's StatefulDataLoader.
    """

    def __init__(
        self, mixture: Mixture, config: DataConfig, seed: int, rank: int, world: int, start_step: int = 0
    ) -> None:
        """Raise PlanError for a world size that does not divide the lanes or a stream smaller than the lanes."""
        if start_step < 0:
            raise ValueError(f"start_step is {start_step}, expected 0 or more")
        self.plan = make_plan(mixture, config, seed)
        self.lanes = self.plan.rank_lanes(rank, world)
        self.wait_seconds = 0.0
        """Time the consumer has spent waiting for batches."""
        self.skipped: list[Skipped] = []
        """What was left out so far, a few steps ahead of the batches; only ever grows, under `on_error: skip`."""
        self._mixture = mixture
        self._readers = self._open_readers(start_step)
        self._preparers = {name: Preparer(stream, mixture, config, seed) for name, stream in mixture.streams.items()}
        self._on_error = config.on_error
        self._step = start_step
        self._steps_ahead = 1 + config.prefetch_steps
        self._under_way: deque[list[_SubBatch]] = deque()
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(config.threads, thread_name_prefix="gfm-data")

    @property
    def bytes_read(self) -> int:
        """Bytes of shards fetched so far, refetches included."""
        return sum(reader.bytes_read for reader in self._readers.values())

    @property
    def refetches(self) -> int:
        """Reads that brought wrong or too few bytes and were repeated."""
        return sum(reader.refetches for reader in self._readers.values())

    def state(self, step: int) -> LoaderState:
        """Return the state of a run that has taken `step` optimizer steps, for a checkpoint."""
        return LoaderState.of(self.plan, step)

    def state_dict(self) -> dict[str, Any]:
        """Return where the next batch is, as plain values: the same on every rank, valid at any world size."""
        return self.state(self._step).to_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, by seeking; to be called before the first batch.

        Raises PlanError for the state of another order of samples, saying what differs, and RuntimeError when batches
        have been taken already.
        """
        if self._under_way:
            raise RuntimeError("batches have been taken from this loader; load the state into a new one")
        self._step = LoaderState.from_dict(dict(state_dict)).resume_step(self.plan)
        self._readers = self._open_readers(self._step)

    def __iter__(self) -> Iterator[tuple[HeterogeneousBatch, ...]]:
        return self

    def __next__(self) -> tuple[HeterogeneousBatch, ...]:
        """Return the next step's batches; raise what any thread has raised, whichever step it worked for."""
        if self._pool is None:
            raise RuntimeError("this loader is closed")
        try:
            while len(self._under_way) < self._steps_ahead:
                self._under_way.append(self._start(self._step + len(self._under_way), self._pool))
            self._await_first()
            batches = self._collect(self._step, self._under_way.popleft())
        except BaseException:
            self.close()
            raise
        self._step += 1
        return batches

    def close(self) -> None:
        """Stop and join the threads; samples under way are dropped. Closing again does nothing."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        for reader in self._readers.values():
            reader.close()
        pool.shutdown(wait=True, cancel_futures=True)
        self._under_way.clear()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_readers(self, first_step: int) -> dict[str, StreamReader]:
        sensors = self._mixture.sensors
        return {
            name: StreamReader(stream, sensors, self.plan.position(name, first_step))
            for name, stream in self._mixture.streams.items()
        }

    def _start(self, step: int, pool: ThreadPoolExecutor) -> list[_SubBatch]:
        started = []
        for lane in self.lanes:
            for name in self.plan.streams_at(step):
                picks, rows = self.plan.take(name, lane, step), self._preparers[name].new_rows()
                keys = [pool.submit(self._prepare, step, name, pick, rows, row) for row, pick in enumerate(picks)]
                started.append(_SubBatch(lane, name, picks, rows, keys))
        return started

    def _prepare(self, step: int, stream: str, pick: Pick, rows: Rows, row: int) -> str:
        reader = self._readers[stream]
        key = reader.key(pick)
        try:
            sample = reader.read(pick)
        except DamageError as error:
            if self._on_error == "fail":
                raise
            shard = self._mixture.streams[stream].shards[pick.shard].entry.name
            self.skipped.append(Skipped(step, pick.window.lane, stream, shard, key, str(error)))
            _log.warning("step %d leaves out sample %s of stream %s: %s", step, key, stream, error)
            rows.blank(row)
            return key
        self._preparers[stream].fill(rows, row, pick, sample.rasters)
        return key

    def _await_first(self) -> None:
        """Wait until the first step under way is ready; raise at once when any step under way has failed."""
        began = time.perf_counter()
        needed = [key for part in self._under_way[0] for key in part.keys]
        wait(needed, return_when=FIRST_EXCEPTION)
        self.wait_seconds += time.perf_counter() - began
        for parts in self._under_way:
            for key in (key for part in parts for key in part.keys):
                if key.done() and (error := key.exception()) is not None:
                    raise error

    def _collect(self, step: int, parts: list[_SubBatch]) -> tuple[HeterogeneousBatch, ...]:
        by_lane: dict[int, dict[str, StreamBatch]] = {lane: {} for lane in self.lanes}
        for part in parts:
            by_lane[part.lane][part.stream] = part.result()
        return tuple(HeterogeneousBatch(step, lane, streams) for lane, streams in by_lane.items())
