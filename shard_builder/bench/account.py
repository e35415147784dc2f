"""What a bench found, for people and for machines."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator
from typing import Any

from shard_builder.bench.race import PROFILE, Score
from shard_builder.bench.stopwatch import WORK

NOTES = (
    "One process at a time, in random order; disks synced before each run, output synced within it; input in the page "
    "cache.",
    "Times begin when a process has imported what it needs; the builder's two processes are started within them.",
    "tar cf copies the input as it is. ShardWriter (webdataset, 1 process) reads, decodes and encodes like the builder",
    "and writes the same encoded bytes, RGB unread, without its checksums, statistics, records, catalog and checks.",
    "decode: sample decodes one in 16 of the images that are stored as they are; with 1 and 2 processes.",
)
_TAR, _RIVAL = "tar cf", "ShardWriter"


def describe(scores: Iterable[Score]) -> Iterator[str]:
    """Yield the lines for a person: a table per input, then where the builder's time goes."""
    scores = list(scores)
    yield from NOTES
    for name in dict.fromkeys(score.input for score in scores):
        mine = {score.contender: score for score in scores if score.input == name}
        some = next(iter(mine.values()))
        yield f"{name}: {some.samples} samples, {some.raw_bytes / 1e6:.0f} MB"
        yield "  contender              samples/s    MB/s  seconds (least to most)     cpu s  of tar cf  of ShardWriter"
        for score in (score for score in mine.values() if score.contender != PROFILE):
            least, most = score.spread
            yield (
                f"  {score.contender:<22} {score.samples / score.seconds:>9.0f} {_rate(score):>7.0f}"
                f"  {score.seconds:>7.2f} ({least:.2f} to {most:.2f})".ljust(69)
                + f"{score.cpu_seconds:>7.2f} {ratio(mine[_TAR], score):>10.2f} {ratio(mine[_RIVAL], score):>15.2f}"
            )
        yield f"  the builder's time, 1 process: {_shares(mine[PROFILE].phases)}"
        yield f"  its own overhead, all but {', '.join(WORK)}: {overhead(mine[PROFILE]):.1%}"


def ratio(reference: Score, score: Score) -> float:
    """Return the speed of `score` relative to the reference's."""
    return reference.seconds / score.seconds


def overhead(profile: Score) -> float:
    """Return the share of the builder's time that is its own."""
    return 1.0 - sum(profile.phases.get(phase, 0.0) for phase in WORK)


def as_json(scores: Iterable[Score]) -> dict[str, Any]:
    """Return everything that was measured."""
    return {
        "notes": NOTES,
        "machine": {"system": platform.platform(), "python": platform.python_version()},
        "scores": [
            score.model_dump(mode="json")
            | {"seconds": score.seconds, "cpu_seconds": score.cpu_seconds, "spread": score.spread}
            | ({"phases": score.phases, "overhead": overhead(score)} if score.contender == PROFILE else {})
            for score in scores
        ],
    }


def dump(tree: dict[str, Any]) -> str:
    """Return a tree as JSON."""
    return json.dumps(tree, indent=2) + "\n"


def _rate(score: Score) -> float:
    return score.raw_bytes / 1e6 / score.seconds


def _shares(phases: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in phases.items())
