"""How well a plan shuffles, against a perfect shuffle of the same samples.

Samples that are neighbours in a shard are often neighbours on the ground, or of one season. Chunks and windows keep
reading cheap and shuffle less than drawing every sample by itself; these figures say how much less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfm_pipeline.data.mixture import Stream
from gfm_pipeline.data.plan import Plan


@dataclass(frozen=True)
class ShuffleQuality:
    """One pass of one stream, all lanes. "Followers" are samples that one lane takes one after the other."""

    stream: str
    samples: int
    repeated: int
    """Samples that come more than once; 0, or the plan is broken."""
    missing: int
    """Samples that never come; 0, or the plan is broken."""
    correlation: float
    """Of the stored position of a sample and of its follower, in [-1, 1]; nan for fewer than three pairs."""
    correlation_noise: float
    """What a perfect shuffle has by chance: the standard deviation around 0."""
    same_shard: float
    """Share of followers from the shard of the sample before."""
    same_shard_perfect: float
    """The same of a perfect shuffle."""
    shards_in_batch: float
    """Different shards in the samples that a lane takes in one step, on average."""
    shards_in_batch_perfect: float
    """The same of a perfect shuffle."""


def shuffle_quality(plan: Plan, stream: Stream, pass_index: int = 0) -> ShuffleQuality:
    """Return how well one pass of `stream` is shuffled; costs O(samples) time, and a byte of memory for each."""
    sizes = np.array([shard.samples for shard in stream.shards], dtype=np.int64)  # [shards]
    ends, total = np.cumsum(sizes), int(sizes.sum())
    seen = np.zeros(total, dtype=np.uint8)
    positions = same = pairs = batches = shards = 0
    moments = np.zeros(5)  # sums of x, y, xx, yy, xy over all pairs
    for lane in range(plan.lanes):
        taken = plan.lane_pass(stream.name, lane, pass_index)
        positions += len(taken)
        seen[taken] = 1
        shard = np.searchsorted(ends, taken, side="right")
        same += int((shard[1:] == shard[:-1]).sum())
        pairs += max(0, len(taken) - 1)
        place = taken / total - 0.5
        x, y = place[:-1], place[1:]
        moments += [x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]
        whole = len(taken) // stream.samples_per_step
        rows = np.sort(shard[: whole * stream.samples_per_step].reshape(whole, stream.samples_per_step), axis=1)
        shards += int(whole + (rows[:, 1:] != rows[:, :-1]).sum())
        batches += whole
    share = sizes / total
    return ShuffleQuality(
        stream=stream.name,
        samples=total,
        repeated=positions - int(seen.sum()),
        missing=total - int(seen.sum()),
        correlation=_correlation(moments, pairs),
        correlation_noise=1 / np.sqrt(pairs) if pairs else float("nan"),
        same_shard=same / pairs if pairs else float("nan"),
        same_shard_perfect=float((sizes * (sizes - 1)).sum() / (total * (total - 1))) if total > 1 else float("nan"),
        shards_in_batch=shards / batches if batches else float("nan"),
        shards_in_batch_perfect=float((1 - (1 - share) ** stream.samples_per_step).sum()),
    )


def _correlation(moments: NDArray[np.float64], pairs: int) -> float:
    if pairs < 3:
        return float("nan")
    x, y, xx, yy, xy = moments / pairs
    spread = (xx - x * x) * (yy - y * y)
    return float((xy - x * y) / np.sqrt(spread)) if spread > 0 else float("nan")
