"""The members of samples as webdataset's tar reader gives them, in the order of a plan: a source for its pipelines.

    webdataset.DataPipeline(TarSamples(config, "sen12ms", seed=0), webdataset.map(decode_sample), ...)

What webdataset reads shard by shard in tar order, this reads chunk by chunk in the shuffled order of a stream: each
sample once in a pass, only the members of wanted sensors, checked against the sidecar's crc32, from any store. There
is no need for a shuffle buffer, `split_by_node` or `split_by_worker`: ranks and workers take lanes of their own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.data.dataset import refuse_fork
from gfm_pipeline.data.fetch import Fetcher
from gfm_pipeline.data.mixture import Stream, make_plan, open_mixture
from gfm_pipeline.data.plan import Pick, Plan
from gfm_pipeline.data.reader import Fetched, StreamReader
from gfm_pipeline.data.workers import worker_lanes
from gfm_pipeline.errors import ConfigError, nearest
from gfm_pipeline.shards.manifest import tar_path

Sample = dict[str, Any]
"""`__key__`, `__url__`, and the bytes of each member under its name without the key, as "s1.blosc2" and "json"."""


class TarSamples(IterableDataset[Sample]):
    """One stream of a mixture, pass after pass; opened in the process that iterates."""

    def __init__(
        self,
        config: DataConfig,
        stream: str,
        seed: int,
        rank: int = 0,
        world: int = 1,
        first_pass: int = 0,
        passes: int | None = 1,
    ) -> None:
        """Iterate over `passes` passes from `first_pass` on; None: endlessly.

        Lanes differ by up to one sample in a pass, so ranks do too: where all must take equally many, take them from
        endless passes (`with_epoch`).
        """
        if stream not in config.streams:
            raise ConfigError(f"no stream is called '{stream}' in data.streams. {nearest(stream, config.streams)}")
        self.config, self.stream, self.seed = config, stream, seed
        self.rank, self.world = rank, world
        self.first_pass, self.passes = first_pass, passes

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples of this rank and DataLoader worker; raises what reading raises, see `StreamReader`."""
        mixture = open_mixture(self.config)
        refuse_fork(mixture)
        plan, stream = make_plan(mixture, self.config, self.seed), mixture.streams[self.stream]
        worker = get_worker_info()
        lanes = list(plan.rank_lanes(self.rank, self.world))
        if worker:
            lanes = worker_lanes(lanes, worker.id, worker.num_workers)
        fetcher = Fetcher[Fetched](self.config.requests, self.config.buffer_mb * 2**20)
        reader = StreamReader(stream, fetcher=fetcher, map_local=self.config.map_local, with_records=True)
        window = self.config.chunk_samples * self.config.window_chunks * len(lanes)
        ahead: deque[Pick] = deque()
        try:
            for picks in self._turns(plan, lanes, stream.samples_per_step):
                reader.announce(picks)
                ahead.extend(picks)
                while len(ahead) > window:
                    yield _read(reader, ahead.popleft(), stream)
            while ahead:
                yield _read(reader, ahead.popleft(), stream)
        finally:
            reader.close()

    def _turns(self, plan: Plan, lanes: list[int], turn_samples: int) -> Iterator[list[Pick]]:
        """Yield what each lane takes in each turn, as in training, but for a last turn that ends with its pass."""
        left: dict[int, tuple[int, float]] = {}
        for lane in lanes:
            begin, _ = plan.pass_range(self.stream, lane, self.first_pass)
            end, _ = plan.pass_range(self.stream, lane, self.first_pass + (self.passes or 0))
            left[lane] = (begin, math.inf if self.passes is None else end)
        while left:
            for lane, (begin, stop) in list(left.items()):
                until = int(min(begin + turn_samples, stop))
                yield plan.take_range(self.stream, lane, begin, until)
                left[lane] = (until, stop)
                if until == stop:
                    del left[lane]


def _read(reader: StreamReader, pick: Pick, stream: Stream) -> Sample:
    ref = stream.shards[pick.shard]
    return {"__key__": reader.key(pick), "__url__": f"{ref.store.url}/{tar_path(ref.entry.name)}"} | reader.members(
        pick
    )
