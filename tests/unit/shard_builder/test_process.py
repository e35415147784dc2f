from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, numpy
from shard_builder.executors.process import keep_freed_memory
assert keep_freed_memory()
def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        arrays = [numpy.ones(size, numpy.uint8) for size in [1_000_000] * 6]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(3)
print(faults(50))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this choice")
def test_arrays_use_the_memory_of_those_before_them() -> None:
    """By default, the kernel takes six arrays of a megabyte back and zeroes their 1,465 pages anew in every round."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1465
