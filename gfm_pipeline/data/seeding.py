"""Random numbers that depend on what they are for, and on nothing else.

Every draw of the data side names its purpose as a few integers and texts: the seed, the stream, the pass, the sample.
The same name gives the same numbers in any process, thread, rank and batch position. Only raw bits of the Philox
generator are used, which numpy guarantees never to change; the distributions of `numpy.random.Generator` may.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_SEED = 2**64 - 1


class _Generator(threading.local):
    """A Philox of each thread that is set to the beginning of one stream after the other: making one takes longer."""

    def __init__(self) -> None:
        self._philox = np.random.Philox(0)
        self._state: Any = self._philox.state
        self._state["state"]["counter"] = np.zeros(4, np.uint64)

    def raw(self, key: NDArray[Any], count: int) -> NDArray[np.uint64]:
        """Return the first `count` words that `Philox(key=key)` gives."""
        self._state["state"]["key"] = key
        self._philox.state = self._state
        bits: NDArray[np.uint64] = self._philox.random_raw(count)
        return bits


_generator = _Generator()


def stable_id(text: str) -> int:
    """Return 64 bits of the sha256 of `text`: an integer name that no process and no PYTHONHASHSEED changes."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def raw_bits(count: int, *name: int) -> NDArray[np.uint64]:
    """Return `count` uniform 64-bit words; `name` are integers in [0, 2**64)."""
    # SeedSequence takes as many 32-bit words as an integer needs and pads short lists with zeros, so that (1, 2) and
    # (1 + 2**33,) would be one name, and (1,) and (1, 0) another. Two words for each integer and their number first.
    words = np.empty(1 + 2 * len(name), np.uint32)
    words[0] = len(name)
    words[1:] = np.array(name, dtype="<u8").view("<u4")
    return _generator.raw(np.random.SeedSequence(words).generate_state(2, np.uint64), count)


def uniforms(count: int, *name: int) -> NDArray[np.float64]:
    """Return `count` numbers in [0, 1)."""
    numbers: NDArray[np.float64] = (raw_bits(count, *name) >> np.uint64(11)) * 2.0**-53
    return numbers


def permutation(count: int, *name: int) -> NDArray[np.int64]:
    """Return a random order of range(count)."""
    return np.argsort(raw_bits(count, *name), kind="stable")
