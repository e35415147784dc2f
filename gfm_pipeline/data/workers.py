"""How a rank's lanes are dealt to the worker processes of a torch DataLoader.

A DataLoader takes one item from each worker in turn. So of W busy workers, worker w serves the lanes w, w + W, ... of
its rank, in order, and the items come out in the order of one process. For that W must divide the lanes: of a number
that does not, as many as do are busy and the others have nothing. Lanes are never shared between workers, who would
fetch the same chunks twice.
"""

from __future__ import annotations

from collections.abc import Sequence


def busy_workers(num_lanes: int, num_workers: int) -> int:
    """Return how many of `num_workers` (0: the process itself) have lanes to serve, at least one."""
    return max(count for count in range(1, max(1, min(num_workers, num_lanes)) + 1) if num_lanes % count == 0)


def worker_lanes(lanes: Sequence[int], worker: int, num_workers: int) -> list[int]:
    """Return those of a rank's `lanes` that `worker` serves."""
    busy = busy_workers(len(lanes), num_workers)
    return list(lanes[worker::busy]) if worker < busy else []
