"""The loader of one rank: the plan's samples, read, checked and prepared by threads, delivered in order.

Each optimizer step gives one heterogeneous batch per lane of the rank. The consumer's thread decides what comes next
and hands runs of rows to a pool, a few steps ahead; a sample's row in its batch is fixed beforehand, so the timing of
the threads changes nothing. A failure in any thread is raised by the next `next()`.

Threads, not processes: reading, checksums, decoding, copying and resizing all run without Python's lock, and nothing
has to be forked, pickled, shared or copied between processes. Measured on two virtual cores that share their
arithmetic: two threads are 1.1 to 1.6 times one on pairs in blosc2 (decoding alone: 1.5). On samples of one small
sensor the lock is the limit, near 1,200 samples/s with one thread as with two.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import get_worker_info

from gfm_pipeline.data.batch import HeterogeneousBatch, StreamBatch
from gfm_pipeline.data.buffers import BufferPool
from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.data.counts import LoaderCounts, store_counts
from gfm_pipeline.data.fetch import Fetcher, window_bytes, windows_fit
from gfm_pipeline.data.mixture import Mixture, make_plan
from gfm_pipeline.data.pace import Pace
from gfm_pipeline.data.prepare import Preparer, Rows
from gfm_pipeline.data.reader import Fetched, StreamReader
from gfm_pipeline.data.scratch import Scratch
from gfm_pipeline.data.state import LoaderState
from gfm_pipeline.data.under_way import Done, Part, Skipped, SubBatch
from gfm_pipeline.errors import DamageError

ROWS_PER_TASK = 4
_LOOK_UP_EVERY_S = 1.0
_WARN_EVERY_S = 60.0
_log = logging.getLogger(__name__)


class Loader:
    """An endless iterator over the optimizer steps of one rank, from `start_step` on.

    Each item is a tuple of batches, one for each lane of the rank, of all streams or of the one whose turn it is. A
    batch is the consumer's for as long as it keeps any of it; its memory is used again after that (see `buffers`).
    Use it as a context manager, or call `close`. It is to be consumed by one thread. `state_dict` and
    `load_state_dict` are the protocol of `torch.distributed.checkpoint` and torchdata's StatefulDataLoader.
    """

    def __init__(
        self,
        mixture: Mixture,
        config: DataConfig,
        seed: int,
        rank: int,
        world: int,
        start_step: int = 0,
        lanes: Sequence[int] | None = None,
    ) -> None:
        """Serve the lanes of `rank`, or those `lanes` of them.

        Raises PlanError for a world size that does not divide the lanes or a stream smaller than the lanes, and
        ConfigError when the shuffle windows of remote streams do not fit in `data.buffer_mb`.
        """
        if start_step < 0:
            raise ValueError(f"start_step is {start_step}, expected 0 or more")
        self.plan = make_plan(mixture, config, seed)
        self.lanes = self.plan.rank_lanes(rank, world) if lanes is None else lanes
        self.wait_seconds = 0.0
        """Time the consumer has spent waiting for batches."""
        self._stream_wait_s = dict.fromkeys(mixture.streams, 0.0)
        self.skipped: list[Skipped] = []
        """What was left out so far, a few steps ahead of the batches; only ever grows, under `on_error: skip`."""
        self._mixture, self._config = mixture, config
        windows_fit(window_bytes(mixture, config, len(self.lanes)), config.buffer_mb * 2**20)
        self._fetcher, self._readers = self._open_readers(start_step)
        buffers = BufferPool(pinned=torch.cuda.is_available() and get_worker_info() is None)
        self._preparers = {
            name: Preparer(stream, mixture, config, seed, buffers) for name, stream in mixture.streams.items()
        }
        self._step = start_step
        self._steps_ahead = 1 + config.prefetch_steps
        self._under_way: deque[list[SubBatch]] = deque()
        self._planned: deque[list[Part]] = deque()
        """Steps beyond those under way."""
        self._announced = dict.fromkeys(mixture.streams, 0)
        """By stream, the step up to which remote pieces have been asked for."""
        self._pace = Pace()
        self._scratch = Scratch()
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(config.threads, thread_name_prefix="gfm-data")

    @property
    def bytes_read(self) -> int:
        """Bytes of shards fetched so far, refetches included."""
        return sum(reader.bytes_read for reader in self._readers.values())

    @property
    def refetches(self) -> int:
        """Reads that brought wrong or too few bytes and were repeated."""
        return sum(reader.refetches for reader in self._readers.values())

    def counts(self) -> LoaderCounts:
        """Return what this loader and the stores behind it have done so far."""
        stores = store_counts(self._mixture.streams.values())
        return LoaderCounts(self.bytes_read, self.refetches, stores, dict(self._stream_wait_s))

    def stage_seconds(self) -> dict[str, dict[str, float]]:
        """Return by stream where the time of the threads went so far, see `stages`."""
        return {name: dict(reader.stages.seconds) for name, reader in self._readers.items()}

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
        for reader in self._readers.values():
            reader.close()
        self._fetcher, self._readers = self._open_readers(self._step)

    def __iter__(self) -> Iterator[tuple[HeterogeneousBatch, ...]]:
        return self

    def __next__(self) -> tuple[HeterogeneousBatch, ...]:
        """Return the next step's batches; raise what any thread has raised, whichever step it worked for."""
        if self._pool is None:
            raise RuntimeError("this loader is closed")
        self._pace.asked()
        try:
            self._look_ahead()
            while len(self._under_way) < self._steps_ahead:
                self._under_way.append([self._start(step_part, self._pool) for step_part in self._planned.popleft()])
            self._await_first()
            batches = self._collect(self._step, self._under_way.popleft())
        except BaseException:
            self.close()
            raise
        self._step += 1
        self._pace.delivered()
        return batches

    def close(self) -> None:
        """Stop and join the threads; samples under way are dropped. Closing again does nothing."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        pool.shutdown(wait=False, cancel_futures=True)
        for reader in self._readers.values():
            reader.close()
        pool.shutdown(wait=True)
        self._under_way.clear()
        self._planned.clear()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_readers(self, first_step: int) -> tuple[Fetcher[Fetched], dict[str, StreamReader]]:
        fetcher = Fetcher[Fetched](self._config.requests, self._config.buffer_mb * 2**20)
        series, records = self._config.time, bool(self._config.carry)
        readers = {
            name: StreamReader(
                stream, self.plan.position(name, first_step), fetcher, self._config.map_local, series, records
            )
            for name, stream in self._mixture.streams.items()
        }
        return fetcher, readers

    def _look_ahead(self) -> None:
        """Plan steps to be started, and ask for the remote pieces that will be wanted soon."""
        beyond = {name: self._steps_beyond(name) for name in self._readers}
        first = self._step + len(self._under_way)
        target = self._step + self._steps_ahead + max(beyond.values())
        for step in range(first + len(self._planned), target):
            turns = [(lane, name) for lane in self.lanes for name in self.plan.streams_at(step)]
            self._planned.append([Part(lane, name, self.plan.take(name, lane, step)) for lane, name in turns])
        for name, reader in self._readers.items():
            until = self._step + self._steps_ahead + beyond[name]
            for step in range(max(self._announced[name], first), until):
                for part in self._planned[step - first]:
                    if part.stream == name:
                        reader.announce(part.picks)
            self._announced[name] = max(self._announced[name], until)

    def _steps_beyond(self, name: str) -> int:
        config, stream = self._config, self._mixture.streams[name]
        arrival = config.window_chunks * len(self.lanes) / config.requests * self._fetcher.seconds_per_piece
        window_steps = config.window_chunks * config.chunk_samples // stream.samples_per_step
        return self._pace.steps_ahead(arrival, window_steps)

    def _start(self, part: Part, pool: ThreadPoolExecutor) -> SubBatch:
        rows = self._preparers[part.stream].new_rows()
        step = self._step + len(self._under_way)
        firsts = range(0, len(part.picks), ROWS_PER_TASK)
        return SubBatch(part, rows, [pool.submit(self._prepare, step, part, rows, first) for first in firsts])

    def _prepare(self, step: int, part: Part, rows: Rows, first: int) -> Done:
        """Fill the rows from `first` on that make one task."""
        reader, preparer = self._readers[part.stream], self._preparers[part.stream]
        keys = []
        picks = part.picks[first : first + ROWS_PER_TASK]
        reader.watch.start()
        draws = [preparer.draw(rows, row, pick) for row, pick in enumerate(picks, first)]
        reader.watch.lap("augment")
        for row, pick in enumerate(picks, first):
            key = reader.key(pick)
            try:
                sample = reader.read(pick, self._scratch)
            except DamageError as error:
                if self._config.on_error == "fail":
                    raise
                shard = self._mixture.streams[part.stream].shards[pick.shard].entry.name
                self.skipped.append(Skipped(step, part.lane, part.stream, shard, key, str(error)))
                _log.warning("step %d leaves out sample %s of stream %s: %s", step, key, part.stream, error)
                rows.blank(row)
            else:
                preparer.fill(rows, row, pick, sample, draws[row - first], reader.watch)
            keys.append(key)
        return Done(keys, time.perf_counter())

    def _await_first(self) -> None:
        """Wait until the first step under way is ready; raise at once when any step under way has failed."""
        began = warned = time.perf_counter()
        first = self._under_way[0]
        missing = {run for batch in first for run in batch.runs}
        while missing:
            # A signal may reach another thread: this one looks up now and then, or Ctrl-C would have to wait.
            done, missing = wait(missing, timeout=_LOOK_UP_EVERY_S, return_when=FIRST_EXCEPTION)
            if any(run.exception() is not None for run in done):
                break
            if missing and time.perf_counter() - warned > _WARN_EVERY_S:
                warned = time.perf_counter()
                late = sorted({batch.part.stream for batch in first if not all(run.done() for run in batch.runs)})
                _log.warning("step %d has waited %.0f s for samples of %s", self._step, warned - began, ", ".join(late))
        self.wait_seconds += time.perf_counter() - began
        for batches in self._under_way:
            for run in (run for batch in batches for run in batch.runs):
                if run.done() and (error := run.exception()) is not None:
                    raise error
        for name in {batch.part.stream for batch in first}:
            ready = max(run.result().at for batch in first if batch.part.stream == name for run in batch.runs)
            self._stream_wait_s[name] += max(0.0, ready - began)

    def _collect(self, step: int, batches: list[SubBatch]) -> tuple[HeterogeneousBatch, ...]:
        by_lane: dict[int, dict[str, StreamBatch]] = {lane: {} for lane in self.lanes}
        for batch in batches:
            by_lane[batch.part.lane][batch.part.stream] = batch.result()
        return tuple(HeterogeneousBatch(step, lane, streams) for lane, streams in by_lane.items())
