"""Verified pixels of picked samples, read a chunk piece at a time.

The first sample wanted of a piece fetches all of it that is still to come; the others take their encoded bytes from
memory and give them free. So every byte is fetched once, and a lane holds at most its current windows. Checksums are
computed where a sample is decoded, which spreads them over the threads. Bytes that differ from the sidecar's record
are read again a few times (a fault on the way heals), then reported by name; they never become pixels.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from gfm_pipeline.data.mixture import ShardRef, Stream
from gfm_pipeline.data.plan import Pick
from gfm_pipeline.data.shard_index import ShardIndex, load_shard_index
from gfm_pipeline.errors import ChecksumError, DamageError, GfmError, ShardError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.codec import Raster
from gfm_pipeline.shards.manifest import tar_path
from gfm_pipeline.shards.quantise import decode_member, stored_dtype

REFETCHES = 3
"""Further reads after one that brought wrong or too few bytes."""
BACKOFF_S = 0.05
"""Pause before the first of them; each further pause is twice as long."""
INDEXES_KEPT = 256
"""Sidecars kept in memory per stream, the least recently used go first."""


@dataclass(frozen=True)
class SamplePixels:
    """The rasters of one sample as stored."""

    key: str
    rasters: dict[str, Raster]
    """By sensor, [C,H,W] in the sensor's own type and units."""


