"""Shards in object stores: chunk pieces fetched ahead, many at a time, in the order in which they will be wanted.

A piece is fetched once, with one request for all of its ranges, and its samples are given away one by one, which frees
their bytes. Pieces are asked for ahead as far as the limit on held bytes allows; one that a thread is waiting for is
fetched in any case, or nothing would ever move again. `data.buffer_mb` is checked against what the open windows need
before the first step, so the exception stays one.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.data.mixture import Mixture
from gfm_pipeline.errors import ConfigError, GfmError

S = TypeVar("S")
_SMOOTHING = 0.2


class Piece(Generic[S]):
    """Samples of one chunk piece; `load` returns them by number with the bytes each one holds."""

    def __init__(self, load: Callable[[], dict[int, tuple[S, int]]], expected_bytes: int) -> None:
        self.load = load
        self.bytes = expected_bytes
        self.samples: dict[int, tuple[S, int]] | None = None
        self.error: BaseException | None = None
        self.started = False
        self.waiters = 0


class Fetcher(Generic[S]):
    """A few threads that load pieces. Pieces are named; whoever asks first brings the way to load one."""

    def __init__(self, threads: int, limit_bytes: int) -> None:
        self.seconds_per_piece = 0.0
        """Smoothed time that a piece takes from request to arrival."""
        self.held_bytes = 0
        """Bytes of pieces that have been fetched or are under way, and not been taken."""
        self.most_held_bytes = 0
        self._limit = limit_bytes
        self._wanted_threads = threads
        self._threads: list[threading.Thread] = []
        self._pieces: OrderedDict[Hashable, Piece[S]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._broken: BaseException | None = None

    @property
    def threads(self) -> int:
        """How many pieces are loaded at a time."""
        return self._wanted_threads

    def announce(self, name: Hashable, make: Callable[[], Piece[S]]) -> None:
        """Fetch a piece when its turn comes; asking again changes nothing."""
        with self._changed:
            self._find(name, make)

    def take(self, name: Hashable, sample: int, make: Callable[[], Piece[S]]) -> S:
        """Return a sample, once; waits until its piece is there. Raises what loading the piece raised."""
        with self._changed:
            piece = self._find(name, make)
            piece.waiters += 1
            self._changed.notify_all()
            while not (piece.samples is not None or piece.error or self._closed or self._broken):
                self._changed.wait()
            piece.waiters -= 1
            if self._closed:
                raise GfmError("the loader was closed while a sample was being waited for.")
            if (error := piece.error or self._broken) is not None:
                raise error
            assert piece.samples is not None
            found, size = piece.samples.pop(sample)
            self.held_bytes -= size
            if not piece.samples:
                del self._pieces[name]
            self._changed.notify_all()
            return found

    def close(self) -> None:
        """Stop and join the threads, whose reads must have been told to give up."""
        with self._changed:
            self._closed = True
            self._pieces.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _find(self, name: Hashable, make: Callable[[], Piece[S]]) -> Piece[S]:
        if self._closed:
            raise GfmError("the loader is closed.")
        piece = self._pieces.get(name)
        if piece is None:
            piece = self._pieces[name] = make()
            if len(self._threads) < self._wanted_threads:
                thread = threading.Thread(target=self._work, name=f"gfm-data-fetch-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify_all()
        return piece

    def _next(self) -> Piece[S] | None:
        """Return the piece to load next: one that is waited for, else the first for which there is room."""
        new = [piece for piece in self._pieces.values() if not piece.started]
        urgent = next((piece for piece in new if piece.waiters), None)
        if urgent is not None or not new:
            return urgent
        return new[0] if self.held_bytes + new[0].bytes <= self._limit else None

    def _work(self) -> None:
        try:
            self._load_pieces()
        except BaseException as error:  # a defect of this class: nobody may wait for a thread that is gone
            with self._changed:
                self._broken = error
                self._changed.notify_all()

    def _load_pieces(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (piece := self._next()) is None:
                    self._changed.wait()
                if self._closed:
                    return
                assert piece is not None
                piece.started = True
                self._hold(piece.bytes)
            began = time.perf_counter()
            samples: dict[int, tuple[S, int]] | None = None
            error: BaseException | None = None
            try:
                samples = piece.load()
            except BaseException as raised:  # whatever it is, the thread that waits for the sample raises it
                error = raised
            seconds = time.perf_counter() - began
            with self._changed:
                if samples is not None:
                    self._hold(sum(size for _, size in samples.values()) - piece.bytes)
                    weight = _SMOOTHING if self.seconds_per_piece else 1.0
                    self.seconds_per_piece += weight * (seconds - self.seconds_per_piece)
                piece.samples, piece.error = samples, error
                self._changed.notify_all()

    def _hold(self, num_bytes: int) -> None:
        self.held_bytes += num_bytes
        self.most_held_bytes = max(self.most_held_bytes, self.held_bytes)


def windows_fit(needed: dict[str, int], limit: int) -> None:
    """Raise ConfigError when the windows that a rank holds open of remote streams, in bytes, exceed the limit."""
    total = sum(needed.values())
    if total > limit:
        parts = ", ".join(f"{name} {size / 2**20:.0f} MB" for name, size in needed.items())
        raise ConfigError(
            f"the shuffle windows of this rank hold up to {total / 2**20:.0f} MB of encoded samples ({parts}), "
            f"data.buffer_mb allows {limit / 2**20:.0f}. Set data.buffer_mb to at least {-(-total // 2**20)}, or "
            "data.chunk_samples, data.window_chunks or data.lanes lower, or start more ranks."
        )


def window_bytes(mixture: Mixture, config: DataConfig, lanes: int) -> dict[str, int]:
    """Return by stream what `lanes` windows of its remote shards hold at most, by the manifests' sizes."""
    needed: dict[str, int] = {}
    for name, stream in mixture.streams.items():
        per_sample = [
            shard.entry.bytes / max(1, shard.entry.samples)
            for shard in stream.shards
            if shard.store.local_path("") is None
        ]
        if per_sample:
            samples = min(config.chunk_samples * config.window_chunks * lanes, stream.num_samples)
            needed[name] = int(samples * max(per_sample))
    return needed
