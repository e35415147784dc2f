"""How much memory builds need: the same for a few places as for many."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gfm_pipeline.config import StrictModel
from shard_builder.bench.contender import Task, run
from shard_builder.bench.raw import Raw, make

TILE_PX = 64
RENDERED = 64
LIMIT_BYTES = 500 * 2**20
"""What no process of a build should need."""


class Peak(StrictModel):
    """The peak memory of one build."""

    input: str
    places: int
    workers: int
    main_bytes: int
    worker_bytes: int
    """Of the largest worker process; 0 where the main process does the work."""
    seconds: float


def measure(folder: Path, scratch: Path, sizes: Sequence[int]) -> list[Peak]:
    """Build inputs of as many places as `sizes` say, with one and two processes."""
    found: list[Peak] = []
    for name, source in (("sen12ms-tar.gz", "sen12ms"), ("sen12ms-folders", "sen12ms"), ("rgb-zip", "millionaid")):
        for places in sizes:
            raw = Raw.model_validate(
                {
                    "name": f"peak-{name}-{places}",
                    "source": source,
                    "packed": not name.endswith("folders"),
                    "places": places,
                    "rendered": min(places, RENDERED),
                    "tile_px": TILE_PX,
                }
            )
            make(raw, folder / raw.name, lambda done, total: None)
            for workers in (1, 2):
                output = scratch / "output"
                task = Task(
                    contender="builder",
                    workers=workers,
                    source=raw.source,
                    input=str(folder / raw.name),
                    output=str(output),
                    max_samples=min(sizes) // 2,  # both processes have a shard to write
                )
                try:
                    timing = run(task)
                finally:
                    shutil.rmtree(output, ignore_errors=True)
                worker = timing.peak_bytes_children if workers > 1 else 0
                found.append(
                    Peak(
                        input=name,
                        places=places,
                        workers=workers,
                        main_bytes=timing.peak_bytes,
                        worker_bytes=worker,
                        seconds=timing.seconds,
                    )
                )
    return found


def describe(peaks: Iterable[Peak]) -> Iterator[str]:
    """Yield a table for a person."""
    yield f"Peak memory of each process, places of {TILE_PX} px; the limit is {LIMIT_BYTES / 2**20:.0f} MiB"
    yield "  input             places  processes   main MiB  worker MiB  seconds"
    for peak in peaks:
        worker = f"{peak.worker_bytes / 2**20:.0f}" if peak.worker_bytes else "-"
        yield (
            f"  {peak.input:<16}{peak.places:>8}{peak.workers:>11}{peak.main_bytes / 2**20:>11.0f}{worker:>12}"
            f"{peak.seconds:>9.1f}"
        )


def as_json(peaks: Iterable[Peak]) -> dict[str, Any]:
    """Return everything that was measured."""
    return {"tile_px": TILE_PX, "peaks": [peak.model_dump(mode="json") for peak in peaks]}
