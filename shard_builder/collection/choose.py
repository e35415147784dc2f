"""A choice of samples that is even over the collection and the same on every machine."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from gfm_pipeline.errors import UsageError


def choose_samples(samples_of_shards: Sequence[int], count: int, seed: int) -> dict[int, list[int]]:
    """Return `count` samples (all, where there are fewer) as {shard: sorted indices of its samples}.

    The samples of all shards in their order are cut into `count` runs of equal length, give or take one, and one
    sample is drawn from each: no part of the collection is left out, and no sample is drawn twice.
    """
    total = sum(samples_of_shards)
    count = min(count, total)
    if count == 0:
        return {}
    edges = np.array([total * i // count for i in range(count + 1)])
    drawn = np.random.default_rng(seed).integers(edges[:-1], edges[1:])
    ends = np.cumsum(samples_of_shards)
    shards = np.searchsorted(ends, drawn, side="right")
    chosen: dict[int, list[int]] = {}
    for shard, place in zip(shards.tolist(), drawn.tolist(), strict=True):
        chosen.setdefault(shard, []).append(place - int(ends[shard]) + samples_of_shards[shard])
    return chosen


def parse_share(text: str, total: int) -> int:
    """Return how many of `total` samples "1%" or "200" means, one at least; raise UsageError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text.strip())
    value = float(found[1]) if found else 0.0
    if found is None or value <= 0 or (found[2] and value > 100) or (not found[2] and "." in found[1]):
        raise UsageError(f"found --sample {text!r}, expected a share such as 1% or a number of samples such as 200.")
    return min(total, math.ceil(total * value / 100) if found[2] else int(value))