@dataclass(eq=False)
class _Piece:
    """Encoded members of one chunk piece; empty until somebody wants the first one."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    members: dict[int, dict[str, bytes] | None] | None = None
    """By sample in the shard, then by sensor; None for samples to be read one by one, as reading all at once failed."""


class StreamReader:
    """Reads the samples of one stream, from any number of threads."""

    def __init__(self, stream: Stream, specs: Mapping[str, SensorSpec], since: int = 0) -> None:
        """`since` is the position of a lane at which reading begins: what the lanes took before is not fetched."""
        self._stream = stream
        self._specs = {sensor: specs[sensor] for sensor in stream.sensors}
        self._since = since
        self._lock = threading.Lock()
        self._pieces: dict[tuple[int, int, int, int], _Piece] = {}
        self._index = lru_cache(maxsize=INDEXES_KEPT)(self._load_index)
        self._closed = threading.Event()
        self.bytes_read = 0
        """Bytes of shards that were fetched, refetches included; sidecars are not counted."""
        self.refetches = 0
        """Reads that had to be repeated."""

    def close(self) -> None:
        """Let threads that wait to read again give up."""
        self._closed.set()

    def key(self, pick: Pick) -> str:
        """Return the key of a sample, from the sidecar alone."""
        return self._index(pick.shard).keys[pick.sample]

    def read(self, pick: Pick) -> SamplePixels:
        """Return the pixels of a sample, once: its encoded bytes are given free.

        Raises DamageError (ChecksumError among them), naming shard, key, sensor and offset, when the bytes stay wrong.
        """
        index = self._index(pick.shard)
        encoded = self._take_members(pick, index)
        rasters: dict[str, Raster] = {}
        for sensor in self._stream.sensors:
            data = self._verified(pick, sensor, index, encoded[sensor])
            rasters[sensor] = self._decoded(pick, sensor, index, data)
        return SamplePixels(index.keys[pick.sample], rasters)

    def _load_index(self, shard: int) -> ShardIndex:
        return load_shard_index(self._stream.shards[shard], self._stream.sensors)

    def _take_members(self, pick: Pick, index: ShardIndex) -> dict[str, bytes]:
        """Return the members of a sample; raise DamageError, naming it, when they are cut short."""
        window = pick.window
        name = (window.lane, window.pass_index, window.index, pick.piece)
        with self._lock:
            piece = self._pieces.setdefault(name, _Piece())
        with piece.lock:
            if piece.members is None:
                samples: list[int] = pick.window.piece_samples(pick.piece, self._since).tolist()
                try:
                    piece.members = dict(self._fetch(pick, index, samples))
                except DamageError:
                    piece.members = dict.fromkeys(samples)
            taken = piece.members.pop(pick.sample)
            if not piece.members:
                with self._lock:
                    self._pieces.pop(name, None)
        return self._fetch(pick, index, [pick.sample])[pick.sample] if taken is None else taken

    def _fetch(self, pick: Pick, index: ShardIndex, samples: list[int]) -> dict[int, dict[str, bytes]]:
        """Read samples of the pick's shard."""
        members: dict[int, dict[str, bytes]] = {sample: {} for sample in samples}
        for wanted in index.ranges(samples):
            first = wanted.members[0]
            data = memoryview(self._read_range(pick.shard, wanted.start, wanted.length, first.sample, first.sensor))
            for member in wanted.members:
                begin = member.offset - wanted.start
                # A copy of its own, so that the bytes of a sample are freed when it is taken.
                members[member.sample][member.sensor] = bytes(data[begin : begin + member.size])
        return members

    def _read_range(self, shard: int, start: int, length: int, sample: int, sensor: str) -> bytes:
        """Return exactly `length` bytes, reading again when there are fewer."""
        ref = self._stream.shards[shard]
        for attempt in range(1 + REFETCHES):
            self._pause(attempt)
            data = ref.store.get_range(tar_path(ref.entry.name), start, length)
            with self._lock:
                self.bytes_read += len(data)
            if len(data) == length:
                return data
        key = self._index(shard).keys[sample]
        raise DamageError(
            f"{self._where(ref, key, sensor, start)}: {len(data)} bytes came after {1 + REFETCHES} reads, expected "
            f"{length}; the shard should have {ref.entry.bytes} bytes and is cut short. Copy or build it again."
        )

    def _verified(self, pick: Pick, sensor: str, index: ShardIndex, data: bytes) -> bytes:
        column = index.columns[sensor]
        offset, size, expected = (int(c[pick.sample]) for c in (column.offset, column.size, column.crc32))
        for attempt in range(1 + REFETCHES):
            if attempt:
                self._pause(attempt)
                data = self._read_range(pick.shard, offset, size, pick.sample, sensor)
            found = zlib.crc32(data)
            if found == expected:
                return data
        ref = self._stream.shards[pick.shard]
        raise ChecksumError(
            f"{self._where(ref, index.keys[pick.sample], sensor, offset)}: the {size} bytes have crc32 {found:08x} "
            f"after {1 + REFETCHES} reads, the sidecar recorded {expected:08x}. The shard is damaged: copy or build "
            "it again."
        )

    def _decoded(self, pick: Pick, sensor: str, index: ShardIndex, data: bytes) -> Raster:
        stored, spec = index.columns[sensor].stored[pick.sample], self._specs[sensor]
        offset = int(index.columns[sensor].offset[pick.sample])
        where = self._where(self._stream.shards[pick.shard], index.keys[pick.sample], sensor, offset)
        if len(stored.shape) != 3 or stored.shape[0] != len(spec.bands) or stored.dtype != stored_dtype(spec):
            raise ShardError(
                f"{where}: the raster is {stored.dtype}{list(stored.shape)}, expected {stored_dtype(spec)} with "
                f"{len(spec.bands)} bands [C,H,W]. Leave sensor {sensor} out of data.streams.{self._stream.name}."
            )
        try:
            return decode_member(data, stored.extension, stored.dtype, stored.shape, spec)
        except ShardError as error:
            raise DamageError(f"{where}: {error}") from error

    def _where(self, ref: ShardRef, key: str, sensor: str, offset: int) -> str:
        return f"{ref.store.url}/{tar_path(ref.entry.name)}: sample {key}, sensor {sensor} at byte {offset}"

    def _pause(self, attempt: int) -> None:
        if not attempt:
            return
        with self._lock:
            self.refetches += 1
        if self._closed.wait(BACKOFF_S * 2 ** (attempt - 1)):
            raise GfmError("the loader was closed while a read was being repeated.")
