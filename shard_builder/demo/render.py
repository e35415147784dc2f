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
from shard_builder.executors.pool import end_with_parent, end_workers, without_ctrl_c

AHEAD = 8
"""Items in hand per process: enough to keep all busy, few enough for a planet of any size."""

Item = list[Member]


def render_items(request: Request, family: Family, workers: int) -> Iterator[Item]:
    """Yield the members of every item of `family`; an item is the same whoever renders it."""
    left = iter(range(family.count(request.places)))
    if workers == 1:
        yield from (list(family.item(request, index)) for index in left)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), end_with_parent)
    try:
        with without_ctrl_c():
            waiting = deque(pool.submit(_render, request, family.name, i) for i in islice(left, AHEAD * workers))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(_render, request, family.name, i) for i in islice(left, 1))
    except BaseException as error:
        end_workers()  # what they render is of no more use, and may take them minutes
        if isinstance(error, BrokenProcessPool):
            raise GfmError(
                "a process that rendered died, for want of memory perhaps. Run the same command again with fewer "
                "--workers."
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _render(request: Request, name: str, index: int) -> Item:
    family = next(family for family in FAMILIES if family.name == name)
    return list(family.item(request, index))
