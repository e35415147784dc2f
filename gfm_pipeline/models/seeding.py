"""Initialisation that depends on a part's name, not on what was built before it.

Every named part draws from a generator of its own, so a model's weights are the same for any expert-parallel size,
and adding a sensor leaves the initial weights of all others as they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def mix_seed(seed: int, *parts: str | int) -> int:
    """Return a 63-bit integer that depends on `seed` and all `parts`; the same in every process."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@contextmanager
def seeded(seed: int, *parts: str | int) -> Iterator[None]:
    """Run a block with torch's CPU generator seeded by `mix_seed`, and put its state back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seed(seed, *parts))
        yield
