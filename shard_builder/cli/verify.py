"""`shard-builder verify`: prove that a collection is whole."""

from __future__ import annotations

import json
import sys
import time

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shard_builder.collection.problem import Problem
from shard_builder.collection.verify import VerifyReport, verify_collection


@click.command()
@click.argument("url")
@click.option("--sample", metavar="1%|N", help="Check a share or a number of the samples instead of all of them.")
@click.option("--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Processes that check.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify(url: str, sample: str | None, workers: int, as_json: bool) -> None:
    """Recompute every checksum of the collection at URL, decode every raster, and compare all of its records.

    Each problem is one line; exit code 1 when there are any. With --sample the same samples are chosen every time,
    and the last lines say what was not checked.
    """
    found: list[Problem] = []
    started = time.perf_counter()
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("verifying", total=None)
        report = verify_collection(
            url,
            sample,
            workers,
            found.append if as_json else lambda problem: click.echo(str(problem)),
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    seconds = time.perf_counter() - started
    if as_json:
        click.echo(json.dumps(_document(report, found, seconds)))
    else:
        _print(report, seconds)
    if report.problems:
        sys.exit(1)


def _document(report: VerifyReport, found: list[Problem], seconds: float) -> dict[str, object]:
    listed = [problem.model_dump() for problem in found]
    return {
        **vars(report),
        "sound": not report.problems,
        "problems": report.problems,
        "listed": listed,
        "seconds": round(seconds, 3),
    }


def _print(report: VerifyReport, seconds: float) -> None:
    problems = f"{report.problems or 'no'} problem{'' if report.problems == 1 else 's'}"
    checked = f"{report.shards} shards, {report.samples} samples, {report.members} members, {report.bytes / 1e6:.1f} MB"
    rate = report.bytes / 1e6 / max(seconds, 1e-9)
    click.echo(f"{report.url}: {problems}; {checked} checked in {seconds:.1f} s ({rate:.0f} MB/s)")
    for line in report.not_checked:
        click.echo(f"  not checked: {line}")
