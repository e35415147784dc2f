"""Memory of batches, used again once nobody holds it.

The rule: **a batch is the consumer's for as long as any tensor, view or array of it exists.** Nothing is to be given
back by hand, and nothing is overwritten behind a consumer that keeps a batch: it only costs another buffer. The
storage of each tensor holds an array that exists for this purpose alone; its end returns the memory to the pool.

For copies to a GPU the memory is pinned and comes from torch's own pool of pinned blocks, which follows the same rule
and also waits for copies under way (it records an event on the stream of each `non_blocking` copy).

Used again, because fresh memory is zeroed by the kernel page by page at first touch: 0.25 ms a megabyte where this was
measured, as long as copying the crops into it.
"""

from __future__ import annotations

import math
import threading
import weakref

import numpy as np
import torch
from numpy.typing import NDArray

SPARE_BUFFERS = 16
"""Unused buffers of one size that are kept; more than that are freed."""


class BufferPool:
    """Tensors of batches; safe to use from any thread."""

    def __init__(self, pinned: bool = False) -> None:
        self.pinned = pinned
        self.num_made = 0
        """Buffers that were allocated because none was spare; pinned ones are not counted."""
        self._spare: dict[int, list[NDArray[np.uint8]]] = {}
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: np.dtype[np.generic] | type) -> torch.Tensor:
        """Return a tensor of undefined content."""
        dtype = np.dtype(dtype)
        if self.pinned:
            like = torch.from_numpy(np.empty(0, dtype))
            return torch.empty(shape, dtype=like.dtype, pin_memory=True)
        size = math.prod(shape) * dtype.itemsize
        with self._lock:
            spare = self._spare.get(size)
            base = spare.pop() if spare else None
            self.num_made += base is None
        if base is None:
            base = np.empty(size, np.uint8)
        lent = base.view(dtype).reshape(shape)  # an object of its own, which the tensor's storage keeps alive
        weakref.finalize(lent, self._give_back, base).atexit = False
        return torch.from_numpy(lent)

    def _give_back(self, base: NDArray[np.uint8]) -> None:
        with self._lock:
            spare = self._spare.setdefault(len(base), [])
            if len(spare) < SPARE_BUFFERS:
                spare.append(base)
