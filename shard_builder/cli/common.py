"""What the verbs of a build share: where the configuration comes from, how progress is told."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gfm_pipeline.config import load_config
from gfm_pipeline.errors import ShardError
from shard_builder.build.build import BuildReport, Event
from shard_builder.build.report import as_json, describe
from shard_builder.config import BuildConfig

PARTLY_FAILED = 3
F = TypeVar("F", bound=Callable[..., Any])


def build_options(command: F) -> F:
    """Add --config and --set, which every verb of a build takes."""
    command = click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value; repeatable."
    )(command)
    path = click.Path(path_type=Path)
    return click.option("--config", "path", type=path, required=True, help="YAML file of the build.")(command)


def read_config(path: Path, overrides: tuple[str, ...]) -> BuildConfig:
    """Return the build configuration with its overrides."""
    return load_config(path, BuildConfig, overrides)


@contextmanager
def telling(source: str) -> Iterator[Callable[[Event], None]]:
    """Give a function that tells what happens: a bar on a terminal, one JSON line per event elsewhere; on stderr."""
    console = Console(stderr=True)
    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{source}: reading archives", total=None)

        writing_since: list[float] = []

        def tell(event: Event) -> None:
            elapsed = time.monotonic() - started
            if event.name == "shard" and not writing_since:
                writing_since.append(elapsed)  # reading the archives before says nothing of the rate
            writing = elapsed - writing_since[0] if writing_since else 0.0
            if not console.is_terminal:
                click.echo(json.dumps(_line(source, event, elapsed, writing)), err=True)
            elif event.name == "shard":
                rate = f"{event.samples / writing:.0f} samples/s" if event.samples else "shards"
                rejects = f", {event.rejected} rejected" if event.rejected else ""
                bar.update(task, description=f"{source}: {rate}{rejects}", completed=event.done, total=event.total)
            elif event.name == "merge":
                bar.update(task, description=f"{source}: catalog and manifest")

        yield tell


def finish(report: BuildReport, config: BuildConfig, as_machine: bool) -> None:
    """Print the account of a build on stdout; exit 3 when items could not be packed.

    Raises ShardError when none at all were packed.
    """
    for line in [as_json(report)] if as_machine else describe(report, config):
        click.echo(line)
    if report.manifest is not None:
        counts = report.manifest.counts
        if not report.manifest.num_samples:
            reasons = [f"{row.item}: {row.reason}" for row in report.rejected]
            raise nothing_packed(config, reasons, counts["samples_planned"])
        if counts["items_rejected"] + counts["samples_rejected"]:
            sys.exit(PARTLY_FAILED)


def nothing_packed(config: BuildConfig, reasons: Sequence[str], tried: int) -> ShardError:
    """Return the error of a build that packs nothing, with the commonest kind of the reasons, which are by item.

    That a file was there before is no reason for that.
    """
    causes = [reason for reason in reasons if ": duplicate of " not in reason and not reason.endswith(" already")]
    kinds = Counter(map(_kind_of_reason, causes or reasons))
    commonest = max(causes or reasons, key=lambda reason: kinds[_kind_of_reason(reason)], default="")
    told = f" ({commonest}{f'; {len(reasons) - 1} more' if len(reasons) > 1 else ''})" if reasons else ""
    return ShardError(
        f"nothing of {config.input} can be packed: {tried} samples were tried{told}. Correct the configuration or the "
        "input; failures.jsonl of a build has every reason."
    )


def _kind_of_reason(reason: str) -> str:
    """Return a reason without its item, and without words that name a file or a number."""
    return re.sub(r"\S*[\d/!._]\S*", "", reason.partition(": ")[2])


def _line(source: str, event: Event, elapsed: float, writing: float) -> dict[str, Any]:
    line: dict[str, Any] = {"event": event.name, "source": source, "seconds": round(elapsed, 3)}
    if event.name == "shard":
        left = (event.total - event.done) * writing / event.written if event.written else None
        line |= {
            "done": event.done,
            "total": event.total,
            "samples": event.samples,
            "bytes": event.bytes,
            "rejected": event.rejected,
            "eta_seconds": None if left is None else round(left, 1),
        }
    return line
