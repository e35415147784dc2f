"""The items of a family in their order, rendered here or by several processes, a bounded number of them ahead."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from gfm_pipeline.errors import GfmError
from shard_builder.demo.families import FAMILIES, Family, Member, Request
from shard_builder.pool import end_with_parent, without_ctrl_c

RUN = 8
"""Items that a process renders at a time."""
AHEAD = 3
"""Runs in hand per process: enough to keep all busy, few enough for a planet of any size."""

Item = list[Member]


def render_items(request: Request, family: Family, workers: int) -> Iterator[Item]:
    """Yield the members of every item of `family`; an item is the same whoever renders it."""
    count = family.count(request.places)
    runs = (range(start, min(start + RUN, count)) for start in range(0, count, RUN))
    if workers == 1:
        for run in runs:
            yield from (list(family.item(request, index)) for index in run)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), end_with_parent)
    try:
        with without_ctrl_c():
            waiting = deque(pool.submit(_render, request, family.name, run) for run in islice(runs, AHEAD * workers))
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(pool.submit(_render, request, family.name, run) for run in islice(runs, 1))
    except BrokenProcessPool as error:
        raise GfmError(
            "a process that rendered died, for want of memory perhaps. Run the same command again with fewer --workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _render(request: Request, name: str, run: range) -> list[Item]:
    family = next(family for family in FAMILIES if family.name == name)
    return [list(family.item(request, index)) for index in run]
