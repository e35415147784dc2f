"""Memory that a thread works in, kept from sample to sample.

A fresh array of a megabyte is given by the kernel page by page, each zeroed at first touch, which takes a quarter of
the time of decoding into it. So every worker thread has its own named buffers, which grow to the largest sample and
stay.
"""

from __future__ import annotations

import math
import threading

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 64


class Scratch(threading.local):
    """Buffers by name, a set of its own in each thread. What `take` returns is valid until the name is taken again."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def take(self, name: str, num_bytes: int) -> NDArray[np.uint8]:
        """Return the first `num_bytes` of the thread's buffer `name`; their content is undefined."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < num_bytes:
            whole = np.empty(num_bytes + _ALIGNMENT, np.uint8)
            buffer = self._buffers[name] = whole[-whole.ctypes.data % _ALIGNMENT :]
        return buffer[:num_bytes]

    def floats(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the thread's buffer `name` as float32 of `shape`."""
        array: NDArray[np.float32] = self.take(name, 4 * math.prod(shape)).view(np.float32).reshape(shape)
        return array
