"""`shard-builder build`: one collection from one raw archive family."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gfm_pipeline.config import load_config
from shard_builder.build import build_collection
from shard_builder.config import BuildConfig
from shard_builder.report import describe

PARTLY_FAILED = 3


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="YAML file of the build.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value; repeatable.")
@click.option("--fresh", is_flag=True, help="Replace what the output folder holds.")
def build(path: Path, overrides: tuple[str, ...], fresh: bool) -> None:
    """Pack a raw archive into a collection of paired shards.

    A build that was stopped goes on where it was. Exit code 3: done, but for the items that could not be packed,
    which failures.jsonl lists.
    """
    config = load_config(path, BuildConfig, overrides)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{config.source}: reading archives", total=None)

        def show(event: str, done: int, total: int) -> None:
            if event == "shard":
                bar.update(task, description=f"{config.source}: shards", completed=done, total=total)
                if not console.is_terminal:
                    click.echo(f"{config.source}: {done} of {total} shards", err=True)

        report = build_collection(config, fresh, show)
    for line in describe(report, config):
        click.echo(line)
    counts = report.manifest.counts
    if counts["items_rejected"] + counts["samples_rejected"]:
        sys.exit(PARTLY_FAILED)
