"""How the data kept up with the training: a section of every row of metrics."""

from __future__ import annotations

import time
from typing import Any

import torch

from gfm_pipeline.data.counts import LoaderCounts
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.train.comm import World


class DataMeter:
    """Takes the differences from row to row."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._before, self._since = loader.counts(), time.perf_counter()

    def row(self, world: World) -> dict[str, Any]:
        """Return what happened since the last row, over all ranks; every rank must call it, for one all-reduce.

        wait_share: by stream, the share of the time in which the trainer waited for its samples, a mean over ranks.
        The others are sums.
        """
        counts, now = self._loader.counts(), time.perf_counter()
        before, seconds = self._before, now - self._since
        self._before, self._since = counts, now
        shares = {name: (wait - before.stream_wait_s[name]) / seconds for name, wait in counts.stream_wait_s.items()}
        ours, theirs = _sums(counts), _sums(before)
        numbers = [*shares.values(), *(ours[name] - theirs[name] for name in ours)]
        total = world.sum(torch.tensor(numbers, dtype=torch.float64, device=world.device)).tolist()
        waits = dict(zip(shares, (value / world.size for value in total), strict=False))
        sums = dict(zip(ours, total[len(shares) :], strict=True))
        return {"wait_share": waits, "read_mb": sums.pop("bytes") / 1e6, **{name: int(n) for name, n in sums.items()}}


def _sums(counts: LoaderCounts) -> dict[str, int]:
    return {
        "bytes": counts.bytes_read,
        "refetches": counts.refetches,
        "retries": counts.store.retries,
        "cache_hits": counts.store.cache_hits,
        "cache_misses": counts.store.cache_misses,
    }
