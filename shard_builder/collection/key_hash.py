"""Keys as 64 bit numbers: eight bytes a sample is what it costs to see that no key of a collection comes twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def hash_keys(keys: Iterable[str]) -> NDArray[np.uint64]:
    """Return one number per key; different keys have different ones but for one chance in 2**64 a pair."""
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, np.uint64)
