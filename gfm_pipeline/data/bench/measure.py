"""One run of one contender, in a process of its own: `python -m gfm_pipeline.data.bench.measure NAME WORK`.

The clock starts when its modules are loaded: opening, starting workers and the first batch are its own time. Rate and
processor time are those of all batches after the first.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time

from gfm_pipeline.config import StrictModel
from gfm_pipeline.data.bench.processes import cpu_seconds, resident_bytes, tree
from gfm_pipeline.data.bench.work import CONTENDERS, Work
from gfm_pipeline.errors import GfmError

SAMPLE_EVERY_S = 0.2


class Timing(StrictModel):
    """What one run took."""

    first_batch_s: float
    seconds: float
    """From the first batch to the last."""
    samples: int
    """Delivered in that time."""
    num_bytes: int
    cpu_s: float
    base_bytes: int
    """Memory when the clock started: the interpreter and its modules."""
    peak_bytes: int = 0
    """Most memory of all processes, the base included."""
    stages: dict[str, float] = {}


def measure(name: str, work: Work) -> Timing:
    """Run a contender in this process."""
    contender = CONTENDERS.get(name)
    for module in contender.needs:
        importlib.import_module(module)
    base = resident_bytes([os.getpid()])
    stages: dict[str, float] = {}
    began = time.perf_counter()
    batches = contender.load(work, stages)
    next(batches)
    first = time.perf_counter()
    used, samples, num_bytes, last = 0.0, 0, 0, first
    before = cpu_seconds(tree(os.getpid()))
    for number, batch in enumerate(batches, 2):
        samples += batch.samples
        num_bytes += batch.num_bytes
        if number >= work.batches - 1:  # near the end, before workers leave
            used = cpu_seconds(tree(os.getpid())) - before
            last = time.perf_counter()
            counted, counted_bytes = samples, num_bytes
    if not used:
        raise GfmError(f"{name} delivered {samples} samples, expected {work.batches} batches of {work.batch}.")
    return Timing(
        first_batch_s=first - began,
        seconds=last - first,
        samples=counted,
        num_bytes=counted_bytes,
        cpu_s=used,
        base_bytes=base,
        stages=stages,
    )


def run(name: str, work: Work, timeout_s: float) -> Timing:
    """Run a contender in a process of its own, watching its memory; raise GfmError when it fails."""
    command = [sys.executable, "-m", "gfm_pipeline.data.bench.measure", name, work.model_dump_json()]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)  # noqa: S603
    deadline, peak = time.monotonic() + timeout_s, 0
    try:
        while process.poll() is None and time.monotonic() < deadline:
            peak = max(peak, resident_bytes(tree(process.pid)))
            try:
                process.wait(SAMPLE_EVERY_S)
            except subprocess.TimeoutExpired:
                continue
        if process.poll() is None:
            raise GfmError(f"{name} was not done after {timeout_s:.0f} s. Set timeout_s higher or passes lower.")
        out, problems = process.communicate()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    if process.returncode:
        lines = [line for line in problems.strip().splitlines() if line.strip()]
        raise GfmError(f"{name} failed with exit code {process.returncode}: {lines[-1] if lines else 'no message'}")
    return Timing.model_validate_json(out.strip().splitlines()[-1]).model_copy(update={"peak_bytes": peak})


if __name__ == "__main__":
    print(measure(sys.argv[1], Work.model_validate_json(sys.argv[2])).model_dump_json())
