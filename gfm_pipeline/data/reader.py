"""Verified pixels of picked samples.

Shards on a local disk are read in place, sample by sample (`local_shards`). Of shards in object stores, whole chunk
pieces are fetched ahead (`fetch`): the first sample wanted of a piece brings all of it that is still to come, the
others take their encoded bytes from memory and give them free. So every byte is fetched once, and a lane holds at most
its current windows. Checksums are computed where a sample is decoded, which spreads them over the threads. Bytes that
differ from the sidecar's record are read again a few times (a fault on the way heals), then reported by name; they
never become pixels.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from gfm_pipeline.data.fetch import Fetcher, Piece
from gfm_pipeline.data.local_shards import LocalShards
from gfm_pipeline.data.mixture import Stream
from gfm_pipeline.data.plan import Pick, Window
from gfm_pipeline.data.scratch import Scratch
from gfm_pipeline.data.shard_index import RECORD, Location, Range, ShardIndex, load_shard_index, misfit
from gfm_pipeline.data.stages import StageSeconds, Stopwatch
from gfm_pipeline.errors import ChecksumError, DamageError, GfmError, ShardError
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.shards.checksum import crc32
from gfm_pipeline.shards.codec import Raster
from gfm_pipeline.shards.manifest import tar_path
from gfm_pipeline.shards.quantise import decode_member
from gfm_pipeline.shards.sample import SampleRecord, parse_record

REFETCHES = 3
"""Further reads after one that brought wrong or too few bytes."""
BACKOFF_S = 0.05
"""Pause before the first of them; each further pause is twice as long."""
INDEXES_KEPT = 256
"""Sidecars kept in memory per stream, the least recently used go first."""
_PIECES_ANNOUNCED = 4096
_SAMPLES_TOGETHER = 32
"""Samples of a shard that are fetched at a time where no plan says how many."""
_OWN_THREADS, _OWN_BYTES = 4, 2**28
"""Of a reader that is given no fetcher."""

Encoded = dict[str, memoryview]
"""Encoded members of one sample by sensor."""
Fetched = Encoded | None
"""None for a sample to be read by itself, as reading its whole piece failed."""


@dataclass(frozen=True)
class SamplePixels:
    """The rasters of one sample as stored."""

    key: str
    rasters: dict[str, Raster]
    """By sensor, [C,H,W] or a series [T,C,H,W], in the type, units and order of bands of its collection."""
    specs: Mapping[str, SensorSpec]
    """What that is: the sensors as the collection stores them."""
    record: SampleRecord | None = None
    """What the sample says about itself, when the reader is asked for it."""


class StreamReader:
    """Reads the samples of one stream, from any number of threads."""

    def __init__(
        self,
        stream: Stream,
        since: int = 0,
        fetcher: Fetcher[Fetched] | None = None,
        map_local: bool = True,
        series: Container[str] = (),
        with_records: bool = False,
    ) -> None:
        """`since` is the position of a lane at which reading begins: what the lanes took before is not fetched.

        `fetcher`, which the readers of a loader share, brings the pieces of remote shards. `map_local`: see
        `local_shards`. `series` are the sensors that may have several dates. `with_records` reads the json members too.
        """
        self._stream = stream
        self._since = since
        self._series = series
        self._with_records = with_records
        self._lock = threading.Lock()
        self._index = lru_cache(maxsize=INDEXES_KEPT)(self._load_index)
        self._local = LocalShards(map_local)
        self._local_path = lru_cache(maxsize=None)(self._path_of)
        self._read_ahead = lru_cache(maxsize=_PIECES_ANNOUNCED)(self._read_ahead_of_disk)
        self._fetcher = fetcher or Fetcher[Fetched](_OWN_THREADS, _OWN_BYTES)
        self._closed = threading.Event()
        self.stages = StageSeconds()
        self.watch = Stopwatch(self.stages)
        self.bytes_read = 0
        """Bytes of shards that were fetched, refetches included; sidecars are not counted."""
        self.refetches = 0
        """Reads that had to be repeated."""

    def close(self) -> None:
        """Let threads that wait for a piece or to read again give up, and end those that fetch."""
        self._closed.set()
        self._fetcher.close()
        self._local.close()

    def key(self, pick: Pick) -> str:
        """Return the key of a sample, from the sidecar alone."""
        return self._index(pick.shard).keys[pick.sample]

    def keys(self, shard: int) -> Sequence[str]:
        """Return the keys of a shard's samples that the stream uses, in their order, from the sidecar alone."""
        return self._index(shard).keys

    def announce(self, picks: Iterable[Pick]) -> None:
        """Fetch the pieces of remote shards that `picks` will be read from, when their turn comes."""
        for window, piece, shard in dict.fromkeys((pick.window, pick.piece, pick.shard) for pick in picks):
            if self._local_path(shard) is None:
                self._fetcher.announce(self._name(window, piece), partial(self._piece, window, piece, shard))

    def read(self, pick: Pick, scratch: Scratch | None = None) -> SamplePixels:
        """Return the pixels of a sample, once: its encoded bytes are given free.

        With `scratch` they lie in its buffers, until it is used again. Raises DamageError (ChecksumError among them),
        naming shard, key, sensor and offset, when the bytes stay wrong.
        """
        scratch = scratch or Scratch()
        index = self._index(pick.shard)
        encoded = self.encoded(pick, scratch)
        record = encoded.pop(RECORD, None)
        rasters = {
            sensor: self._decoded(pick.shard, pick.sample, sensor, data, scratch) for sensor, data in encoded.items()
        }
        told = (
            None
            if record is None
            else parse_record(record, f"the record of sample {index.keys[pick.sample]} of shard {pick.shard}")
        )
        self.watch.lap("decode")
        return SamplePixels(index.keys[pick.sample], rasters, self._stream.shards[pick.shard].specs, told)

    def rasters(self, shard: int, samples: Sequence[int], sensor: str) -> Iterator[tuple[str, Raster]]:
        """Yield (key, raster) of `samples` (sorted) of a shard, for who needs no order: checked and repeated as by
        `read`, with neighbours fetched together."""
        index, scratch = self._index(shard), Scratch()
        for begin in range(0, len(samples), _SAMPLES_TOGETHER):
            fetched = self._fetch(shard, samples[begin : begin + _SAMPLES_TOGETHER])
            for sample, (members, _) in fetched.items():
                found = self._read_sample(shard, sample, index, scratch) if members is None else members
                data = self._verified(shard, sample, sensor, index, found[sensor])
                yield index.keys[sample], self._decoded(shard, sample, sensor, data, scratch)

    def members(self, pick: Pick) -> dict[str, bytes]:
        """Return the verified members of a sample, once, under their names without the key: "s1.blosc2", "json"."""
        index = self._index(pick.shard)
        found: dict[str, bytes] = {}
        for sensor, data in sorted(self.encoded(pick).items()):
            extension = index.columns[sensor].stored[pick.sample].extension
            found[extension if sensor == RECORD else f"{sensor}.{extension}"] = bytes(data)
        return found

    def encoded(self, pick: Pick, scratch: Scratch | None = None) -> Encoded:
        """Return the verified bytes of a sample's members by sensor, once; as `read` does."""
        scratch = scratch or Scratch()
        self.watch.start()
        index = self._index(pick.shard)
        if self._local_path(pick.shard) is not None:
            self._read_ahead(pick.window, pick.piece, pick.shard)
            members = self._read_sample(pick.shard, pick.sample, index, scratch)
        else:
            fetched = self._fetcher.take(
                self._name(pick.window, pick.piece),
                pick.sample,
                partial(self._piece, pick.window, pick.piece, pick.shard),
            )
            members = self._read_sample(pick.shard, pick.sample, index, scratch) if fetched is None else fetched
        self.watch.lap("read")
        verified = {
            sensor: self._verified(pick.shard, pick.sample, sensor, index, members[sensor]) for sensor in index.columns
        }
        self.watch.lap("checksum")
        return verified

    def _load_index(self, shard: int) -> ShardIndex:
        return load_shard_index(self._stream.shards[shard], self._stream.sensors, self._with_records)

    def _path_of(self, shard: int) -> Path | None:
        ref = self._stream.shards[shard]
        return ref.store.local_path(tar_path(ref.entry.name))

    def _name(self, window: Window, piece: int) -> tuple[str, int, int, int, int]:
        return self._stream.name, window.lane, window.pass_index, window.index, piece

    def _read_ahead_of_disk(self, window: Window, piece: int, shard: int) -> None:
        path = self._local_path(shard)
        assert path is not None
        for wanted in self._index(shard).ranges(window.piece_samples(piece, self._since).tolist()):
            self._local.announce(path, wanted.start, wanted.length)

    def _piece(self, window: Window, piece: int, shard: int) -> Piece[Fetched]:
        """Return a piece of a remote shard, to be fetched."""
        samples: list[int] = window.piece_samples(piece, self._since).tolist()
        entry = self._stream.shards[shard].entry
        expected = entry.bytes * len(samples) // max(1, entry.samples)
        return Piece(partial(self._fetch, shard, samples), expected)

    def _fetch(self, shard: int, samples: Sequence[int]) -> dict[int, tuple[Fetched, int]]:
        """Return the members of `samples` and how many bytes those are; of none if some are cut short."""
        index = self._index(shard)
        ranges = index.ranges(samples)
        try:
            parts = self._read_ranges(shard, ranges)
        except DamageError:
            return dict.fromkeys(samples, (None, 0))
        starts = [wanted.start for wanted in ranges]
        members: dict[int, tuple[Fetched, int]] = {}
        for sample in samples:
            found: Encoded = {}
            for wanted in index.sample_ranges(sample):
                at = bisect_right(starts, wanted.start) - 1
                begin = wanted.start - starts[at]
                # A copy of its own, so that the bytes of a sample are freed when it is taken.
                own = bytes(memoryview(parts[at])[begin : begin + wanted.length])
                found |= _cut(wanted, memoryview(own))
            members[sample] = (found, sum(map(len, found.values())))
        return members

    def _read_sample(self, shard: int, sample: int, index: ShardIndex, scratch: Scratch) -> Encoded:
        """Read one sample by itself; raise DamageError, naming it, when it is cut short."""
        members: Encoded = {}
        path = self._local_path(shard)
        for number, wanted in enumerate(index.sample_ranges(sample)):
            if path is not None:
                data = self._local.read(path, wanted.start, wanted.length, f"encoded {number}", scratch)
                with self._lock:
                    self.bytes_read += len(data)
            if path is None or len(data) < wanted.length:
                data = memoryview(self._read_ranges(shard, [wanted])[0])
            members |= _cut(wanted, data)
        return members

    def _read_ranges(self, shard: int, ranges: Sequence[Range]) -> Sequence[bytes]:
        """Return exactly the bytes of each range, reading all of them again when there are fewer."""
        ref = self._stream.shards[shard]
        path = tar_path(ref.entry.name)
        for attempt in range(1 + REFETCHES):
            self._pause(attempt)
            parts = ref.store.get_ranges(path, [(wanted.start, wanted.length) for wanted in ranges], self._closed)
            with self._lock:
                self.bytes_read += sum(map(len, parts))
            short = [(w, data) for w, data in zip(ranges, parts, strict=True) if len(data) < w.length]
            if not short:
                return parts
            for wanted, _ in short:
                ref.store.forget(path, wanted.start, wanted.length)
        wanted, data = short[0]
        where = self._where(shard, wanted.members[0].sample, wanted.members[0].sensor, wanted.start)
        raise DamageError(
            f"{where}: {len(data)} bytes came after {1 + REFETCHES} reads, expected {wanted.length}; the shard should "
            f"have {ref.entry.bytes} bytes and is cut short. Copy or build it again."
        )

    def _verified(self, shard: int, sample: int, sensor: str, index: ShardIndex, data: memoryview) -> memoryview:
        column = index.columns[sensor]
        expected = int(column.crc32[sample])
        found = crc32(data)
        if found == expected:
            return data
        offset, size = int(column.offset[sample]), int(column.size[sample])
        again = Range(offset, size, [Location(sample, sensor, offset, size)])
        ref = self._stream.shards[shard]
        for attempt in range(1, 1 + REFETCHES):
            self._pause(attempt)
            ref.store.forget(tar_path(ref.entry.name), offset, size)
            data = memoryview(self._read_ranges(shard, [again])[0])
            found = crc32(data)
            if found == expected:
                return data
        raise ChecksumError(
            f"{self._where(shard, sample, sensor, offset)}: the {size} bytes have crc32 {found:08x} after "
            f"{1 + REFETCHES} reads, the sidecar recorded {expected:08x}. The shard is damaged: copy or build it again."
        )

    def _decoded(self, shard: int, sample: int, sensor: str, data: memoryview, scratch: Scratch) -> Raster:
        column, spec = self._index(shard).columns[sensor], self._stream.shards[shard].specs[sensor]
        stored = column.stored[sample]
        if complaint := misfit(stored, spec, sensor in self._series):
            where = self._where(shard, sample, sensor, int(column.offset[sample]))
            raise ShardError(f"{where}: {complaint}")
        try:
            room = partial(scratch.take, sensor)
            return decode_member(data, stored.extension, stored.dtype, stored.shape, spec, room)
        except ShardError as error:
            where = self._where(shard, sample, sensor, int(column.offset[sample]))
            raise DamageError(f"{where}: {error}") from error

    def _where(self, shard: int, sample: int, sensor: str, offset: int) -> str:
        ref = self._stream.shards[shard]
        key = self._index(shard).keys[sample]
        member = "record" if sensor == RECORD else f"sensor {sensor}"
        return f"{ref.store.url}/{tar_path(ref.entry.name)}: sample {key}, {member} at byte {offset}"

    def _pause(self, attempt: int) -> None:
        if not attempt:
            return
        with self._lock:
            self.refetches += 1
        if self._closed.wait(BACKOFF_S * 2 ** (attempt - 1)):
            raise GfmError("the loader was closed while a read was being repeated.")


def _cut(wanted: Range, data: memoryview) -> Encoded:
    """Return the members that a range holds, as parts of its bytes."""
    return {
        member.sensor: data[member.offset - wanted.start : member.offset - wanted.start + member.size]
        for member in wanted.members
    }
